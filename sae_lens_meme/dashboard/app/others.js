// The pages of a meme and of a concept, and the map.

function MemePage({ value }) {
  const search = useSearch();
  const place = search ? search.id.indexOf(value) : -1;
  const meme = useEntry("memes", place < 0 ? null : place);
  if (search === null || meme === null) return html`<h1>${capital(NOUN.one)} ${value}</h1><${Unreadable} />`;
  if (!search) return html`<h1>${capital(NOUN.one)} ${value}</h1><p class="note" role="status">Reading…</p>`;
  if (place < 0) return html`<h1>No such ${NOUN.one}</h1><p>The report shows ${core.n_shown.toLocaleString("en")} of ${core.n_memes.toLocaleString("en")} ${NOUN.many}, and none has the id “${value}”.</p>`;
  if (!meme) return html`<h1>${capital(NOUN.one)} ${value}</h1><p class="note" role="status">Reading…</p>`;
  return html`<h1>${capital(NOUN.one)} <span class="id">${value}</span></h1>
    <p class="note">Split ${meme.split}, source ${meme.source}.</p>
    <${Coverable} what=${`this ${NOUN.one}`}><${MemeBody} place=${place} meme=${meme} caption=${search.caption[place]} /><//>`;
}

function MemeBody({ place, meme, caption }) {
  const covered = !useContext(Uncovered).page;
  const token = tokenAt(useSearch(), place);
  const most = Math.max(...meme.latents.map(([, a]) => a), 1e-9);
  return html`<div class="meme">
    <div class="large"><${Picture} place=${place} covered=${covered} overlay=${html`<${Patch} place=${place} />`} /><${Caption} text=${caption} covered=${covered} span=${token?.span} />
      <${Where} token=${token} covered=${covered} /></div>
    <section><h2>Labels</h2>${meme.labels.length ? html`<table class="numbers"><tbody>${meme.labels.map(([name, level]) => html`<tr><th scope="row">${name}</th><td class="level">${level ?? html`<span class="dim">missing</span>`}</td></tr>`)}</tbody></table>` : html`<p class="note">${core.missing.labels}</p>`}</section>
    <${Reading} meme=${meme} />
    <section><h2>All its latents</h2>${meme.latents.length ? html`<table class="numbers"><caption class="unseen">Active latents, the strongest first</caption><tbody>${meme.latents.map(([latent, activation]) => html`<tr>
      <th scope="row"><a href=${link.latent(latent)}>${latent}: ${titleOf(latent)}</a> ${core.latents.name[latent] === null ? null : html`<${Tag} tone=${core.tones[core.latents.verdict[latent]]}>${core.latents.verdict[latent]}<//>`}</th>
      <td class="plot"><svg width="100%" height="10" aria-hidden="true"><rect class="bar" width=${`${(100 * activation) / most}%`} height="10" /></svg></td><td>${number(activation)}</td></tr>`)}</tbody></table>` : html`<p class="note">No latent fires on this ${NOUN.one}.</p>`}</section>
    <section><h2>Nearest ${NOUN.many}</h2><p class="note">By cosine at ${core.hook}, among the ${NOUN.many} that this report shows.</p>
      <ul class="cards">${meme.nearest.map(([other, cosine]) => html`<${Thumb} place=${other}>cosine ${number(cosine)}<//>`)}</ul></section>
  </div>`;
}

const SIDES = { picture: "the picture", caption: "the caption", both: "only both together", either: "either is enough" };
const wholePercent = (share) => `${Math.round(100 * share)} %`;
const LatentLink = ({ latent }) => html`<a href=${link.latent(latent)}>${latent}: ${titleOf(latent)}</a>`;

/** What `read` says about a meme: its strongest latents, which side decides each, and what each label's probe reads from them. */
function Reading({ meme }) {
  if (!meme.reading) return html`<section class="reading wide"><h2>What decides this ${NOUN.one}</h2><p class="note">${core.n_read
    ? `${core.n_read.toLocaleString("en")} of the ${several(core.n_shown, NOUN.one)} on this page were read, the strongest of each latent first, but not this one: ${OF_TOKENS ? "" : "`sae-lens-meme read` reads any picture, and "}dashboard --readings ${OF_TOKENS ? "reads " : ""}more of them.`
    : `It was not read: that needs the SAE and the ${NOUN.many} that it was trained on.`}</p></section>`;
  const { latents, decisions } = meme.reading;
  return html`<section class="reading wide"><h2>What the model sees in it</h2>
    <table class="says stacked"><caption class="unseen">The strongest latents of this ${NOUN.one}</caption>
      <thead><tr><th scope="col">latent</th><th scope="col">how good its name is</th><th scope="col">decided by</th><th scope="col">stays active with other captions / pictures</th></tr></thead>
      <tbody>${latents.map((row) => html`<tr><th scope="row"><${LatentLink} latent=${row.latent} /></th>
        <td data-label="name"><${Tag} tone=${core.tones[core.latents.verdict[row.latent]]}>${core.latents.verdict[row.latent]}<//> <span class="dim">${row.evidence}</span></td>
        <td data-label="decided by">${SIDES[row.decided_by] ?? "not known"}</td><td data-label="with other captions / pictures">${row.kept ? row.kept.map(wholePercent).join(" / ") : "–"}</td></tr>`)}</tbody>
    </table>
    <p class="note">${core.no_sides ? `Which side decides a latent is not known: ${core.no_sides}.` : "Decided by the picture: the latent stays active with 4 of 5 captions of other memes; by the caption: with 4 of 5 of their pictures; both: with neither; either: with both of them."} A name is weak where its AUROC is under 0.6, or where the latent does not find the ${NOUN.many} that the name says: the latent's page says which.</p></section>
  <section class="reading wide"><h2>What each label's classifier says, and which latents carry that</h2>
    ${decisions.length ? html`<ul class="decisions">${decisions.map((row) => html`<${Decision} row=${row} split=${meme.split} />`)}</ul>
    <p class="note">A probe on the latents. Contributions of latents add up, with a constant, to the logit of this class above that of the next. As many others: active latents of similar activation ablated instead, median and 95 % of the draws.${meme.split === "train" ? ` This is one of the ${NOUN.many} that the probes were fitted to, so their scores on it are flattering.` : ""}</p>` : html`<p class="note">No label of these ${NOUN.many} allows a classifier.</p>`}</section>`;
}

function Decision({ row }) {
  const [low, middle, high] = row.random;
  return html`<li><strong>${row.label}: ${row.decided}</strong> with probability ${number(row.probability)} (${wholePercent(row.prevalence)} of the train ${NOUN.many} are)${row.right === null ? "" : row.right ? ", as it is labelled" : ", which is not its label"}.${" "}<span class="dim">${row.evidence}.</span><br />
    ${row.carriers.length ? html`Carried by ${row.carriers.map(([latent, share], i) => html`${i > 0 && ", "}<${LatentLink} latent=${latent} /> (${signedNumber(share)})`)}: without ${row.carriers.length === 1 ? "it" : "them"} ${number(row.without)}${row.random.length ? `, without as many others ${number(middle)} (${number(low)} to ${number(high)})` : "; too few others are active for a control"}.` : "No active latent carries it."}</li>`;
}

function ConceptPage({ value }) {
  const pages = usePart("concepts");
  if (pages === null) return html`<h1>Concept ${called(value)}</h1><${Unreadable} />`;
  if (!pages) return html`<h1>Concept ${called(value)}</h1><p class="note" role="status">Reading…</p>`;
  const page = pages.find((p) => p.name === value);
  if (!page) return html`<h1>No such concept</h1><p>“${value}” was not tested.</p><${Concepts} />`;
  const rows = records(core.concept_columns, page.rows);
  const rivals = page.rivals.filter(([name]) => name !== "sae");
  const [split] = core.held_out;
  const sae = page.rivals.find(([name]) => name === "sae");
  return html`<h1>Concept ${called(value)}</h1>
    <p>${page.sentence}</p><p>${several(page.significant, "latent is", "latents are")} tied to it (q under 0.05 over all latents and concepts).</p>
    ${rivals.length > 0 && html`<section><h2>Against other units</h2><p>The best single unit for this concept, chosen on ${split === "test" ? "train and validation" : "train"} ${NOUN.many}, measured on ${split} ${NOUN.many}.</p>
      <${Dots} rows=${[{ label: "the SAE's latents", value: sae?.[1], strong: true }, ...rivals.map(([name, v]) => ({ label: name.replaceAll("_", " "), value: v }))]} domain=${[0, 1]} reference=${0.5} axis=${`AUROC of the best unit, ${split} ${NOUN.many} within source`} />
      <p class="note">k: as few units fire on a ${NOUN.one} as latents do; the others are dense. The linear probe reads the whole embedding and is the ceiling; permuted labels are the floor.</p></section>`}
    <section><h2>Its latents</h2>
      <${Dots} rows=${rows.slice(0, 12).map((row, i) => ({ label: `${page.latents[i]}: ${titleOf(page.latents[i])}`, href: link.latent(page.latents[i]), value: row.auroc, low: row.auroc_low, high: row.auroc_high, poor: !(row.f1_test > row.f1_always_on) }))} domain=${[0, 1]} reference=${0.5} axis=${`AUROC, how well the latent tells the ${NOUN.many} with the concept: test ${NOUN.many}, within source; 0.5 is guessing`} />
      <div class="scroll"><table class="numbers"><caption class="unseen">Latents of this concept</caption>
        <thead><tr><th scope="col">latent</th><th scope="col">${page.chosen ? `F1, ${page.chosen} (the order)` : "F1"}</th><th scope="col">F1, test</th><th scope="col">F1, always yes</th><th scope="col">AUROC, latent to concept (95 %)</th><th scope="col">odds ratio</th><th scope="col">q${page.chosen ? "" : " (the order)"}</th></tr></thead>
        <tbody>${rows.map((row, i) => html`<tr class=${row.q_global < 0.05 ? "" : "faint"}><th scope="row"><a href=${link.latent(page.latents[i])}>${page.latents[i]}: ${titleOf(page.latents[i])}</a></th>
          <td>${number(row.f1_validation)}</td><td class=${row.f1_test > row.f1_always_on ? "better" : ""}>${number(row.f1_test)}</td><td>${number(row.f1_always_on)}</td><td>${number(row.auroc)}${interval(row.auroc_low, row.auroc_high)}</td><td>${number(row.odds_ratio)}</td><td>${chance(row.q_global)}</td></tr>`)}</tbody>
      </table></div><p class="note">Dim: the F1 of always saying yes is not beaten (chart), not significant (table). F1 and AUROC are measured on test ${NOUN.many}, odds ratio and q on all whose label is known${page.chosen ? "" : ", the test ones that measure among them"}.</p></section>`;
}

function Concepts() {
  if (!core.concepts.length) return html`<h1>Concepts</h1><p>${core.missing.labels || core.missing.concept_alignment}</p>`;
  const count = core.concepts.map((_, k) => core.latents.concepts.filter((tied) => tied.includes(k)).length);
  return html`<h1>Concepts</h1><ul class="plain">${core.concepts.map((name, k) => html`<li><a href=${link.concept(name)}>${called(name)}</a> <span class="dim">${several(count[k], "latent")} tied to it</span></li>`)}</ul>`;
}

const COLOURS = {
  kind: ["what drives it", (i) => KINDS[core.latents.decided_by[i]] ?? "not known", ["picture", "caption", "both together", "undecided", "not known"]],
  stable: ["reappears with another seed", (i) => ({ true: "yes", false: "no" })[core.latents.stable[i]] ?? "not measured", ["yes", "no", "not measured"]],
  density: ["how often it fires", (i) => (isDense(i) ? "dense (over 10 %)" : core.latents.fires[i] > 0.01 ? "1 to 10 %" : "under 1 %"), ["dense (over 10 %)", "1 to 10 %", "under 1 %"]],
};

function MapPage() {
  const [by, setBy] = useState(core.concepts.length ? "concept" : "kind");
  const [concept, setConcept] = useState(0);
  const l = core.latents;
  const placed = useMemo(() => [...Array(LATENTS).keys()].filter((i) => l.x[i] !== null), []);
  if (!placed.length) return html`<h1>Map</h1><p>No latent fires: there is nothing to place.</p>`;
  const [label, of, classes] = by === "concept"
    ? [`tied to ${called(core.concepts[concept])}`, (i) => (l.concepts[i].includes(concept) ? "tied (q < 0.05)" : "not tied"), ["tied (q < 0.05)", "", "", "not tied"]]
    : COLOURS[by];
  const xs = scaleOf(placed.map((i) => l.x[i]));
  const ys = scaleOf(placed.map((i) => l.y[i]));
  const radius = placed.length > 1000 ? 3 : 5;
  return html`<h1>Map of the decoders</h1>
    <p>Each point is a latent; near points write in similar directions (${core.map} of the decoder rows, cosine). Distances between groups mean nothing.</p>
    <form class="filters" onSubmit=${(e) => e.preventDefault()}>
      <${Choice} label="colour" value=${by} set=${setBy} options=${[...(core.concepts.length ? [["concept", "a concept"]] : []), ...Object.entries(COLOURS).map(([k, [text]]) => [k, text])]} />
      ${by === "concept" && html`<${Choice} label="concept" value=${concept} set=${(v) => setConcept(Number(v))} options=${core.concepts.map((name, i) => [i, called(name)])} />`}
    </form>
    <ul class="key">${classes.map((name, k) => name && html`<li><svg width="14" height="14" aria-hidden="true"><circle class=${`point p${k}`} cx="7" cy="7" r="5" /></svg> ${name} (${placed.filter((i) => of(i) === name).length})</li>`)}</ul>
    <svg class="map" width="100%" height="560" role="img" aria-label=${`Map of ${several(placed.length, "latent")}, coloured by: ${label}. The list of latents has the same filters.`}>
      ${[...placed].sort((a, b) => classes.indexOf(of(b)) - classes.indexOf(of(a))).map((i) => html`<circle class=${`point p${classes.indexOf(of(i))}`} cx=${xs.at(l.x[i])} cy=${ys.at(l.y[i])} r=${radius}
        onClick=${() => (location.hash = link.latent(i))}><title>${`${i}: ${titleOf(i)} (${of(i)})`}</title></circle>`)}
    </svg>
    <p class="note">${LATENTS - placed.length ? `${several(LATENTS - placed.length, "dead latent is", "dead latents are")} left out. ` : ""}A click opens a latent; with the keyboard use the list.</p>`;
}
