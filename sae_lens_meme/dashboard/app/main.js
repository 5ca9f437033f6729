// Which page is shown. The run and its tables are plain HTML that is there before this script.

const STATIC = { run: document.getElementById("run"), measures: document.getElementById("measures") };
const view = document.getElementById("view");

/** A chart before the table of each section that has an axis; the first of them is the headline. */
function drawCharts() {
  const line = (row) => ({ label: row.measure, value: row.value, low: row.low, high: row.high, controls: row.controls });
  const [headline] = core.charts;
  if (headline) {
    render(html`<h2>${headline.title}</h2><${Dots} rows=${headline.rows.map(line)} axis=${headline.axis} /><p><a href="#measures">All tables</a></p>`, document.getElementById("headline"));
  }
  for (const chart of core.charts) {
    const block = document.getElementById(`measures=${chart.block}`);
    const figure = document.createElement("div");
    block.querySelector("h2").after(figure);
    render(html`<${Dots} rows=${chart.rows.map(line)} axis=${chart.axis} />`, figure);
  }
}

function Page() {
  const route = useRoute();
  const fixed = route.kind in STATIC || !PAGES[route.kind];
  const first = useRef(true);
  useEffect(() => {
    const shown = fixed ? (STATIC[route.kind] ? route.kind : "run") : null;
    for (const [kind, element] of Object.entries(STATIC)) element.hidden = kind !== shown;
    view.hidden = fixed;
    const section = route.kind === "concept" ? "concepts" : ["latent", "compare"].includes(route.kind) ? "latents" : route.kind;
    document.querySelectorAll("nav a").forEach((a) => {
      a.hash === `#${shown || section}` ? a.setAttribute("aria-current", "page") : a.removeAttribute("aria-current");
    });
    document.title = `${route.value ? `${route.kind} ${route.value}` : shown || route.kind} · sae-lens-meme`;
    const anchor = fixed && document.getElementById(route.value ? `${route.kind}=${route.value}` : route.kind);
    if (!first.current) {
      scrollTo(0, 0);
      (fixed ? STATIC[shown] : view).focus({ preventScroll: true });
    }
    if (anchor && (route.value || !(route.kind in STATIC))) anchor.scrollIntoView();
    first.current = false;
  }, [route.kind, route.value]);
  if (fixed) return null;
  return html`<div class="page"><${PAGES[route.kind]} key=${route.value} value=${route.value} /></div>`;
}

const PAGES = { latents: LatentList, latent: LatentPage, compare: Compare, [NOUN.one]: MemePage, concept: ConceptPage, concepts: Concepts, map: MapPage };

for (const element of Object.values(STATIC)) element.tabIndex = -1;
document.documentElement.classList.add("scripted");
render(html`<${Page} />`, view);
drawCharts();
