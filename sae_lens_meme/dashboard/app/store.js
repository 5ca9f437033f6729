// Data, and where the reader is. The data comes in parts: inside the page as JSON, or beside it as scripts.

const { h, render, Fragment, createContext } = preact;
const { useState, useEffect, useMemo, useRef, useContext } = preactHooks;
const html = htm.bind(h);

const core = JSON.parse(document.getElementById("core").textContent);
const LATENTS = core.latents.name.length;
/** What a row is called (a meme, or a token), and what is shown of it (the meme, or the picture that the token is of). */
const NOUN = core.rows;
const OF_TOKENS = NOUN.one === "token";
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const shownAs = new Map(core.called);
/** How a key of the data (`stance=1`) is shown (`stance=support`). */
const called = (key) => shownAs.get(key) ?? key;

// ---- parts -------------------------------------------------------------------------------------

const ready = new Map(); // name -> value
const waiting = new Map(); // name -> { promise, resolve }

function part(name) {
  if (ready.has(name)) return Promise.resolve(ready.get(name));
  if (!waiting.has(name)) {
    let resolve;
    const promise = new Promise((done) => (resolve = done));
    waiting.set(name, { promise, resolve });
    core.beside ? loadBeside(name) : readInside(name);
  }
  return waiting.get(name).promise;
}

function arrived(name, value) {
  ready.set(name, value);
  waiting.get(name)?.resolve(value);
}

function readInside(name) {
  const element = document.getElementById(`part-${name}`);
  // A part that the browser is still reading has no successor yet.
  if (element && (element.nextSibling || document.readyState !== "loading")) {
    arrived(name, JSON.parse(element.textContent));
  } else if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => readInside(name), { once: true });
  } else {
    arrived(name, null);
  }
}

function loadBeside(name) {
  const script = document.createElement("script");
  script.src = `${core.beside}/${name}.js`;
  script.onerror = () => arrived(name, null);
  script.onload = () => script.remove();
  document.head.append(script);
}

window.saeLensMemePart = (name, text) => arrived(name, JSON.parse(text));

/** The value of a part, undefined until it is there, null if it cannot be read. */
function usePart(name) {
  const [, redraw] = useState(0);
  const value = name === null ? undefined : ready.get(name);
  useEffect(() => {
    let here = true;
    // Also where another component has read it since this one was drawn.
    if (name !== null && value === undefined) part(name).then(() => here && redraw((n) => n + 1));
    return () => (here = false);
  }, [name]);
  return value;
}

/** An entry of a part that holds so many; undefined until it is there, null if the part cannot be read. */
function useEntry(kind, place) {
  const size = core.sizes[kind];
  const found = usePart(place === null ? null : `${kind}-${Math.floor(place / size)}`);
  return found ? found[place % size] : found;
}

/** Ids, captions and labels, in lower case too; undefined until they are there. */
let searched;
function useSearch() {
  const found = usePart("search");
  if (found && !searched) {
    searched = {
      ...found,
      lower: found.caption.map((text) => (text || "").toLowerCase()),
      lowerLevel: found.level.map((names) => names.join("\n").toLowerCase()),
    };
  }
  return found === null ? null : searched;
}

// ---- where the reader is -----------------------------------------------------------------------

function readRoute() {
  const [, kind, value] = /^#?([a-z]*)(?:=(.*))?$/s.exec(location.hash) || ["", "", ""];
  let text = value || "";
  try {
    text = decodeURIComponent(text);
  } catch {
    // a link that somebody cut: take it as it stands
  }
  return { kind: kind || "run", value: text };
}

function useRoute() {
  const [route, set] = useState(readRoute);
  useEffect(() => {
    const changed = () => set(readRoute());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

const link = {
  latent: (latent) => `#latent=${latent}`,
  meme: (id) => `#${NOUN.one}=${encodeURIComponent(id)}`,
  concept: (name) => `#concept=${encodeURIComponent(name)}`,
  compare: (a, b) => `#compare=${a},${b}`,
};

// ---- words for numbers -------------------------------------------------------------------------

function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  if (size >= 0.001) return value.toFixed(3);
  return size === 0 ? "0" : value.toExponential(0);
}
const chance = (q) => (q === 0 ? "< 1e-300" : number(q));
const signedNumber = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + number(value === null ? null : Math.abs(value));
const percent = (share) => (share >= 0.1 ? `${(100 * share).toFixed(0)} %` : `${(100 * share).toPrecision(2)} %`);
const interval = (low, high, show = number) =>
  low === null || low === undefined || high === null ? "" : ` (${show(low)} to ${show(high)})`;

const isDead = (latent) => core.latents.fires[latent] === 0;
const isDense = (latent) => core.latents.fires[latent] > core.dense;
const nameOf = (latent) => called(core.latents.name[latent]);
const titleOf = (latent) => nameOf(latent) ?? "no name";
const isGood = (latent) => core.tones[core.latents.verdict[latent]] === "good";
const several = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

/** Signed bytes in base64 as numbers from -1 to 1. */
const unpack = (text) => Array.from(atob(text), (c) => ((c.charCodeAt(0) << 24) >> 24) / 127);

function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name;
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
