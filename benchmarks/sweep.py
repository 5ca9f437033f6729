"""Which normalisation, width and k generalise at which N: `python -m benchmarks.sweep [--quick] [--json FILE]`.

Trains with the package on arrays of the shape that fused CLIP vectors have (three dimensions with 64 % of the variance
on memes, 27 % on photographs, 7 % on products) and prints what is explained of 1,000 held-out rows. What is recovered of
a known truth, `benchmarks.recovery` says.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads make small steps 20 x slower

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.reconstruction import Reconstruction
from sae_lens_meme.train import train
from tests.arrays import anisotropic, make_embeddings

D_IN, N_FACTORS, N_HELD_OUT = 512, 256, 1_000
Grid = dict[str, tuple[Any, ...]]
BOTH = {"standardize": (True, False)}
SIZES: Grid = {"outliers": (0.642,), "n": (1_000, 4_000, 16_000), **BOTH, "d_sae": (512, 2_048), "k": (16, 64)}
SHARES: Grid = {"outliers": (0.642, 0.27, 0.07), "n": (4_000,), **BOTH, "d_sae": (512,), "k": (16, 64)}
QUICK: Grid = {"outliers": (0.64,), "n": (300,), **BOTH, "d_sae": (64,), "k": (8,)}
EV = "explained_variance"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small runs")
    parser.add_argument("--only-shares", action="store_true", help="the runs that differ in the outliers' share alone")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    grids = [QUICK] if arguments.quick else [SHARES] if arguments.only_shares else [SIZES, SHARES]
    rows = [row for grid in grids for row in sweep(grid, samples=1_500 if arguments.quick else 200_000)]
    Console().print(table_of(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def sweep(grid: Grid, samples: int) -> list[dict[str, Any]]:
    """One row a combination, trained for 50 epochs (InterVLM's) or on so many samples, whichever is less.

    Training rows of a smaller n are the first of those of a larger one; the held-out rows are the same.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [
        _run(min(50, samples // c["n"]), max(grid["n"]), **c)
        for c in track(combinations, description="sweep", transient=True)
    ]


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table(*rows[0], title=f"held-out explained variance, {D_IN} dimensions", show_lines=False)
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    return table


def _run(epochs: int, most: int, outliers: float, n: int, standardize: bool, d_sae: int, k: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = anisotropic(N_HELD_OUT + most, D_IN, rng, n_factors=N_FACTORS, outlier_share=outliers)
    embeddings = _embeddings(x, n)
    section = {
        "epochs": epochs,
        "standardize": standardize,
        "train_batch_size_tokens": min(256, n),
        "sae": {"d_sae": d_sae, "k": k},
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        sae = train(section, out=folder, embeddings=embeddings, progress=False)
        numbers = Reconstruction(embeddings).evaluate(sae).numbers
    held_out = {key: numbers[f"held_out/{EV}{suffix}"] for key, suffix in SUFFIXES.items()}
    return {
        **{"outliers": outliers, "n": n, "epochs": epochs, "standardize": standardize, "d_sae": d_sae, "k": k},
        **held_out,
        "train_zscored": numbers[f"train/{EV}_zscored"],
        "ever_fire": d_sae - int(numbers["train/dead_latents"] or 0),
        "seconds": round(time.perf_counter() - start, 1),
    }


SUFFIXES = {"zscored": "_zscored", "raw": "", "without_outliers": "_without_outliers"}


def _embeddings(x: np.ndarray, n: int) -> Embeddings:
    rows = np.concatenate([x[:N_HELD_OUT], x[N_HELD_OUT : N_HELD_OUT + n]])
    return make_embeddings({"hook_fused": rows}, splits=["test"] * N_HELD_OUT + ["train"] * n)


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
