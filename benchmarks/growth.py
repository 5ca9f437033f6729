"""How time and memory of the analyses grow: `python -m benchmarks.growth [--quick] [--json FILE]`.

Each cell runs in a process of its own on two cores. Draws `docs/growth.png` and puts the table into
`benchmarks/README.md` (with --quick neither).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator
from rich.console import Console
from rich.progress import track

from benchmarks.growth_cell import ANALYSES, CORES, Cell
from benchmarks.measure import megabytes, seconds, waited

ROOT = Path(__file__).parents[1]
MEMES, LATENTS = (2_000, 20_000, 200_000), (1_024, 4_096, 16_384)
LARGE = Cell(1_000_000, 65_536, d_in=None)
QUICK = [Cell(n, d_sae, k=8, d_in=32) for n in (300, 900) for d_sae in (64, 128)]
START, END = "<!-- growth -->", "<!-- end of growth -->"
CellRow = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four small cells; nothing is drawn or written")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--redraw", type=Path, help="rows that --json wrote: only draw them again")
    arguments = parser.parse_args()
    if arguments.redraw:
        draw(json.loads(arguments.redraw.read_text()), ROOT / "docs/growth.png")
        return
    cells = QUICK if arguments.quick else [*(Cell(n, d_sae) for n in MEMES for d_sae in LATENTS), LARGE]
    rows = [run(cell) for cell in track(cells, description="growth", transient=True)]
    Console().print(markdown_of(rows), markup=False, highlight=False, soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if not arguments.quick:
        draw(rows, ROOT / "docs/growth.png")
        replace_table(ROOT / "benchmarks/README.md", markdown_of(rows))


def run(cell: Cell) -> CellRow:
    """The cell, `seconds` of each analysis, and bytes: `memory` at the peak, `libraries` before any data was read."""
    with tempfile.TemporaryDirectory() as folder:
        module = [sys.executable, "-m", "benchmarks.growth_cell"]
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        subprocess.run([*module, "prepare", folder, json.dumps(asdict(cell))], env=environment, check=True)
        out = Path(folder) / "out.json"
        child = subprocess.Popen([*module, "measure", folder, str(out)], env=environment)
        _, memory = waited(child)
        if child.returncode:
            raise RuntimeError(f"{cell} ended with status {child.returncode}")
        return asdict(cell) | {"memory": memory} | json.loads(out.read_text())


def markdown_of(rows: list[CellRow]) -> str:
    names = ["memes", "latents", *ANALYSES, "peak memory", "of it libraries"]
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join(['---:'] * len(names))} |"]
    for row in rows:
        times = [seconds(row["seconds"][name]) if name in row["seconds"] else "-" for name in ANALYSES]
        cells = [f"{row['n']:,}", f"{row['d_sae']:,}", *times, megabytes(row["memory"]), megabytes(row["libraries"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replace_table(readme: Path, table: str, start: str = START, end: str = END) -> None:
    """Between the two comments that mark its place."""
    before, _, rest = readme.read_text().partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{readme} has no place for the table: {start} ... {end}")
    readme.write_text(f"{before}{start}\n{table}\n{end}{after}")


def draw(rows: list[CellRow], path: Path) -> None:
    """Seconds against memes and against latents, and memory against memes; all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grid = [row for row in rows if row["n"] in MEMES and row["d_sae"] in LATENTS]
    middle_n, middle_d = MEMES[len(MEMES) // 2], LATENTS[len(LATENTS) // 2]
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    by_memes, by_latents, memory = figure.subplots(1, 3)
    for name in ANALYSES:
        of_memes = [(r["n"], r["seconds"][name]) for r in grid if r["d_sae"] == middle_d]
        of_latents = [(r["d_sae"], r["seconds"][name]) for r in grid if r["n"] == middle_n]
        by_memes.plot(*zip(*of_memes, strict=True), "o-", label=name)
        by_latents.plot(*zip(*of_latents, strict=True), "o-")
    for d_sae in LATENTS:
        of_memes = [(r["n"], r["memory"] / 1e9) for r in grid if r["d_sae"] == d_sae]
        memory.plot(*zip(*of_memes, strict=True), "o-", label=f"{d_sae:,} latents")
    dense = 4e-9 * np.array(MEMES) * LATENTS[-1]
    memory.plot(MEMES, dense, "k:", label=f"a dense matrix of {LATENTS[-1]:,} latents alone")
    memory.axhline(grid[0]["libraries"] / 1e9, color="gray", lw=1, label="libraries, before any data")
    k = grid[0]["k"]
    _label(by_memes, f"time, {middle_d:,} latents, k {k}, {CORES} cores", ("memes", MEMES), "seconds")
    _label(by_latents, f"time, {middle_n:,} memes, k {k}, {CORES} cores", ("latents", LATENTS), "seconds")
    _label(memory, f"peak memory of the process, k {k}", ("memes", MEMES), "GB")
    by_memes.legend(frameon=False, fontsize=8)
    memory.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _label(axes: Any, title: str, x: tuple[str, tuple[int, ...]], y: str) -> None:
    """Ticks where there are points, and plain numbers in place of powers of ten."""
    name, places = x
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(xlabel=f"{name} (log scale)", ylabel=f"{y} (log scale)", xscale="log", yscale="log")
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
