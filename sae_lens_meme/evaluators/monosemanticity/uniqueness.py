"""Uniqueness: do latents differ in the memes that fire them most? Jaccard indices of top sets (Pach et al. 2025).

Counted exactly over all pairs from the sets' members; nothing of size d_sae x d_sae exists. The control is exact too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity.kernels import overlap_in_strata, overlaps, random_overlaps
from sae_lens_meme.evaluators.result import Measure, Quantity, Result, Section, nullable
from sae_lens_meme.metrics.ranking import Ranked

TOP = 16
OVERLAPPING = Quantity("share_overlapping", "share with a member in common")
QUANTITIES = (
    Quantity("mean_jaccard", "Jaccard index of two top sets (members of both over members of either), mean"),
    OVERLAPPING,
    Quantity("share_above_half", "share with a Jaccard index above .5"),
    Quantity("max_jaccard", "largest Jaccard index"),
)
COLUMNS = {
    "latent": "of the SAE",
    "nearest_latent": "the latent whose top set shares most memes with this one's (uniqueness)",
    "jaccard": "of the two top sets",
}


def uniqueness(latents: Latents, ids: np.ndarray, strata: np.ndarray, *, top: int = TOP) -> Result:
    """Overlap of the top sets of every pair of latents that fire on at least `top` memes.

    Memory: O(latents x top); time: sum over memes of the square of the sets they are in.

    Args:
        latents: one row per meme.
        ids: of the memes; they decide between equal activations, so that the order of the memes does not.
        strata: the source of each meme. In the control each top set is handed to random memes of the same sources,
            for each latent anew.

    Returns:
        `share_overlapping` (Jaccard index > 0) and `share_above_half` (> .5) of the pairs, the mean and the largest
        index, and what to expect of them in the control; the table has each latent's nearest other.
    """
    if top < 1:
        raise ConfigError(f"uniqueness: top is {top}, it must be 1 or more")
    if not latents.n_samples == len(ids) == len(strata):
        raise DataError(f"uniqueness: {latents.n_samples} rows of latents, {len(ids)} ids, {len(strata)} sources")
    units, sets = top_sets(latents, ids, top)
    found, nearest, largest = _overlaps(sets, latents.n_samples)
    rows = f"over pairs of latents, of each the {top} of {latents.n_samples} memes with the largest activation"
    control = f"{rows}; control: expected where each set is given to random memes of the same sources (closed form)"
    why = f"fewer than two latents fire on {top} of these {latents.n_samples} memes"
    values, expected = _shares(found, top), _expected(sets, strata)
    measures = {q: q(value, rows=rows, reason=why) for q, value in zip(QUANTITIES, values, strict=True)}
    random = [replace(q, key=f"{q.key}_permuted") for q in QUANTITIES]
    measures |= {q: q(value, rows=control, reason=why) for q, value in zip(random, expected, strict=True)}
    if expected[1] is not None:
        label = f"share of {found.sum():,} pairs of latents with a common top-{top} meme"
        measures[OVERLAPPING] = measures[OVERLAPPING].row(label, measures[random[1]].control("permuted"))
    counts = [
        Measure("n_latents", len(units), f"latents that fire on at least {top} of the {latents.n_samples} memes"),
        Measure("n_pairs", found.sum(), "pairs of these latents"),
    ]
    table = _table(latents.d_sae, units, nearest, largest, top)
    return Result("uniqueness", Section("Uniqueness", control), (*counts, *measures.values()), table, COLUMNS)


def top_sets(
    latents: Latents, ids: np.ndarray, top: int
) -> tuple[Int[np.ndarray, " units"], Int[np.ndarray, "units top"]]:
    """The latents that fire on at least `top` memes, and the rows of their largest activations, descending.

    Of equal activations the smaller id comes first.
    """
    by_id = np.argsort(ids, kind="stable")
    ranked = Ranked.of(latents.rows(by_id).csr())
    starts = ranked.starts.astype(np.int64)
    units = np.flatnonzero(np.diff(starts) >= top)
    return units, by_id[ranked.rows[starts[units, None] + np.arange(top)]]


def jaccard(shared: np.ndarray, top: int) -> np.ndarray:
    """Of two sets of `top` members that share this many."""
    return shared / (2 * top - shared)


def _overlaps(sets: Int[np.ndarray, "units top"], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many pairs share 0, 1, ... members; each set's nearest other and what it shares with it."""
    memes = sets.ravel()
    starts = np.concatenate([[0], np.cumsum(np.bincount(memes, minlength=n))])
    members = np.argsort(memes, kind="stable") // max(sets.shape[1], 1)
    return overlaps(np.ascontiguousarray(sets), starts, members)


def _expected(sets: Int[np.ndarray, "units top"], strata: Int[np.ndarray, " n"]) -> list[float | None]:
    """The numbers of `_shares` for random sets with as many members of each stratum.

    What two sets share of a stratum is hypergeometric. The largest index is that of as many independent pairs: two pairs
    are independent, also where they have a set in common; three need not be.
    """
    if len(sets) < 2:
        return [None] * len(QUANTITIES)
    drawn, how_many = np.unique(np.sort(strata[sets], axis=1), axis=0, return_counts=True)
    histogram, log_at_most = np.zeros((2, len(drawn), sets.shape[1] + 1))
    sizes = np.bincount(strata)
    most = np.max([np.bincount(members, minlength=len(sizes)) for members in drawn], axis=0)
    table, starts = overlap_in_strata(sizes, most)
    random_overlaps(drawn, how_many, table, starts, most, histogram, log_at_most)
    at_most = np.exp(log_at_most.sum(axis=0))
    index = jaccard(np.arange(sets.shape[1] + 1), sets.shape[1])
    largest = index @ np.diff(at_most, prepend=0.0)
    return [*_shares(histogram.sum(axis=0), sets.shape[1])[:-1], float(largest)]


def _shares(histogram: Float64[np.ndarray, " sizes"] | Int[np.ndarray, " sizes"], top: int) -> list[float | None]:
    """In the order of `QUANTITIES`; None without a pair."""
    index, n_pairs = jaccard(np.arange(top + 1), top), histogram.sum()
    if not n_pairs:
        return [None] * len(QUANTITIES)
    return [
        float(histogram @ index / n_pairs),
        float(histogram[1:].sum() / n_pairs),
        float(histogram[index > 0.5].sum() / n_pairs),
        float(index[np.flatnonzero(histogram).max()]),
    ]


def _table(d_sae: int, units: np.ndarray, nearest: np.ndarray, largest: np.ndarray, top: int) -> pd.DataFrame:
    """Nearest: largest overlap, of equal ones the first; null where the latent has no top set or overlaps with none."""
    index, partner = np.full(d_sae, np.nan), np.full(d_sae, -1)
    index[units] = jaccard(largest, top)
    partner[units[nearest >= 0]] = units[nearest[nearest >= 0]]
    partners = pd.arrays.IntegerArray(partner, partner < 0)
    return pd.DataFrame({"latent": np.arange(d_sae), "nearest_latent": partners, "jaccard": nullable(index)})
