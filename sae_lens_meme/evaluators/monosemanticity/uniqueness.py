"""Uniqueness: do latents differ in the memes that fire them most? Jaccard indices of top sets (Pach et al. 2025).

Counted exactly over all pairs from the sets' members; nothing of size d_sae x d_sae exists.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity.kernels import overlaps, random_sets
from sae_lens_meme.evaluators.result import Number, Result, nullable
from sae_lens_meme.metrics.ranking import Ranked

TOP = 16
DRAWS = 5
_SHARES = ("mean_jaccard", "share_overlapping", "share_above_half", "max_jaccard")
_PAIRS = "pairs of latents that fire on at least {top} memes, sets of the {top} memes with the largest activation"

Histogram = Int[np.ndarray, " sizes"]


def uniqueness(
    latents: Latents, ids: np.ndarray, strata: np.ndarray, *, top: int = TOP, n_draws: int = DRAWS, seed: int = 0
) -> Result:
    """Overlap of the top sets of every pair of latents that fire on at least `top` memes.

    Memory: O(latents x top); time: sum over memes of the square of the sets they are in.

    Args:
        latents: one row a meme.
        ids: of the memes; they decide between equal activations, so that the order of the memes does not.
        strata: the source of each meme. In the control each top set is handed to random memes of the same sources,
            for each latent anew.

    Returns:
        `share_overlapping` (Jaccard index > 0) and `share_above_half` (> .5) of the pairs, the mean and the largest
        index, and the same of the control; the table has each latent's nearest other.
    """
    if top < 1 or n_draws < 1:
        raise ConfigError(f"uniqueness: top={top}, n_draws={n_draws}; give 1 or more")
    if not latents.n_samples == len(ids) == len(strata):
        raise DataError(f"uniqueness: {latents.n_samples} rows of latents, {len(ids)} ids, {len(strata)} sources")
    units, sets = top_sets(latents, ids, top)
    found, nearest, largest = _overlaps(sets, latents.n_samples)
    generator = np.random.default_rng(seed)
    draws = [_overlaps(_redrawn(sets, ids, strata, generator), latents.n_samples)[0] for _ in range(n_draws)]
    numbers: dict[str, Number] = {"n_latents": len(units), "n_pairs": int(found.sum())}
    reasons: dict[str, str] = {}
    keys = [*_SHARES, *(f"{key}_permuted" for key in _SHARES)]
    if found.sum():
        numbers |= _shares(found, top)
        control = [_shares(draw, top) for draw in draws]
        numbers |= {f"{key}_permuted": float(np.mean([draw[key] for draw in control])) for key in _SHARES}
    else:
        reasons = dict.fromkeys(keys, f"fewer than two latents fire on {top} of these {latents.n_samples} memes")
    table = _table(latents.d_sae, units, nearest, largest, top)
    return Result(
        "uniqueness", numbers | dict.fromkeys(reasons), reasons, table, _explain(top, latents.n_samples, n_draws)
    )


def top_sets(
    latents: Latents, ids: np.ndarray, top: int
) -> tuple[Int[np.ndarray, " units"], Int[np.ndarray, "units top"]]:
    """The latents that fire on at least `top` memes, and the rows of their largest activations, descending.

    Of equal activations the smaller id comes first.
    """
    by_id = np.argsort(ids, kind="stable")
    ranked = Ranked.of(latents.rows(by_id).csc())
    starts = ranked.starts.astype(np.int64)
    units = np.flatnonzero(np.diff(starts) >= top)
    return units, by_id[ranked.rows[starts[units, None] + np.arange(top)]]


def jaccard(shared: np.ndarray, top: int) -> np.ndarray:
    """Of two sets of `top` members that share so many."""
    return shared / (2 * top - shared)


def _overlaps(sets: Int[np.ndarray, "units top"], n: int) -> tuple[Histogram, np.ndarray, np.ndarray]:
    memes = sets.ravel()
    starts = np.concatenate([[0], np.cumsum(np.bincount(memes, minlength=n))])
    members = np.argsort(memes, kind="stable") // max(sets.shape[1], 1)
    return overlaps(np.ascontiguousarray(sets), starts, members)


def _shares(histogram: Histogram, top: int) -> dict[str, float]:
    index, n_pairs = jaccard(np.arange(top + 1), top), histogram.sum()
    return {
        "mean_jaccard": float(histogram @ index / n_pairs),
        "share_overlapping": float(histogram[1:].sum() / n_pairs),
        "share_above_half": float(histogram[index > 0.5].sum() / n_pairs),
        "max_jaccard": float(index[np.flatnonzero(histogram).max()]),
    }


def _redrawn(
    sets: Int[np.ndarray, "units top"], ids: np.ndarray, strata: np.ndarray, generator: np.random.Generator
) -> Int[np.ndarray, "units top"]:
    """Other sets with the same number of memes of each stratum."""
    members = np.lexsort((ids, strata))
    starts = np.concatenate([[0], np.cumsum(np.bincount(strata))])
    out = np.empty_like(sets)
    random_sets(np.sort(strata[sets], axis=1), members, starts, generator.random(sets.shape), out)
    return out


def _table(d_sae: int, units: np.ndarray, nearest: np.ndarray, largest: np.ndarray, top: int) -> pd.DataFrame:
    """Nearest: largest overlap, of equal ones the first; null where the latent has no top set or overlaps with none."""
    index, partner = np.full(d_sae, np.nan), np.full(d_sae, -1)
    index[units] = jaccard(largest, top)
    partner[units[nearest >= 0]] = units[nearest[nearest >= 0]]
    partners = pd.arrays.IntegerArray(partner, partner < 0)
    return pd.DataFrame({"latent": np.arange(d_sae), "nearest_latent": partners, "jaccard": nullable(index)})


def _explain(top: int, n: int, n_draws: int) -> dict[str, str]:
    pairs = _PAIRS.format(top=top)
    return {
        "n_latents": f"latents that fire on at least {top} of the {n} memes",
        "n_pairs": pairs,
        "mean_jaccard*": f"mean Jaccard index (shared / together) over {pairs}",
        "share_overlapping*": f"share with Jaccard index > 0 of {pairs}",
        "share_above_half*": f"share with Jaccard index > .5 of {pairs}",
        "max_jaccard*": f"largest Jaccard index over {pairs}",
        "*_permuted": f"control: each top set handed to random memes of the same sources, latent by latent; mean of {n_draws} draws",
    }
