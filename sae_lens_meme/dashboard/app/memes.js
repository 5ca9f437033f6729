// A meme: blurred and masked until the reader asks, its words coloured and its regions overlaid.

const Uncovered = createContext({ page: false });
const GRID = 7;
/** How the grid lies on a picture: over all of it, in its centre, or around it. */
const FIT = { whole: "none", centre: "xMidYMid meet", padded: "xMidYMid slice" };

/** Whether an element has come near the window: pictures of memes far below are not read. */
function useSeen() {
  const ref = useRef(null);
  const [seen, set] = useState(false);
  useEffect(() => {
    if (!ref.current || seen) return undefined;
    const watch = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && set(true), { rootMargin: "400px" });
    watch.observe(ref.current);
    const printed = () => set(true); // what is printed is seen
    addEventListener("beforeprint", printed);
    return () => {
      watch.disconnect();
      removeEventListener("beforeprint", printed);
    };
  }, [seen]);
  return [ref, seen];
}

function Picture({ place, covered, overlay, children }) {
  const [ref, seen] = useSeen();
  const search = useSearch();
  const at = OF_TOKENS ? (search?.picture[place] ?? null) : place; // a picture has many tokens
  const source = useEntry("pictures", core.pictures && seen ? at : null);
  const waiting = core.pictures && source === undefined;
  return html`<div ref=${ref} class=${`picture ${covered ? "covered" : ""}`}>
    ${source ? html`<img src=${source} alt=${covered ? "Picture, blurred" : `Picture of this ${NOUN.one}`} />`
      : html`<p class="absent">${waiting ? "…" : core.pictures ? "This picture cannot be read." : "No pictures were given."}</p>`}
    ${source && overlay}${children}
  </div>`;
}

/** Regions that raise (orange) or lower (blue) the latent; `marked` are those that a word works with. */
function Regions({ scores, marked, label }) {
  return html`<svg class="regions" viewBox="0 0 7 7" preserveAspectRatio=${FIT[core.view]} role="img" aria-label=${label}>
    ${scores && scores.map((score, i) => html`<rect class=${score < 0 ? "lowers" : "raises"} x=${i % GRID} y=${Math.floor(i / GRID)} width="1" height="1" fill-opacity=${0.75 * Math.abs(score)} />`)}
    ${[...marked].map(([i, value]) => html`<rect class=${`marked ${value < 0 ? "lowers" : "raises"}`} x=${(i % GRID) + 0.06} y=${Math.floor(i / GRID) + 0.06} width="0.88" height="0.88" />`)}
  </svg>`;
}

/** What a row is where rows are tokens: its position, its kind, its word and where that is in the caption, its patch. */
function tokenAt(search, place) {
  if (!OF_TOKENS || !search) return null;
  const [position, modality, word, start, end, box] = search.token[place];
  return { position, modality, word, span: start === null ? null : [start, end], box };
}

/** A frame around the patch of a token. */
function Patch({ place }) {
  const box = tokenAt(useSearch(), place)?.box;
  if (!box) return null;
  const [top, left, bottom, right] = box;
  const frame = { x: left, y: top, width: right - left, height: bottom - top };
  return html`<svg class="regions" viewBox="0 0 1 1" preserveAspectRatio=${FIT[core.view]} role="img" aria-label="The patch of this token">
    <rect class="patch under" ...${frame} /><rect class="patch" ...${frame} /></svg>`;
}

/** What a token is, in a line: a word or a patch, and its position. */
function Where({ token, covered }) {
  if (!token) return null;
  const { modality, word, box, position } = token;
  const special = modality === "special" ? "special token" : "";
  const what = modality === "image" ? (box ? "framed patch" : "patch") : word === null ? special || "token"
    : html`${special || "word"} <strong class="token">${word.trim() === "" ? "(blank)" : covered ? mask(word) : word}</strong>`;
  return html`<p class="where">${what}, position ${position}</p>`;
}

const mask = (word) => "▒".repeat(Math.max(1, Math.min(12, word.length)));

function Caption({ text, words, scores, scale, covered, onWord, together, target, span }) {
  if (text === null || text === undefined) return core.missing.captions && OF_TOKENS ? null : html`<p class="caption note">This ${NOUN.shown} has no caption.</p>`;
  if (!words || !words.length) {
    const masked = (part) => part.split(/(\s+)/).map((word) => (word.trim() ? mask(word) : word && " ")).join("");
    const shown = covered ? masked : (part) => part;
    if (span) {
      const [before, word, after] = [text.slice(0, span[0]), text.slice(...span), text.slice(span[1])];
      return html`<p class="caption">${covered && html`<span class="unseen">Caption hidden.</span>`}<span aria-hidden=${covered}>${shown(before)}<mark class="word asked">${shown(word)}</mark>${shown(after)}</span></p>`;
    }
    return html`<p class="caption">${covered ? html`<span aria-hidden="true">${text.split(/\s+/).map(mask).join(" ")}</span><span class="unseen">Caption hidden.</span>` : text}</p>`;
  }
  return html`<p class="caption">
    ${covered && html`<span class="unseen">Caption hidden, ${several(words.length, "word")}.</span>`}
    ${words.map((word, i) => {
      const score = scores[i] || 0;
      const pairs = together.filter(([w]) => w === i).length;
      const says = `${covered ? "a hidden word" : word}: ${score < 0 ? "lowers" : "raises"} the latent by ${number(Math.abs(score) * scale)}${pairs ? `, works with ${several(pairs, "region")}` : ""}`;
      return html`<span class=${`word ${score < 0 ? "lowers" : "raises"} s${Math.round(Math.abs(score) * 5)} ${pairs ? "pairs" : ""} ${i === target ? "asked" : ""}`}
        tabindex=${pairs ? 0 : undefined} role=${pairs ? "note" : undefined} aria-label=${pairs ? says : undefined} title=${says}
        onMouseEnter=${() => onWord(i)} onMouseLeave=${() => onWord(null)} onFocus=${() => onWord(i)} onBlur=${() => onWord(null)}>${covered ? mask(word) : word}</span> `;
    })}
  </p>`;
}

/** The activation of the caption alone, the picture alone, and the meme. */
function Parts({ memes, i }) {
  const names = { caption_local: "caption alone", image_local: "picture alone", meme_global: "both" };
  const values = Object.keys(names).map((key) => memes[key]?.[i]);
  if (values.every((v) => v === null || v === undefined)) return null;
  const most = Math.max(...values.map((v) => v || 0), 1e-9);
  return html`<dl class="parts">${Object.entries(names).map(([key, name], k) => html`<div><dt>${name}</dt>
    <dd><svg width="100%" height="8" aria-hidden="true"><rect class="bar" width=${`${(100 * Math.max(0, values[k] || 0)) / most}%`} height="8" /></svg><span>${number(values[k])}</span></dd></div>`)}</dl>`;
}

const placeOf = (patch) => `row ${Math.floor(patch / GRID) + 1}, column ${(patch % GRID) + 1}`;

/** Of one meme of a latent: words and regions on one scale, so that what decides little looks like little. */
function scoresOf(memes, i) {
  const most = Math.max(memes.word_scale?.[i] || 0, memes.patch_scale?.[i] || 0) || 1;
  const scaled = (packed, scale) => unpack(packed).map((v) => (v * scale) / most);
  return {
    most,
    words: memes.word_scores ? scaled(memes.word_scores[i], memes.word_scale[i]) : [],
    patches: memes.patches?.[i] ? scaled(memes.patches[i], memes.patch_scale[i]) : null,
  };
}

const LITTLE = 0.2; // of the largest score of a meme: less drives nothing

/** The place of the largest score, or null where it is little. */
function largest(scores) {
  const best = (scores || []).reduce((a, v, k) => (v > (a < 0 ? LITTLE : scores[a]) ? k : a), -1);
  return best < 0 ? null : best;
}

const MOST_DRIVERS = 3;

/** Over the memes of a latent, which word and which region is the strongest how often; `at` is the meme where it is most so. */
function driversOf(memes) {
  const found = { word: new Map(), region: new Map() };
  const count = (kind, key, item) => {
    const old = found[kind].get(key);
    found[kind].set(key, { ...(old && old.score >= item.score ? old : item), n: (old?.n || 0) + 1 });
  };
  memes.at.forEach((_, i) => {
    const { most, words, patches } = scoresOf(memes, i);
    const [word, patch] = [largest(words), largest(patches)];
    if (word !== null) count("word", memes.words[i][word].toLowerCase(), { at: i, word, text: memes.words[i][word], score: words[word] * most });
    if (patch !== null) count("region", patch, { at: i, patch, text: placeOf(patch), score: patches[patch] * most });
  });
  return Object.entries(found).map(([kind, items]) => {
    const ranked = [...items.values()].sort((a, b) => b.n - a.n || b.score - a.score);
    return [kind, ranked.filter(({ n }, k) => k === 0 || n > 1).slice(0, MOST_DRIVERS)];
  });
}

/** The words and the regions that drive the latent most, each a link to where it is. */
function Drivers({ memes, go }) {
  const covered = !useContext(Uncovered).page;
  const drivers = useMemo(() => driversOf(memes), [memes]);
  return html`${drivers.map(([kind, items]) => items.length > 0 && html`<p class="buttons drivers">Strongest ${kind}s:
    ${items.map((item) => html`<button type="button" class="jump" onClick=${() => go(item)}>${kind === "word" && covered ? html`<span aria-hidden="true">${mask(item.text)}</span><span class="unseen">a hidden word</span>` : item.text}</button>
      <span class="note">in ${item.n} of ${several(memes.at.length, NOUN.one)}</span>`)}</p>`)}`;
}

/** One meme of a latent; `target` is the word or region that the reader has asked to see on it. */
function Card({ memes, i, overlays, target }) {
  const page = useContext(Uncovered).page;
  const [own, setOwn] = useState(null);
  const [overlay, setOverlay] = useState(null);
  const [word, setWord] = useState(null);
  useEffect(() => setOwn(null), [page]);
  useEffect(() => setOverlay(null), [overlays]);
  const search = useSearch();
  const place = memes.at[i];
  const covered = !(own ?? page);
  const card = useRef(null);
  useEffect(() => {
    if (target) card.current.scrollIntoView({ block: "center" });
  }, [target]);
  const { most, words, patches } = scoresOf(memes, i);
  const together = memes.together?.[i] || [];
  const on = overlay ?? overlays;
  const asked = target?.patch === undefined ? [] : [[target.patch, 1]];
  const marked = word === null ? asked : together.filter(([w]) => w === word).map(([, p, value]) => [p, value]);
  const id = search?.id[place];
  const token = tokenAt(search, place);
  const frame = token?.box && html`<${Patch} place=${place} />`;
  return html`<li ref=${card} class=${`card ${target ? "target" : ""}`}>
    <${Picture} place=${place} covered=${covered} overlay=${(on || marked.length > 0) ?
      html`<${Regions} scores=${on ? patches : null} marked=${marked} label="Regions that raise (orange) or lower (blue) the latent" />` : frame} />
    <${Caption} text=${search?.caption[place]} words=${memes.words?.[i]} scores=${words}
      scale=${most} covered=${covered} onWord=${setWord} together=${together} target=${target?.word} span=${token?.span} />
    <${Where} token=${token} covered=${covered} />
    <p class="activation"><strong>${number(memes.activation[i])}</strong> <span class="dim">activation</span></p>
    <${Parts} memes=${memes} i=${i} />
    <p class="buttons">
      <button type="button" aria-pressed=${!covered} onClick=${() => setOwn(covered)}>${covered ? "Show" : "Hide"}</button>
      ${patches && html`<button type="button" aria-pressed=${Boolean(on)} onClick=${() => setOverlay(!on)}>Regions</button>`}
      ${id !== undefined && html`<a href=${link.meme(id)}>This ${NOUN.one}</a>`}
    </p>
  </li>`;
}

const FIRST_TOP = OF_TOKENS ? 9 : 4;
const FIRST_BELOW = 1;

/** Top memes, then those of each interval, the highest first; at first a few of each, because the strongest alone mislead. */
function Gallery({ memes }) {
  const [overlays, setOverlays] = useState(false);
  const [all, setAll] = useState(false);
  const [target, setTarget] = useState(null);
  const groups = useMemo(() => {
    const found = new Map();
    memes.at.forEach((_, i) => {
      const key = memes.kind[i] === "top" ? "top" : memes.interval[i];
      found.set(key, [...(found.get(key) || []), i]);
    });
    return [...found];
  }, [memes]);
  if (!memes.at.length) return html`<p class="note">No ${NOUN.one} fires this latent.</p>`;
  const go = (item) => {
    setAll(true);
    setTarget({ ...item });
  };
  const few = groups.flatMap(([key, places]) => places.slice(0, key === "top" ? FIRST_TOP : FIRST_BELOW));
  const title = (key, i) => key === "top" ? `The ${NOUN.all_shown} that fire it most`
    : `Activation ${number(memes.interval_low[i])} to ${number(memes.interval_high[i])}: ${percent(memes.interval_share[i])} of the ${NOUN.many} that fire it`;
  const card = (i) => html`<${Card} key=${memes.at[i]} memes=${memes} i=${i} overlays=${overlays} target=${target?.at === i ? target : null} />`;
  return html`
    ${memes.patches ? html`<${Drivers} memes=${memes} go=${go} />
      <p class="buttons"><button type="button" aria-pressed=${overlays} onClick=${() => setOverlays(!overlays)}>Regions on all ${NOUN.all_shown}</button>
      <span class="note">Orange raises the latent, blue lowers it, words and regions of a ${NOUN.one} on one scale. Point at an underlined word, or go to it with Tab, to see the regions that it works with.</span></p>`
      : html`<p class="note">${OF_TOKENS ? core.told : core.missing.attribution || "Words and regions of this latent's memes were not measured."}</p>`}
    ${all || few.length === memes.at.length
      ? groups.map(([key, places]) => html`<section key=${key}><h3>${title(key, places[0])}</h3><ul class="cards">${places.map(card)}</ul></section>`)
      : html`<h3>The ${Math.min(FIRST_TOP, groups[0][1].length)} ${OF_TOKENS ? "pictures that fire it most" : "strongest"}${OF_TOKENS && groups.length === 1 ? "" : ", then one from each part of its range, down to the weakest"}</h3><ul class="cards">${few.map(card)}</ul>`}
    ${few.length < memes.at.length && html`<p><button type="button" class="all" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${several(memes.at.length, NOUN.shown)} of this latent`}</button></p>`}
    <p class="note">The strongest alone mislead: check whether the lower parts of the range show the same thing.</p>`;
}

/** A small meme in a list of memes. */
function Thumb({ place, children }) {
  const page = useContext(Uncovered).page;
  const search = useSearch();
  const id = search?.id[place];
  return html`<li class="card small"><a href=${id === undefined ? undefined : link.meme(id)}>
    <${Picture} place=${place} covered=${!page} overlay=${html`<${Patch} place=${place} />`} /><span class="id">${id ?? "…"}</span></a>
    <p class="note">${children}</p></li>`;
}

/** The button that uncovers what is on this page, and all below it. */
function Coverable({ children, what }) {
  const [page, setPage] = useState(false);
  return html`<${Uncovered.Provider} value=${{ page }}>
    <p class="uncover"><button type="button" class="strong" aria-pressed=${page} onClick=${() => setPage(!page)}>${page ? "Blur and mask again" : `Show pictures and captions of ${what}`}</button></p>
    ${children}
  <//>`;
}
