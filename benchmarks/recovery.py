"""What recovers planted factors: `python -m benchmarks.recovery [--quick] [--cells FOLDER]`.

Seven architectures over width, k, N, penalties and outlier shares, one thing changed at a time, on planted vectors of
five seeds, beside the true dictionary and controls. Each cell is kept on disk, so that a run that was stopped goes on.
Writes `benchmarks/recovery.csv`, `docs/recovery.png` and the tables in `benchmarks/README.md` (with --quick none).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads make small steps 20 x slower

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from benchmarks.growth import replace_table
from benchmarks.recovery_cell import SAMPLES, Cell, World, control_scores, scores
from benchmarks.recovery_report import draw, tables
from sae_lens_meme.storage import atomic_file, to_json

ROOT = Path(__file__).parents[1]
CELLS, TABLE, PLOT = ROOT / "runs" / "recovery", ROOT / "benchmarks" / "recovery.csv", ROOT / "docs" / "recovery.png"
SEEDS = range(5)
ARCHITECTURES = (
    *("meme_topk", "topk", "batchtopk", "matryoshka_batchtopk", "standard", "jumprelu", "matching_pursuit"),
    *("oracle", "oracle_matching_pursuit", "shuffled"),
)
CONTROLS = "controls"
OUTLIER_SHARES = (0.64, 0.27, 0.07)
SCALINGS: dict[str, dict[str, Any]] = {
    "raw": {"standardize": False},
    "rescaled": {"standardize": False, "rescale": True},
    "zscored": {},
}


@dataclass(frozen=True)
class Setting:
    """One thing that differs from the centre: meme_topk, 128 latents, k 4, 4,000 training vectors, .64 in outliers."""

    axis: str
    level: str
    cell: Cell = field(default_factory=Cell)
    world: dict[str, Any] = field(default_factory=dict)

    def path(self, folder: Path, seed: int) -> Path:
        return folder / f"seed-{seed}" / f"{self.axis}-{self.level}.json"


def settings() -> list[Setting]:
    """The centre is `architecture-meme_topk`."""
    return [
        *(Setting("architecture", name, Cell(name)) for name in ARCHITECTURES),
        *(Setting("latents", str(width), Cell(d_sae=width)) for width in (32, 64, 256, 512)),
        *(Setting("k", str(k), Cell(k=k)) for k in (1, 2, 8, 16)),
        *(Setting("l1", str(penalty), Cell("standard", penalty=penalty)) for penalty in (0.5, 2.0, 4.0)),
        *(Setting("l0", str(penalty), Cell("jumprelu", penalty=penalty)) for penalty in (0.3, 1.0, 20.0)),
        *(
            Setting("outliers", f"{how}-{share}", Cell(**options), {"outlier_share": share})
            for share in OUTLIER_SHARES
            for how, options in SCALINGS.items()
            if (how, share) != ("zscored", World.outlier_share)
        ),
        Setting("training", "lr 0.001", Cell(lr=1.0e-3)),
        Setting("training", "30,000 samples", Cell(samples=30_000)),
        Setting("N", "1000", Cell(), {"n_train": 1_000}),
        Setting("N", "16000", Cell(), {"n_train": 16_000}),
        Setting("N", "16000, 4 x samples", Cell(samples=4 * SAMPLES), {"n_train": 16_000}),
        Setting("N", "16000, 256 latents", Cell(d_sae=256), {"n_train": 16_000}),
        *(
            Setting("256 latents, k 8", name, Cell(name, d_sae=256, k=8))
            for name in ("meme_topk", "batchtopk", "matching_pursuit")
        ),
        *(Setting("batchtopk", f"{width} latents", Cell("batchtopk", d_sae=width)) for width in (64, 256)),
        *(Setting("batchtopk", f"k {k}", Cell("batchtopk", k=k)) for k in (2, 8)),
        *(Setting("matching_pursuit", f"k {k}", Cell("matching_pursuit", k=k)) for k in (2, 8)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four small cells; nothing but --cells is written")
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of finished cells")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="in this order; another process may have others"
    )
    parser.add_argument("--only-report", action="store_true", help="of the cells that are there")
    arguments = parser.parse_args()
    if arguments.quick:
        run(arguments.cells, range(1), QUICK, QUICK_WORLD)
        return
    if not arguments.only_report:
        run(arguments.cells, arguments.seeds, settings(), World())
    report(arguments.cells)


QUICK_WORLD = World(n_train=300, most=300, n_factors=24, d_in=16, active=2)
QUICK = [
    Setting("architecture", name, Cell(name, d_sae=24, k=2, samples=2_000))
    for name in ("meme_topk", "matching_pursuit", "oracle", "shuffled")
]


def run(folder: Path, seeds: Iterable[int], grid: list[Setting], world: World) -> None:
    """Seed by seed, so that what is finished early is finished for every setting of a seed. What is there stays."""
    todo = [(replace(world, seed=seed), setting) for seed in seeds for setting in [*grid, None]]
    for here, setting in track(todo, description="recovery", transient=True):
        path = setting.path(folder, here.seed) if setting else folder / f"seed-{here.seed}" / f"{CONTROLS}.json"
        if not path.is_file():
            row = scores(replace(here, **setting.world), setting.cell) if setting else dict(control_scores(here))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as temporary:
                temporary.write_text(to_json(row), encoding="utf-8")


def report(folder: Path) -> None:
    rows = pd.DataFrame(finished(folder))
    rows.round(4).to_csv(TABLE, index=False)
    for name, table in tables(rows).items():
        replace_table(ROOT / "benchmarks" / "README.md", table, f"<!-- {name} -->", f"<!-- end of {name} -->")
        Console().print(table, markup=False, highlight=False, soft_wrap=True)
    draw(rows, PLOT)


def finished(folder: Path) -> Iterator[dict[str, Any]]:
    """A row a dictionary, in the order of the grid."""
    for seed in SEEDS:
        for setting in settings():
            if (path := setting.path(folder, seed)).is_file():
                yield {"axis": setting.axis, "level": setting.level, "seed": seed, **json.loads(path.read_text())}
        if (path := folder / f"seed-{seed}" / f"{CONTROLS}.json").is_file():
            for name, row in json.loads(path.read_text()).items():
                yield {"axis": CONTROLS, "level": name, "seed": seed, **row}


if __name__ == "__main__":
    main()
