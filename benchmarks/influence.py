"""Ablation and steering x5 of every latent for three tasks, on the test rows and on all rows."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks import kindest, naive
from benchmarks.data import Shape, make_latents
from benchmarks.measure import Row, median_time, require_close, seconds, timed
from sae_lens_meme.evaluators.classifiers import Probe
from sae_lens_meme.evaluators.influence import effects_of, latent_route
from sae_lens_meme.evaluators.latents import Latents

MULTIPLIERS = (0.0, 5.0)
OUTPUTS = (1, 3, 1)  # hate, stance, humor: one output is a sigmoid
GOAL_RATIO = 10_000


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    latents, probes = make_latents(shape), _probes(shape)
    test = latents.rows(np.arange(shape.n_test))
    return [
        _row(test, probes, naive_latents=16 if quick else 64, goal_s=3 * 0.004, quick=quick),
        _row(latents, probes, naive_latents=4, goal_s=3 * 0.05, quick=quick),
    ]


def _row(latents: Latents, probes: list[Probe], naive_latents: int, goal_s: float, quick: bool) -> Row:
    latents.csr()  # made once, shared by all evaluators
    warm_up, ours = timed(lambda: _ours(latents, probes))
    ours_s, _ = median_time(lambda: _ours(latents, probes), 1 if quick else 15)
    z = latents.csr().toarray()
    part = np.linspace(0, latents.d_sae - 1, naive_latents).astype(int)
    weights = [(p.coef, p.intercept) for p in probes]
    narrow = [(c.astype(np.float32), b.astype(np.float32)) for c, b in weights]
    with threadpool_limits(1, user_api="blas"):  # BLAS threads wait for each other on such thin matrices
        naive_s, changes = timed(lambda: naive.influence(z, narrow, part, MULTIPLIERS))
        exact = naive.influence(z.astype(np.float64), weights, part[:2], MULTIPLIERS)
    same = require_close("float64 effects", ours[part[:2]], exact, atol=1e-12)
    same += ", " + require_close("float32", ours[part], changes, atol=1e-6)
    naive_s *= latents.d_sae / len(part)
    z64 = sparse.csr_matrix(latents.csr(), dtype=np.float64)
    kindest_s, closed = median_time(lambda: kindest.influence(z64, weights, MULTIPLIERS), 1 if quick else 3)
    require_close("effects of the kindest rival", ours, closed, atol=1e-7)
    return Row(
        f"ablation + x5, {len(probes)} tasks, {latents.n_samples:,} rows, {latents.d_sae:,} latents",
        *(naive_s, ours_s, f"≥ {GOAL_RATIO:,}x, ≤ {seconds(goal_s)}"),
        naive_s / ours_s >= GOAL_RATIO and ours_s <= goal_s,
        same,
        f"{len(part)} of {latents.d_sae:,} latents",
        "ours also finds the matched-rate control",
        warm_up,
        kindest_s,
        "the closed form in numpy on all active pairs at once",
    )


def _probes(shape: Shape) -> list[Probe]:
    rng = np.random.default_rng(3)
    return [
        Probe(f"task {i}", tuple(range(max(n, 2))), 2 * rng.standard_normal((n, shape.d_sae)), rng.standard_normal(n))
        for i, n in enumerate(OUTPUTS)
    ]


def _ours(latents: Latents, probes: list[Probe]) -> np.ndarray:
    z = sparse.csr_matrix(latents.csr(), dtype=np.float64)
    no_directions = np.empty((0, latents.d_sae))
    routes = [latent_route(probe, z, no_directions) for probe in probes]
    return np.concatenate([effects_of(r, MULTIPLIERS, n_random=0).delta_all for r in routes], axis=2)
