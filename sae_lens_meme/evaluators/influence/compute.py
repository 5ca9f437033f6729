"""Mean effects of all latents of one route: sums over active pairs, bootstrap over memes, controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int, UInt8
from scipy import sparse

from sae_lens_meme.evaluators.influence.kernels import add_by_latent, add_resampled
from sae_lens_meme.evaluators.influence.routes import Route
from sae_lens_meme.evaluators.result import nullable
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

PAIRS_PER_BLOCK = 131_072  # some 8 MB of deltas a class and multiplier
CONTROL_BLOCKS = 1  # the edit that changes nothing is checked on the first block only: it is exact or broken
MATCHED_ON_EACH_SIDE = 10

Ends = tuple[np.ndarray, np.ndarray]
"""Low and high ends of intervals, each of the shape of what they are of."""


@dataclass(frozen=True, eq=False)
class Resampling:
    """How often each bootstrap draws each meme, and each latent's firing memes (with repetition)."""

    weights: UInt8[np.ndarray, "n b"]
    n_active: Float[np.ndarray, "d_sae b"]

    @classmethod
    def of(
        cls,
        latents: Any,
        strata: Int[np.ndarray, " n"],
        n_bootstrap: int,
        seed: int,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> Resampling:
        """Groups of memes (default each its own) are drawn with replacement within each stratum."""
        weights = np.empty((latents.shape[0], n_bootstrap), dtype=np.uint8)
        for b, drawn in enumerate(bootstrap_weights(strata, n_bootstrap, seed, groups)):
            weights[:, b] = drawn
        fires = sparse.csr_matrix((np.ones(latents.nnz, np.float32), latents.indices, latents.indptr), latents.shape)
        return cls(weights, fires.T @ weights.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Effects:
    """Of each latent, multiplier and output probability; NaN where undefined."""

    delta_all: Float64[np.ndarray, "d_sae m outputs"]
    delta_active: Float64[np.ndarray, "d_sae m outputs"]
    delta_all_interval: Ends | None
    delta_active_interval: Ends | None
    delta_random: Float64[np.ndarray, "d_sae m outputs"] | None
    delta_orthogonal: Float64[np.ndarray, "d_sae m outputs"] | None
    """None where the classifier is not linear."""
    random_maximum: Float64[np.ndarray, " m"] | None
    delta_matched: Float64[np.ndarray, "d_sae m outputs"]
    n_active: Int[np.ndarray, " d_sae"]
    n: int
    attached_no_change: float


def effects_of(
    route: Route, multipliers: Sequence[float], resampling: Resampling | None = None, n_random: int = 4
) -> Effects:
    """Mean change of each output probability over all rows of the route and over the rows where a latent fires.

    Exact; O(nnz x multipliers x outputs) a classifier. `delta_random` is the absolute mean change by a random
    direction, `random_maximum` the largest of these over latents and classes, both means over `n_random` directions;
    `delta_orthogonal` is the same for the step orthogonal to the classifier (without random directions none is taken);
    `delta_matched` is the mean absolute change of the 20 other latents whose firing rates are nearest.
    """
    n, d_sae = route.latents.shape
    m = np.asarray(multipliers, dtype=np.float64)
    width = len(m) * route.n_outputs
    sums, random = np.zeros((d_sae, width)), np.zeros((n_random, d_sae, width))
    resampled = None if resampling is None else np.zeros((width, d_sae, resampling.weights.shape[1]), np.float32)
    orthogonal: np.ndarray | None = np.zeros((d_sae, width)) if n_random else None
    unchanged = 0.0
    for i, (start, stop) in enumerate(blocks(route.latents)):
        indptr, latents, _ = route.block(start, stop)
        deltas = route.deltas(start, stop, m).reshape(-1, width)
        add_by_latent(latents, deltas, sums)
        if i < CONTROL_BLOCKS:
            unchanged = max(unchanged, np.abs(route.deltas(start, stop, np.ones(1))).max(initial=0))
        if resampling is not None:
            add_resampled(indptr, latents, deltas, resampling.weights[start:stop], resampled)
        if orthogonal is not None and (deltas := route.orthogonal_deltas(start, stop, m)) is not None:
            add_by_latent(latents, deltas.reshape(-1, width), orthogonal)
        else:
            orthogonal = None
        for r in range(n_random):
            add_by_latent(latents, route.random_deltas(start, stop, m, r).reshape(-1, width), random[r])
    n_active = np.bincount(route.latents.indices, minlength=d_sae)
    shape = (d_sae, len(m), route.n_outputs)
    delta_all = (sums / n).reshape(shape)
    intervals = (None, None) if resampling is None else _intervals(resampled, resampling, shape)
    return Effects(
        delta_all,
        np.where(n_active > 0, sums.T / np.maximum(n_active, 1), np.nan).T.reshape(shape),
        *intervals,
        (np.abs(random).mean(0) / n).reshape(shape) if n_random else None,
        None if orthogonal is None else np.abs(orthogonal / n).reshape(shape),
        np.abs(random / n).reshape(n_random, *shape).max(axis=(1, 3)).mean(axis=0) if n_random else None,
        firing_rate_matched(np.abs(delta_all).reshape(d_sae, width), n_active).reshape(shape),
        n_active,
        n,
        float(unchanged),
    )


def blocks(latents: Any, pairs: int = PAIRS_PER_BLOCK) -> Iterator[tuple[int, int]]:
    """Ranges of rows with at most this many active pairs (or one row)."""
    start, n = 0, latents.shape[0]
    while start < n:
        stop = int(np.searchsorted(latents.indptr, latents.indptr[start] + pairs, side="right")) - 1
        yield start, (start := min(max(stop, start + 1), n))


def firing_rate_matched(
    magnitude: Float64[np.ndarray, "d_sae q"],
    n_active: Int[np.ndarray, " d_sae"],
    each_side: int = MATCHED_ON_EACH_SIDE,
) -> Float64[np.ndarray, "d_sae q"]:
    """Mean magnitude of the other latents nearest in firing rate; NaN for latents that never fire.

    The window holds `each_side` latents on either side in the order of firing rate, fewer at the ends.
    """
    out = np.full(magnitude.shape, np.nan)
    order = np.argsort(n_active, kind="stable")
    order = order[n_active[order] > 0]
    place = np.arange(len(order))
    low, high = np.maximum(place - each_side, 0), np.minimum(place + each_side + 1, len(order))
    if len(order) < 2:
        return out
    cumulative = np.vstack([np.zeros((1, magnitude.shape[1])), magnitude[order].cumsum(0)])
    others = cumulative[high] - cumulative[low] - magnitude[order]
    out[order] = np.maximum(others, 0) / (high - low - 1)[:, None]  # rounding may leave -1e-20
    return out


def table_of(route: Route, effects: Effects, multipliers: Sequence[float], head: str) -> pd.DataFrame:
    """One row per latent x class x multiplier; null where undefined."""
    d_sae, n_m, _ = effects.delta_all.shape
    n_classes = len(route.classes)
    cells = d_sae * n_m * n_classes
    kinds = ["ablation" if m == 0 else "steering" for m in multipliers]
    columns: dict[str, Any] = {
        "latent": np.repeat(np.arange(d_sae), n_m * n_classes),
        "task": np.full(cells, route.task, dtype=object),
        "class": np.tile(np.array([str(c) for c in route.classes], dtype=object), d_sae * n_m),
        "kind": np.tile(np.repeat(np.array(kinds, dtype=object), n_classes), d_sae),
        "multiplier": np.tile(np.repeat(np.asarray(multipliers, np.float64), n_classes), d_sae),
        "delta_all": _signed(route, effects.delta_all),
        "delta_active": nullable(_signed(route, effects.delta_active)),
        "n_active": np.repeat(effects.n_active, n_m * n_classes),
        "n": np.full(cells, effects.n),
        "route": np.full(cells, route.name, dtype=object),
        "head": np.full(cells, head, dtype=object),
        "published": _published(route, effects) & (route.name == "latent") & (head == "probe"),
    }
    for name, interval in (("all", effects.delta_all_interval), ("active", effects.delta_active_interval)):
        if interval is not None:
            low, high = interval
            columns[f"delta_{name}_low"] = nullable(_signed(route, low, high))
            columns[f"delta_{name}_high"] = nullable(_signed(route, high, low))
    if effects.delta_random is not None:
        columns["delta_random"] = _unsigned(route, effects.delta_random)
        orthogonal = effects.delta_orthogonal
        undefined = np.full_like(effects.delta_all, np.nan)
        columns["delta_orthogonal"] = nullable(_unsigned(route, undefined if orthogonal is None else orthogonal))
    columns["delta_matched"] = nullable(_unsigned(route, effects.delta_matched))
    return pd.DataFrame(columns)


def _published(route: Route, effects: Effects) -> np.ndarray:
    """InterVLM's one number per latent and edit: the positive class of two, else the class that changes most."""
    if route.n_outputs == 1:
        of_class = np.ones(effects.delta_all.shape[:2], dtype=int)
    else:
        of_class = np.abs(effects.delta_all).argmax(axis=2)
    return (np.arange(len(route.classes)) == of_class[..., None]).ravel()


def _signed(route: Route, values: np.ndarray, of_first: np.ndarray | None = None) -> np.ndarray:
    """One value per class; of two classes the first changes by minus what the second does."""
    if route.n_outputs == 1:
        values = np.concatenate([0.0 - (values if of_first is None else of_first), values], axis=2)
    return values.ravel()


def _unsigned(route: Route, values: np.ndarray) -> np.ndarray:
    return np.repeat(values, len(route.classes) // route.n_outputs, axis=2).ravel()


def _intervals(resampled: Any, resampling: Resampling, shape: tuple[int, ...]) -> tuple[Ends, Ends]:
    every, active = [], []
    drawn = resampling.weights.sum(axis=0).astype(np.float32)  # groups are drawn whole: not n in each resample
    for sums in resampled:  # one multiplier and class at a time: no second copy of all
        every.append(percentile_interval((sums / drawn).T))
        with np.errstate(invalid="ignore"):
            active.append(percentile_interval((sums / resampling.n_active).T))
    return _stacked(every, shape), _stacked(active, shape)


def _stacked(parts: list[np.ndarray], shape: tuple[int, ...]) -> Ends:
    both = np.stack(parts, axis=2).astype(np.float64)
    return both[0].reshape(shape), both[1].reshape(shape)
