// The list of latents: search, filters, an order, a selection. Only the rows in the window exist.

const ROW = 56;
const EXTRA = 6;
const NO_FILTER = { text: "", concept: "", kind: "", life: "alive", name: "", stable: "", order: "name" };
const kept = { ...NO_FILTER, selected: new Set(), top: 0 }; // stays while the reader looks at a latent

const KINDS = { visual: "picture", textual: "caption", "cross-modal": "both together", undecided: "undecided" };
const ORDERS = {
  name: ["best name first", (a) => -(isGood(a) ? 1 : 0) - (core.latents.holds[a] ? core.latents.auroc[a] ?? 0 : -1)],
  number: ["number", (a) => a],
  often: ["fires most often", (a) => -core.latents.fires[a]],
  seldom: ["fires least often", (a) => core.latents.fires[a]],
  strong: ["largest activation", (a) => -(core.latents.largest[a] ?? 0)],
};

/** Keys of the data and how they are shown, in lower case. */
const lowered = (keys) => keys.map((key) => (key === null ? "" : `${key}\n${called(key)}`.toLowerCase()));
const LOWER = { name: lowered(core.latents.name), concept: lowered(core.concepts) };

/** What holds the text: latents by name and number, concepts with their latents, and memes by caption, id and label. */
function matching(text, search) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const memes = new Set();
  const levels = new Set();
  search?.lowerLevel.forEach((level, k) => level.includes(wanted) && levels.add(k));
  search?.lower.forEach((caption, place) => caption.includes(wanted) && memes.add(place));
  search?.id.forEach((id, place) => id.toLowerCase().includes(wanted) && memes.add(place));
  if (levels.size) search.has.forEach((has, place) => has.some((k) => levels.has(k)) && memes.add(place));
  const concepts = core.concepts.map((_, k) => k).filter((k) => LOWER.concept[k].includes(wanted));
  const [byName, byConcept, byMeme] = [new Set(), new Set(), new Set()];
  for (let latent = 0; latent < LATENTS; latent++) {
    if (String(latent) === wanted || LOWER.name[latent].includes(wanted)) byName.add(latent);
    else if (concepts.some((k) => core.latents.concepts[latent].includes(k))) byConcept.add(latent);
    else if (memes.size && search.of[latent].some((place) => memes.has(place))) byMeme.add(latent);
  }
  return { byName, byConcept, byMeme, concepts, levels: [...levels], memes: [...memes] };
}

function filtered(f, found) {
  const l = core.latents;
  const latents = [];
  for (let i = 0; i < LATENTS; i++) {
    if (found && !found.byName.has(i) && !found.byConcept.has(i) && !found.byMeme.has(i)) continue;
    if (f.life === "alive" && isDead(i)) continue;
    if (f.life === "dead" && !isDead(i)) continue;
    if (f.life === "dense" && !isDense(i)) continue;
    if (f.life === "sparse" && (isDead(i) || isDense(i))) continue;
    if (f.kind && l.decided_by[i] !== f.kind) continue;
    if (f.concept !== "" && !l.concepts[i].includes(Number(f.concept))) continue;
    if (f.name === "good" && !isGood(i)) continue;
    if (f.name === "holds" && !l.holds[i]) continue;
    if (f.name === "word" && l.name_kind[i] !== "word") continue;
    if (f.name === "concept" && l.name_kind[i] !== "concept") continue;
    if (f.name === "none" && l.name[i] !== null) continue;
    if (f.stable === "yes" && !l.stable[i]) continue;
    if (f.stable === "no" && l.stable[i] !== false) continue;
    latents.push(i);
  }
  const keys = latents.map((i) => [found?.byName.has(i) ? 0 : found?.byConcept.has(i) ? 1 : 2, ORDERS[f.order][1](i), i]);
  return keys.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map((k) => k[2]);
}

const Choice = ({ label, value, set, options }) => {
  const id = `choice-${label.replaceAll(" ", "-")}`;
  return html`<div class="choice"><label for=${id}>${label}</label>
    <select id=${id} value=${value} onChange=${(e) => set(e.target.value)}>${options.map(([v, text]) => html`<option value=${v}>${text}</option>`)}</select></div>`;
};

function summaryOf(latent) {
  const l = core.latents;
  if (isDead(latent)) return "dead: never fires";
  const words = [`fires on ${percent(l.fires[latent])}${isDense(latent) ? ", dense" : ""}`];
  if (l.name[latent] !== null) words.push(`${l.verdict[latent]}${l.auroc[latent] === null ? "" : `, AUROC from name to latent ${number(l.auroc[latent])}`}`);
  if (l.decided_by[latent]) words.push(KINDS[l.decided_by[latent]] ?? l.decided_by[latent]);
  if (l.stable[latent] !== null) words.push(l.stable[latent] ? "reappears" : "one seed only");
  return words.join(" · ");
}

function download(latents, as) {
  const columns = ["latent", "name", "name_kind", "verdict", "holds", "auroc", "fires", "largest", "decided_by", "stable", "concepts"];
  const rows = latents.map((i) => columns.map((c) =>
    c === "latent" ? i : c === "concepts" ? core.latents.concepts[i].map((k) => core.concepts[k]) : core.latents[c][i]));
  if (as === "json") {
    const records = rows.map((row) => Object.fromEntries(row.map((cell, k) => [columns[k], cell])));
    return saveFile("latents.json", "application/json", JSON.stringify(records, null, 1));
  }
  const cell = (v) => {
    let text = v === null ? "" : Array.isArray(v) ? v.join("; ") : String(v);
    if (typeof v !== "number" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // no formula in a spreadsheet
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return saveFile("latents.csv", "text/csv", [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n");
}

function Rows({ latents, selected, toggle }) {
  const box = useRef(null);
  const [top, setTop] = useState(kept.top);
  const [height, setHeight] = useState(600);
  const focus = useRef(null);
  useEffect(() => {
    box.current.scrollTop = kept.top;
    const measure = () => setHeight(box.current?.clientHeight || 600);
    measure();
    addEventListener("resize", measure);
    return () => removeEventListener("resize", measure);
  }, []);
  useEffect(() => {
    if (kept.top > latents.length * ROW) box.current.scrollTop = 0;
  }, [latents]);
  useEffect(() => {
    if (focus.current === null) return;
    box.current.querySelector(`[data-place="${focus.current}"]`)?.focus();
    focus.current = null;
  });
  const first = Math.max(0, Math.floor(top / ROW) - EXTRA);
  const last = Math.min(latents.length, Math.ceil((top + height) / ROW) + EXTRA);
  const move = (event) => {
    const here = Number(event.target.dataset?.place);
    const page = Math.floor(height / ROW);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -latents.length, End: latents.length };
    if (!(event.key in steps) || Number.isNaN(here)) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(latents.length - 1, here + steps[event.key]));
    const at = next * ROW;
    const down = box.current;
    if (at < down.scrollTop) down.scrollTop = at;
    else if (at + ROW > down.scrollTop + height) down.scrollTop = at + ROW - height;
    focus.current = next;
    setTop(down.scrollTop); // redraws; then the row is there to take the focus
    down.querySelector(`[data-place="${next}"]`)?.focus();
  };
  const scrolled = (event) => setTop((kept.top = event.currentTarget.scrollTop));
  return html`<div class="rows" ref=${box} onScroll=${scrolled} onKeyDown=${move} tabindex="-1">
    <ul style=${{ height: `${latents.length * ROW}px` }}>
      ${latents.slice(first, last).map((latent, k) => html`<li key=${latent} class="row" style=${{ top: `${(first + k) * ROW}px` }} aria-setsize=${latents.length} aria-posinset=${first + k + 1}>
        <input type="checkbox" aria-label=${`Select latent ${latent}`} checked=${selected.has(latent)} onChange=${() => toggle(latent)} />
        <a href=${link.latent(latent)} data-place=${first + k}><span class="number">${latent}</span> <span class=${core.latents.name[latent] === null ? "dim" : isGood(latent) ? "named" : "doubtful"}>${titleOf(latent)}</span>
          <span class="summary">${summaryOf(latent)}</span></a>
      </li>`)}
    </ul>
  </div>`;
}

const MOST_FOUND = 60;

/** Concepts and labels by link, memes behind a fold, and how many memes this page has at all. */
function Found({ found, search }) {
  return html`<div class="hits">
    ${found.concepts.length > 0 && html`<p>Concepts: ${found.concepts.map((k, i) => html`${i > 0 && ", "}<a href=${link.concept(core.concepts[k])}>${called(core.concepts[k])}</a>`)}</p>`}
    ${found.levels.length > 0 && html`<p>Labels: ${found.levels.map((k) => search.level[k][1]).join(", ")}</p>`}
    ${found.memes.length > 0 && html`<details class="found"><summary>${several(found.memes.length, NOUN.one)} match${found.memes.length === 1 ? "es" : ""}</summary>
      <ul class="plain">${found.memes.slice(0, MOST_FOUND).map((place) => html`<li><a href=${link.meme(search.id[place])}>${search.id[place]}</a></li>`)}</ul>
      ${found.memes.length > MOST_FOUND && html`<p class="note">The first ${MOST_FOUND} are shown; a longer text finds fewer.</p>`}</details>`}
    <p class="note">${core.n_shown.toLocaleString("en")} of ${several(core.n_memes, NOUN.one)} are on this page, those that stand for the latents; the search covers all of these.</p>
  </div>`;
}

function LatentList() {
  const [f, setF] = useState(() => ({ ...kept }));
  const search = useSearch();
  const change = (some) => setF((old) => {
    Object.assign(kept, some, { top: 0 });
    return { ...old, ...some };
  });
  const found = useMemo(() => matching(f.text, search), [f.text, search]);
  const latents = useMemo(() => filtered(f, found), [f, found]);
  const [selected, setSelected] = useState(kept.selected);
  const toggle = (latent) => setSelected((old) => {
    const next = new Set(old);
    next.has(latent) ? next.delete(latent) : next.add(latent);
    return (kept.selected = next);
  });
  const chosen = selected.size ? [...selected].sort((a, b) => a - b) : latents;
  const set = (key) => (value) => change({ [key]: value });
  const alive = latents.filter((i) => !isDead(i));
  const l = core.latents;
  return html`<div class="finder">
    <h1>Latents</h1>
    <form class="filters" role="search" onSubmit=${(e) => e.preventDefault()}>
      <div class="choice wide"><label for="search">Search latents, labels, concepts, and captions and ids of ${NOUN.many}</label>
        <input id="search" type="search" autocomplete="off" value=${f.text} onInput=${(e) => change({ text: e.target.value })} /></div>
      ${core.concepts.length > 0 && html`<${Choice} label="tied to the concept" value=${f.concept} set=${set("concept")} options=${[["", "any"], ...core.concepts.map((name, i) => [i, called(name)])]} />`}
      <${Choice} label="what drives it" value=${f.kind} set=${set("kind")} options=${[["", "any"], ...Object.entries(KINDS)]} />
      <${Choice} label="firing" value=${f.life} set=${set("life")} options=${[["", "all"], ["alive", "fires at all"], ["dead", "dead"], ["dense", "dense"], ["sparse", "neither dead nor dense"]]} />
      <${Choice} label="name" value=${f.name} set=${set("name")} options=${[["", "any"], ["good", "good name"], ["holds", "better than chance"], ["word", "a word"], ["concept", "a concept"], ["none", "none"]]} />
      ${l.stable.some((s) => s !== null) && html`<${Choice} label="reappears with another seed" value=${f.stable} set=${set("stable")} options=${[["", "any"], ["yes", "yes"], ["no", "no"]]} />`}
      <${Choice} label="order" value=${f.order} set=${set("order")} options=${Object.entries(ORDERS).map(([k, [text]]) => [k, text])} />
    </form>
    <p class="count" role="status" id="count">${latents.length.toLocaleString("en")} of ${several(LATENTS, "latent")}${found ? `: ${found.byName.size} by name, ${found.byConcept.size} by a concept, ${found.byMeme.size} by a ${NOUN.one}` : ""}</p>
    ${found && html`<${Found} found=${found} search=${search} />`}
    <p class="buttons">
      <button type="button" disabled=${!alive.length} onClick=${() => (location.hash = link.latent(alive[Math.floor(Math.random() * alive.length)]))}>Random</button>
      <button type="button" disabled=${selected.size !== 2} title="Select two latents" onClick=${() => (location.hash = link.compare(...chosen))}>Compare two</button>
      <button type="button" onClick=${() => download(chosen, "csv")}>Download CSV</button>
      <button type="button" onClick=${() => download(chosen, "json")}>Download JSON</button>
      ${selected.size > 0 && html`<button type="button" onClick=${() => setSelected((kept.selected = new Set()))}>Clear selection</button>`}
      <span class="note">${selected.size ? `${selected.size} selected` : "downloads take all that match, or those that you select"}</span>
    </p>
    <${Rows} latents=${latents} selected=${selected} toggle=${toggle} />
  </div>`;
}
