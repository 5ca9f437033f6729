"""The best F1 of every latent x concept over all thresholds."""

from __future__ import annotations

import numpy as np

from benchmarks import kindest, naive
from benchmarks.data import Shape, make_concepts, make_latents
from benchmarks.measure import Row, median_time, require_close, seconds, timed
from sae_lens_meme.metrics.ranking import Ranked, best_f1

GOAL_RATIO, GOAL_SECONDS = 10_000, 3 * 0.058


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    latents, concepts = make_latents(shape), make_concepts(shape)
    codes, active = concepts.astype(np.uint8) + 1, latents.csc()
    warm_up, ours = timed(lambda: best_f1(Ranked.of(active), codes).f1)
    ours_s, _ = median_time(lambda: best_f1(Ranked.of(active), codes).f1, 1 if quick else 15)
    kindest_s, f1 = median_time(lambda: kindest.best_f1(active, concepts), 1 if quick else 3)
    require_close("F1 of the kindest rival", ours, f1, atol=1e-12)
    z = latents.csr().toarray()
    pairs = f"{shape.d_sae * shape.concepts:,} pairs"
    return [
        _each_threshold(shape, z, concepts, ours, ours_s, warm_up, pairs, quick, kindest_s),
        _curves(shape, z, concepts, ours, ours_s, quick),
    ]


def _each_threshold(
    shape: Shape,
    z: np.ndarray,
    concepts: np.ndarray,
    ours: np.ndarray,
    ours_s: float,
    warm_up: float,
    pairs: str,
    quick: bool,
    kindest_s: float,
) -> Row:
    """A call costs the same whatever the threshold, so that the loop is extrapolated by its number of calls."""
    firing = (z > 0).sum(axis=0)
    budget, few = (60, 4) if quick else (300, 40)
    part = np.flatnonzero((firing > 0) & (firing <= budget / 2))[:: max(1, shape.d_sae // few)]
    part = part[np.cumsum(firing[part]) <= budget]
    calls = [int(sum(len(np.unique(column[column > 0])) for column in z[:, which].T)) for which in (part, ...)]
    naive_s, f1 = timed(lambda: naive.best_f1(z, concepts, part))
    naive_s *= calls[1] / calls[0]
    goal = f"≥ {GOAL_RATIO:,}x, ≤ {seconds(GOAL_SECONDS)}"
    return Row(
        f"best F1 over all thresholds, {pairs}",
        *(naive_s, ours_s, goal, naive_s / ours_s >= GOAL_RATIO and ours_s <= GOAL_SECONDS),
        require_close("F1", ours[part], f1, atol=1e-15),
        f"{calls[0] * shape.concepts:,} of {calls[1] * shape.concepts:,} calls of f1_score ({len(part)} latents)",
        "f1_score at every threshold",
        warm_up,
        kindest_s,
        "numpy, one sort a latent, cumulative sums of all concepts at once",
    )


def _curves(shape: Shape, z: np.ndarray, concepts: np.ndarray, ours: np.ndarray, ours_s: float, quick: bool) -> Row:
    part = range(0, shape.d_sae, 16 if quick else 128)
    naive_s, f1 = median_time(lambda: naive.best_f1_by_curve(z, concepts, part), 1 if quick else 3)
    naive_s *= shape.d_sae / len(part)
    return Row(
        "the same, against one sort a pair",
        *(naive_s, ours_s, "none", None),
        require_close("F1", ours[part], f1, atol=1e-14),
        f"{len(part)} of {shape.d_sae:,} latents",
        "scikit-learn's precision_recall_curve",
    )
