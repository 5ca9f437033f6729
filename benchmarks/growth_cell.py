"""One cell of the growth table, in a process of its own: `prepare` writes its data, `measure` times the analyses on them."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Array2D, Dataset, Features, Value
from scipy import sparse

from benchmarks.data import make_many_latents
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.classifiers import Probe
from sae_lens_meme.evaluators.influence import effects_of, latent_route
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity import Panel, PanelUnits, score
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.fisher import stratified_greater
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg, benjamini_hochberg_by_concept
from sae_lens_meme.metrics.ranking import Ranked, auroc, best_f1
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import StepFolder

CORES, CONCEPTS, SOURCES, MULTIPLIERS = 2, 13, 3, (0.0, 5.0)
SHARD = 50_000
REPEATS, ENOUGH_SECONDS = 5, 2.0


@dataclass(frozen=True)
class Cell:
    n: int
    d_sae: int
    k: int = 64
    d_in: int | None = 768
    """None: no embeddings, and so no monosemanticity."""


@dataclass(frozen=True)
class Data:
    latents: Latents
    codes: np.ndarray
    strata: np.ndarray
    embeddings: Embeddings | None


def prepare(folder: Path, cell: Cell) -> None:
    rng = np.random.default_rng(1)
    make_many_latents(cell.n, cell.d_sae, cell.k).save(folder / "latents.safetensors")
    true = rng.random((cell.n, CONCEPTS), np.float32) < np.linspace(0.05, 0.6, CONCEPTS, dtype=np.float32)
    known = rng.random((cell.n, CONCEPTS), np.float32) < 0.8
    np.save(folder / "codes.npy", np.where(known, 1 + true, 0).astype(np.uint8))
    if cell.d_in is not None:
        _write_embeddings(folder / "embeddings", cell.n, cell.d_in)


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of each analysis (median of a few calls) and bytes of the libraries before any data."""
    _run_all(_small(), repeats=1)  # numba loads what it compiled
    libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    codes = np.load(folder / "codes.npy")
    embedded = folder / "embeddings"
    data = Data(
        Latents.load(folder / "latents.safetensors"),
        codes,
        np.arange(len(codes)) % SOURCES,
        Embeddings.load(embedded) if embedded.is_dir() else None,
    )
    return {"seconds": _run_all(data, REPEATS), "libraries": libraries}


def _run_all(data: Data, repeats: int) -> dict[str, float]:
    return {name: _seconds(partial(analysis, data), repeats) for name, analysis in ANALYSES.items() if _can(name, data)}


def _can(name: str, data: Data) -> bool:
    return name != "monosemanticity" or data.embeddings is not None


def _seconds(call: Callable[[], object], repeats: int) -> float:
    runs: list[float] = []
    while len(runs) < repeats and sum(runs) < ENOUGH_SECONDS:
        start = time.perf_counter()
        call()
        runs.append(time.perf_counter() - start)
    return float(np.median(runs))


def _sorting(data: Data) -> None:
    """By meme and by latent, from the top-k as stored on disk; what follows shares it."""
    data.latents.__dict__.pop("_csr", None)
    data.latents.__dict__.pop("_csc", None)
    data.latents.csc()


def _tests(data: Data) -> None:
    log_p = stratified_greater(Counter(data.latents.csr(), data.codes, data.strata).count())
    benjamini_hochberg(log_p)
    benjamini_hochberg_by_concept(log_p)


def _best_f1(data: Data) -> None:
    best_f1(Ranked.of(data.latents.csc()), data.codes)


def _auroc(data: Data) -> None:
    auroc(Ranked.of(data.latents.csc()), data.codes, data.strata)


def _influence(data: Data) -> None:
    z = sparse.csr_matrix(data.latents.csr(), dtype=np.float64)
    weights = np.random.default_rng(3).standard_normal((1, data.latents.d_sae))
    probe = Probe("task", (0, 1), 2 * weights, np.zeros(1))
    effects_of(latent_route(probe, z, np.empty((0, data.latents.d_sae))), MULTIPLIERS, n_random=0)


def _monosemanticity(data: Data) -> None:
    assert data.embeddings is not None
    panel = Panel.of(data.embeddings, np.arange(data.latents.n_samples), None, [FUSED])
    score(PanelUnits.of(data.latents), panel, intervals=False)


ANALYSES: dict[str, Callable[[Data], None]] = {
    "sorting": _sorting,
    "counts, exact test, BH": _tests,
    "best F1": _best_f1,
    "AUROC": _auroc,
    "influence, one task": _influence,
    "monosemanticity": _monosemanticity,
}


def _small() -> Data:
    n, rng = 200, np.random.default_rng(0)
    vectors = rng.standard_normal((n, 1, 16)).astype(np.float32)
    columns = {"id": [f"{i}" for i in range(n)], "source": ["all"] * n, FUSED: vectors}
    dataset = Dataset.from_dict(columns, features=_features(16))
    codes = rng.integers(0, 3, (n, CONCEPTS)).astype(np.uint8)
    return Data(make_many_latents(n, 96, 8), codes, np.arange(n) % SOURCES, Embeddings.from_dataset(dataset))


def _features(d: int) -> Features:
    return Features({"id": Value("string"), "source": Value("string"), FUSED: Array2D((1, d), "float32")})


def _write_embeddings(folder: Path, n: int, d: int) -> None:
    """In shards, each drawn by itself: many memes need no memory."""
    directions = np.random.default_rng(2).standard_normal((32, d)).astype(np.float32)

    def shard(start: int) -> dict[str, Any]:
        rng, rows = np.random.default_rng(start), range(start, min(start + SHARD, n))
        factors = rng.standard_normal((len(rows), 32), np.float32) @ directions
        x = factors + rng.standard_normal((len(rows), d), np.float32)
        return {"id": [f"{i}" for i in rows], "source": ["all"] * len(rows), FUSED: x[:, None]}

    with StepFolder(folder, "embed", {"n": n, "d": d}) as step:
        write_dataset(step, _features(d), [partial(shard, start) for start in range(0, n, SHARD)])
        step.finish()


if __name__ == "__main__":
    action, where, argument = sys.argv[1:]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if action == "prepare":
        prepare(Path(where), Cell(**json.loads(argument)))
    else:
        Path(argument).write_text(json.dumps(measure(Path(where))))
