// Charts as SVG in shares of the width, so that they fit any screen; the numbers stand beside them as text.

const SHAPES = [
  "M0,-6V6", "M-4,-4L4,4M-4,4L4,-4", "M0,-5L4,0L0,5L-4,0Z", "M-4,-4H4V4H-4Z", "M0,-5L5,4H-5Z", "M0,5L5,-4H-5Z",
  "M-5,0L4,-5V5Z", "M5,0L-4,-5V5Z", "M-5,0H5M0,-5V5", "M-4,0A4,4 0 1 0 4,0A4,4 0 1 0 -4,0Z",
];

function scaleOf(values, domain) {
  const known = values.filter((v) => typeof v === "number" && Number.isFinite(v));
  let [low, high] = domain || [Math.min(...known), Math.max(...known)];
  if (!known.length && !domain) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const pad = domain ? 0 : 0.04 * (high - low);
  [low, high] = [low - pad, high + pad];
  const at = (v) => `${2 + (96 * (Math.max(low, Math.min(high, v)) - low)) / (high - low)}%`;
  return { at, low, high };
}

function ticksOf({ low, high }) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  const wide = [1, 2, 5, 10].map((m) => m * step).find((s) => (high - low) / s <= 5);
  const ticks = [];
  for (let t = Math.ceil(low / wide) * wide; t <= high + 1e-9; t += wide) ticks.push(Math.abs(t) < wide / 1e6 ? 0 : t);
  return ticks;
}

const Shape = ({ index, x, y = 11 }) =>
  html`<svg x=${x} y=${y} overflow="visible"><path class=${`control c${index % 6}`} d=${SHAPES[index % SHAPES.length]} /></svg>`;

const Key = ({ index, name }) =>
  html`<li><svg width="14" height="14" aria-hidden="true"><${Shape} index=${index} x="7" y="7" /></svg> ${name}</li>`;

/**
 * A line a row: a value with its interval, a mark for each control, a band where a control has no sign.
 * rows: { label, value, low, high, controls: [[name, value]], band, text, href, poor }
 */
function Dots({ rows, axis, domain, reference, caption }) {
  const names = [...new Set(rows.flatMap((row) => (row.controls || []).map(([name]) => name)))];
  const all = rows.flatMap((row) => [
    row.value, row.low, row.high, ...(row.controls || []).map(([, v]) => v), ...(row.band ? [row.band, -row.band] : []),
  ]);
  const scale = scaleOf(reference === undefined ? all : [...all, reference], domain);
  return html`<figure class="dots">
    ${names.length > 0 && html`<ul class="key" aria-hidden="true">
      <li><svg width="22" height="14"><line class="interval" x1="0" x2="22" y1="7" y2="7" /><circle class="value" cx="11" cy="7" r="4.5" /></svg> value, 95 % interval</li>
      ${names.map((name, i) => html`<${Key} index=${i} name=${name} />`)}
    </ul>`}
    <table>
      <caption class=${caption ? "" : "unseen"}>${caption || axis}</caption>
      <colgroup><col class="label" /><col /><col class="figure" /></colgroup>
      <thead class="unseen"><tr><th scope="col">what</th><th scope="col">${axis}</th><th scope="col">value</th></tr></thead>
      <tbody>
        ${rows.map((row) => html`<tr class=${row.poor ? "faint" : row.strong ? "chief" : ""}>
          <th scope="row">${row.href ? html`<a href=${row.href}>${row.label}</a>` : row.label}</th>
          <td class="plot"><svg width="100%" height="22" aria-hidden="true">
            ${reference !== undefined && html`<line class="reference" x1=${scale.at(reference)} x2=${scale.at(reference)} y1="0" y2="22" />`}
            ${row.band ? html`<line class="band" x1=${scale.at(-row.band)} x2=${scale.at(row.band)} y1="11" y2="11" />` : null}
            ${typeof row.low === "number" && typeof row.high === "number" &&
              html`<line class="interval" x1=${scale.at(row.low)} x2=${scale.at(row.high)} y1="11" y2="11" />`}
            ${(row.controls || []).map(([name, v]) => typeof v === "number" && html`<${Shape} index=${names.indexOf(name)} x=${scale.at(v)} />`)}
            ${typeof row.value === "number" && html`<circle class="value" cx=${scale.at(row.value)} cy="11" r="4.5" />`}
          </svg></td>
          <td class="figure">${row.text ?? number(row.value) + interval(row.low, row.high)}
            <span class="unseen">${(row.controls || []).map(([name, v]) => `; ${name} ${number(v)}`).join("")}</span></td>
        </tr>`)}
        <tr class="axis" aria-hidden="true"><th></th><td class="plot"><svg width="100%" height="30">
          ${ticksOf(scale).map((t) => html`<line x1=${scale.at(t)} x2=${scale.at(t)} y1="0" y2="5" /><text x=${scale.at(t)} y="16">${+t.toPrecision(3)}</text>`)}
          <text class="name" x="50%" y="28">${axis}</text>
        </svg></td><td></td></tr>
      </tbody>
    </table>
  </figure>`;
}

/** Counts of activations in equal bins from 0 to the largest. */
function Histogram({ counts, largest, fires }) {
  if (!counts.length) return html`<p class="note">It never fires: there is nothing to draw.</p>`;
  const most = Math.max(...counts);
  const total = counts.reduce((a, b) => a + b, 0);
  const wide = 94 / counts.length;
  return html`<figure class="histogram">
    <svg width="100%" height="140" role="img" aria-label=${`Histogram of ${several(total, "activation")} above 0, up to ${number(largest)}; the fullest bin holds ${most}.`}>
      ${counts.map((n, i) => html`<rect class="bar" x=${`${5 + i * wide}%`} width=${`${wide * 0.88}%`} y=${110 - (100 * n) / most} height=${(100 * n) / most}><title>${`${number((i * largest) / counts.length)} to ${number(((i + 1) * largest) / counts.length)}: ${several(n, NOUN.one)}`}</title></rect>`)}
      <line class="rule" x1="5%" x2="99%" y1="110.5" y2="110.5" />
      <text x="5%" y="124">0</text><text class="end" x="99%" y="124">${number(largest)}</text>
      <text class="name" x="52%" y="136">activation</text><text class="start" x="0" y="10">${most.toLocaleString("en")}</text>
    </svg>
    <figcaption>${total.toLocaleString("en")} of ${several(core.n_memes, NOUN.one)} fire it (density ${percent(fires)}); on the others it is 0.</figcaption>
  </figure>`;
}

const Tag = ({ tone, children }) => html`<span class=${`tag ${tone || ""}`}>${children}</span>`;
