// The list of latents: search, filters, an order, a selection. Only the rows in the window exist.

const ROW = 56;
const EXTRA = 6;
const NO_FILTER = { text: "", concept: "", kind: "", life: "alive", name: "", stable: "", order: "name" };
const kept = { ...NO_FILTER, selected: new Set(), top: 0 }; // stays while the reader looks at a latent

const KINDS = { visual: "picture", textual: "caption", "cross-modal": "both together", undecided: "undecided" };
const ORDERS = {
  name: ["best name first", (a) => -(core.latents.holds[a] ? core.latents.auroc[a] ?? 0 : -1)],
  number: ["number", (a) => a],
  often: ["fires most often", (a) => -core.latents.fires[a]],
  seldom: ["fires least often", (a) => core.latents.fires[a]],
  strong: ["largest activation", (a) => -(core.latents.largest[a] ?? 0)],
};

/** Latents whose name, number or one of whose memes' captions holds the text, and the memes that do. */
function matching(text, search) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const memes = new Set();
  search?.lower.forEach((caption, place) => caption.includes(wanted) && memes.add(place));
  search?.id.forEach((id, place) => id.toLowerCase().includes(wanted) && memes.add(place));
  const byName = new Set();
  const byMeme = new Set();
  for (let latent = 0; latent < LATENTS; latent++) {
    if (String(latent) === wanted || (core.latents.name[latent] || "").toLowerCase().includes(wanted)) byName.add(latent);
    else if (memes.size && search.of[latent].some((place) => memes.has(place))) byMeme.add(latent);
  }
  return { byName, byMeme, memes: [...memes] };
}

function filtered(f, found) {
  const l = core.latents;
  const latents = [];
  for (let i = 0; i < LATENTS; i++) {
    if (found && !found.byName.has(i) && !found.byMeme.has(i)) continue;
    if (f.life === "alive" && isDead(i)) continue;
    if (f.life === "dead" && !isDead(i)) continue;
    if (f.life === "dense" && !isDense(i)) continue;
    if (f.life === "sparse" && (isDead(i) || isDense(i))) continue;
    if (f.kind && l.decided_by[i] !== f.kind) continue;
    if (f.concept !== "" && !l.concepts[i].includes(Number(f.concept))) continue;
    if (f.name === "holds" && !l.holds[i]) continue;
    if (f.name === "word" && l.name_kind[i] !== "word") continue;
    if (f.name === "concept" && l.name_kind[i] !== "concept") continue;
    if (f.name === "none" && l.name[i] !== null) continue;
    if (f.stable === "yes" && !l.stable[i]) continue;
    if (f.stable === "no" && l.stable[i] !== false) continue;
    latents.push(i);
  }
  const keys = latents.map((i) => [found?.byName.has(i) ? 0 : 1, ORDERS[f.order][1](i), i]);
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
  if (l.name[latent] !== null) words.push(l.holds[latent] ? `name holds, AUROC ${number(l.auroc[latent])}` : "name does not hold");
  if (l.decided_by[latent]) words.push(KINDS[l.decided_by[latent]] ?? l.decided_by[latent]);
  if (l.stable[latent] !== null) words.push(l.stable[latent] ? "comes again" : "one seed only");
  return words.join(" · ");
}

function download(latents, as) {
  const columns = ["latent", "name", "name_kind", "holds", "auroc", "fires", "largest", "decided_by", "stable", "concepts"];
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
        <a href=${link.latent(latent)} data-place=${first + k}><span class="number">${latent}</span> <span class=${core.latents.name[latent] === null ? "dim" : core.latents.holds[latent] ? "named" : "doubtful"}>${titleOf(latent)}</span>
          <span class="summary">${summaryOf(latent)}</span></a>
      </li>`)}
    </ul>
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
      <div class="choice wide"><label for="search">Search names, captions and ids of memes</label>
        <input id="search" type="search" autocomplete="off" value=${f.text} onInput=${(e) => change({ text: e.target.value })} /></div>
      ${core.concepts.length > 0 && html`<${Choice} label="tied to the concept" value=${f.concept} set=${set("concept")} options=${[["", "any"], ...core.concepts.map((name, i) => [i, name])]} />`}
      <${Choice} label="what drives it" value=${f.kind} set=${set("kind")} options=${[["", "any"], ...Object.entries(KINDS)]} />
      <${Choice} label="firing" value=${f.life} set=${set("life")} options=${[["", "all"], ["alive", "fires at all"], ["dead", "dead"], ["dense", "dense"], ["sparse", "neither dead nor dense"]]} />
      <${Choice} label="name" value=${f.name} set=${set("name")} options=${[["", "any"], ["holds", "holds"], ["word", "a word"], ["concept", "a concept"], ["none", "none"]]} />
      ${l.stable.some((s) => s !== null) && html`<${Choice} label="comes again with another seed" value=${f.stable} set=${set("stable")} options=${[["", "any"], ["yes", "yes"], ["no", "no"]]} />`}
      <${Choice} label="order" value=${f.order} set=${set("order")} options=${Object.entries(ORDERS).map(([k, [text]]) => [k, text])} />
    </form>
    <p class="count" role="status" id="count">${latents.length.toLocaleString("en")} of ${LATENTS.toLocaleString("en")} latents${found ? `: ${found.byName.size} by name, ${found.byMeme.size} by a meme` : ""}</p>
    <p class="buttons">
      <button type="button" disabled=${!alive.length} onClick=${() => (location.hash = link.latent(alive[Math.floor(Math.random() * alive.length)]))}>Random</button>
      <button type="button" disabled=${selected.size !== 2} title="Select two latents" onClick=${() => (location.hash = link.compare(...chosen))}>Compare two</button>
      <button type="button" onClick=${() => download(chosen, "csv")}>Download CSV</button>
      <button type="button" onClick=${() => download(chosen, "json")}>Download JSON</button>
      ${selected.size > 0 && html`<button type="button" onClick=${() => setSelected((kept.selected = new Set()))}>Clear selection</button>`}
      <span class="note">${selected.size ? `${selected.size} selected` : "downloads take all that match, or those that you select"}</span>
    </p>
    <${Rows} latents=${latents} selected=${selected} toggle=${toggle} />
    ${found && found.memes.length > 0 && html`<details class="found"><summary>${found.memes.length.toLocaleString("en")} memes match</summary>
      <ul class="plain">${found.memes.slice(0, 60).map((place) => html`<li><a href=${link.meme(search.id[place])}>${search.id[place]}</a></li>`)}</ul>
      ${found.memes.length > 60 && html`<p class="note">The first 60 are shown; a longer text finds fewer.</p>`}</details>`}
  </div>`;
}
