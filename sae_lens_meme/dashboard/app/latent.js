// The page of a latent, and two of them side by side.

const SIGN = { good: "✓", poor: "✗", unknown: "?", fact: "•" };
const SAYS = { good: "holds against its control", poor: "to be distrusted", unknown: "not known", fact: "a fact" };

const Answers = ({ answers }) => html`<dl class="answers">${answers.map(([question, text, tone]) => html`<div class=${tone}>
  <dt>${question}</dt><dd><span class="sign" role="img" aria-label=${SAYS[tone]}>${SIGN[tone]}</span> ${text}</dd></div>`)}</dl>`;

const records = (columns, rows) => rows.map((row) => Object.fromEntries(row.map((cell, i) => [columns[i], cell])));

function ConceptBars({ page }) {
  if (!page.concepts.length) return html`<p class="note">${core.missing.labels || core.missing.concept_alignment || "No concept was tested."}</p>`;
  const all = records(core.concept_columns, page.concepts).map((row, i) => ({ ...row, name: core.concepts[i] }));
  const tested = all.filter((row) => row.q_global !== null).sort((a, b) => a.q_global - b.q_global || Math.abs(b.auroc - 0.5) - Math.abs(a.auroc - 0.5));
  if (!tested.length) return html`<p class="note">It fires on too few ${NOUN.many} to test a concept.</p>`;
  const tied = tested.filter((row) => row.q_global < 0.05);
  const shown = tested.slice(0, Math.max(6, Math.min(12, tied.length)));
  const line = (row) => ({
    label: called(row.name), href: link.concept(row.name), value: row.auroc, low: row.auroc_low, high: row.auroc_high,
    poor: !(row.q_global < 0.05), text: `${number(row.auroc)}${interval(row.auroc_low, row.auroc_high)}`,
  });
  return html`
    <p>${tied.length ? `Of ${several(tested.length, "tested concept")} it is tied to ${tied.length} (q < 0.05); ${tied.filter((r) => r.f1_test > r.f1_always_on).length} of these it tells better than always saying yes.` : `It is tied to none of ${several(tested.length, "tested concept")} (q < 0.05).`}</p>
    <${Dots} rows=${shown.map(line)} domain=${[0, 1]} reference=${0.5} axis=${`AUROC, how well the latent tells the ${NOUN.many} with the concept: test ${NOUN.many}, within source; 0.5 is guessing`} />
    <div class="scroll"><table class="numbers"><caption class="unseen">Concepts of this latent</caption>
      <thead><tr><th scope="col">concept</th><th scope="col">odds ratio (95 %)</th><th scope="col">fires more often by</th><th scope="col">q</th><th scope="col">F1, test</th><th scope="col">F1, always yes</th><th scope="col">test ${NOUN.many}</th></tr></thead>
      <tbody>${tested.map((row) => html`<tr class=${row.q_global < 0.05 ? "" : "faint"}><th scope="row"><a href=${link.concept(row.name)}>${called(row.name)}</a></th>
        <td>${number(row.odds_ratio)}${interval(row.odds_ratio_low, row.odds_ratio_high)}</td><td>${signedNumber(row.firing_rate_difference)}</td>
        <td>${chance(row.q_global)}</td><td class=${row.f1_test > row.f1_always_on ? "better" : ""}>${number(row.f1_test)}</td><td>${number(row.f1_always_on)}</td><td>${number(row.n_test)}</td></tr>`)}</tbody>
    </table></div>
    <p class="note">F1 is measured on test ${NOUN.many}; odds ratio, difference and q on all whose label is known. Grey: not significant after correction over all latents and concepts. Bold: better than always saying yes.</p>`;
}

/** Which rows so many are: the held-out ones, else all. */
const held = (n) => (n === core.held_out[1] ? core.held_out[0] : "all");

function EffectBars({ page }) {
  const rows = records(core.effect_columns, page.effects).filter((row) => row.delta_all !== null);
  if (!rows.length) return html`<p class="note">${core.missing.influence || "No edit of this latent was measured."}</p>`;
  const line = (row) => ({
    label: `${called(`${row.task}=${row.class}`)}${row.head && row.head !== "probe" ? `, ${row.head}` : ""}`, value: row.delta_all, low: row.delta_all_low, high: row.delta_all_high,
    band: row.delta_random, controls: row.delta_matched === null ? [] : [1, -1].map((sign) => ["latents that fire as often", sign * row.delta_matched]),
    text: `${signedNumber(row.delta_all)}${interval(row.delta_all_low, row.delta_all_high, signedNumber)}`,
    poor: !row.beats,
  });
  const kinds = [...new Set(rows.map((row) => `${row.kind} ${row.multiplier}`))];
  return html`${kinds.map((kind) => {
    const mine = rows.filter((row) => `${row.kind} ${row.multiplier}` === kind);
    const what = mine[0].kind === "ablation" ? "taken out" : `multiplied by ${number(mine[0].multiplier)}`;
    const beats = mine.filter((row) => row.beats);
    return html`<h3>The latent is ${what}</h3>
      <p>${beats.length ? `The classifiers of ${beats.length} of ${several(mine.length, "label")} move by more than the controls: ${beats.map((row) => row.task).join(", ")}.` : `No classifier of ${several(mine.length, "label")} moves by more than the controls.`}</p>
      <${Dots} rows=${mine.map(line)} reference=${0} axis=${`mean change of the class's probability, ${held(mine[0].n)} ${NOUN.many}`} />`;
  })}
  <p class="note">Grey band: as large a step in a random direction. Marks: the mean of latents that fire as often. A dim row is within a control. ${core.use}</p>`;
}

const Neighbours = ({ page }) => html`<ul class="plain">${page.neighbours.map(([latent, cosine]) => html`<li>
  <a href=${link.latent(latent)}>${latent}: ${titleOf(latent)}</a> <span class="dim">cosine ${number(cosine)}${isDead(latent) ? ", dead" : ""}</span></li>`)}</ul>`;

/** What any evaluator says of this latent, as it is. */
function Measured({ page }) {
  const names = Object.keys(page.tables).filter((name) => page.tables[name].length);
  return html`${names.map((name) => {
    const rows = page.tables[name];
    return html`<details class="measured"><summary>${name.replaceAll("_", " ")}</summary><div class="scroll"><table class="numbers">
      <caption class="unseen">${name} of this latent</caption>
      <tbody>${core.columns[name].map(([column, meaning], k) => html`<tr><th scope="row" title=${meaning}>${column}<span class="meaning">${meaning}</span></th>${rows.map((row) => html`<td>${typeof row[k] === "boolean" ? (row[k] ? "yes" : "no") : number(row[k])}</td>`)}</tr>`)}</tbody>
    </table></div></details>`;
  })}`;
}

function nextAlive(latent, step) {
  for (let k = 1; k <= LATENTS; k++) {
    const other = (latent + step * k + LATENTS * k) % LATENTS;
    if (!isDead(other)) return other;
  }
  return latent;
}

/** Memes first; a button for each section below them, because links are for pages. */
function Body({ latent, page, brief }) {
  const body = useRef(null);
  const about = page.answers[0];
  const sections = [
    ["Verdicts", html`<${Answers} answers=${page.answers.slice(1)} />`],
    ["Concepts", html`<${ConceptBars} page=${page} />`],
    ["What an edit does to the classifiers", html`<${EffectBars} page=${page} />`],
    ["How strongly it fires", html`<${Histogram} counts=${page.histogram} largest=${core.latents.largest[latent]} fires=${core.latents.fires[latent]} />`],
    ...(brief ? [] : [
      ["Latents that write in nearly the same direction", html`<${Neighbours} page=${page} />`],
      ["Everything measured about this latent", html`<${Measured} page=${page} />`],
    ]),
  ];
  const go = (i) => body.current.querySelectorAll("section.part")[i].scrollIntoView();
  return html`<div ref=${body}>
    <p class="about"><span class="sign" role="img" aria-label=${SAYS[about[2]]}>${SIGN[about[2]]}</span> ${about[1]}</p>
    ${!brief && html`<nav class="buttons" aria-label="On this page">${sections.map(([title], i) => html`<button type="button" class="jump" onClick=${() => go(i)}>${title}</button>`)}</nav>`}
    <section class="memes"><h2>${capital(NOUN.all_shown)}</h2><${Coverable} what=${`latent ${latent}`}><${Gallery} memes=${page.memes} /><//></section>
    ${sections.map(([title, part]) => html`<section class="part"><h2>${title}</h2>${part}</section>`)}
  </div>`;
}

const Unreadable = () => html`<p>This part of the report cannot be read; keep the folder ${core.beside} beside the page.</p>`;

function LatentPage({ value }) {
  const latent = Number(value);
  const known = Number.isInteger(latent) && latent >= 0 && latent < LATENTS && value.trim() !== "";
  const page = useEntry("latents", known ? latent : null);
  const [other, setOther] = useState("");
  if (!known) return html`<h1>No such latent</h1><p>This dictionary has latents 0 to ${LATENTS - 1}; the link asks for “${value}”.</p>`;
  const name = nameOf(latent);
  const word = core.latents.verdict[latent];
  const go = (to) => (location.hash = link.latent(to));
  return html`
    <p class="buttons"><button type="button" onClick=${() => go(nextAlive(latent, -1))}>← Previous alive</button>
      <button type="button" onClick=${() => go(nextAlive(latent, 1))}>Next alive →</button>
      <button type="button" onClick=${() => go(nextAlive(Math.floor(Math.random() * LATENTS), 1))}>Random</button>
      <form class="inline" onSubmit=${(e) => { e.preventDefault(); if (other !== "") location.hash = link.compare(latent, other); }}>
        <label>Compare with latent <input type="number" min="0" max=${LATENTS - 1} value=${other} onInput=${(e) => setOther(e.target.value)} /></label>
        <button>Compare</button></form></p>
    <h1>Latent ${latent}: ${name === null ? html`<span class="dim">no name</span>` : html`“${name}”`}
      ${name !== null && html` <${Tag} tone=${core.tones[word]}>${word}<//>`}
      ${isDead(latent) && html` <${Tag} tone="poor">dead<//>`}${isDense(latent) && html` <${Tag} tone="fact">dense<//>`}</h1>
    ${page === undefined ? html`<p class="note" role="status">Reading…</p>` : page === null ? html`<${Unreadable} />` : html`<${Body} key=${latent} latent=${latent} page=${page} />`}`;
}

function Compare({ value }) {
  const [a, b] = value.split(",").map((v) => (v.trim() === "" ? NaN : Number(v)));
  const known = [a, b].every((v) => Number.isInteger(v) && v >= 0 && v < LATENTS);
  const pages = [useEntry("latents", known ? a : null), useEntry("latents", known ? b : null)];
  if (!known) return html`<h1>Compare two latents</h1><p>Give two of 0 to ${LATENTS - 1}, as in #compare=1,2.</p>`;
  if (pages.includes(null)) return html`<h1>Compare two latents</h1><${Unreadable} />`;
  if (pages.includes(undefined)) return html`<h1>Compare two latents</h1><p class="note" role="status">Reading…</p>`;
  const cosine = pages[0].neighbours.find(([other]) => other === b)?.[1] ?? pages[1].neighbours.find(([other]) => other === a)?.[1];
  const shared = pages[0].memes.at.filter((place) => pages[1].memes.at.includes(place)).length;
  return html`<h1>Latent ${a} beside latent ${b}</h1>
    <p>${a === b ? "These are the same latent. " : ""}${cosine === undefined ? "Neither is among the ten nearest decoders of the other" : `Their decoders have cosine ${number(cosine)}`}; of the ${pages[0].memes.at.length} and ${several(pages[1].memes.at.length, NOUN.one)} shown, they share ${shared}.</p>
    <div class="beside">${[a, b].map((latent, k) => html`<article aria-label=${`Latent ${latent}`}><h2 class="title"><a href=${link.latent(latent)}>Latent ${latent}: ${titleOf(latent)}</a></h2>
      <${Body} latent=${latent} page=${pages[k]} brief=${true} /></article>`)}</div>`;
}
