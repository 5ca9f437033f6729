"""Latents that two concepts share: what the margins give by chance, and what the overlap of the two labels gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.association import TRUE, UNKNOWN, Counter, Tables, phi_within
from sae_lens_meme.metrics.fisher import fisher_greater, greater_one_a_group, stratified_greater
from sae_lens_meme.metrics.resampling import permutation_within
from sae_lens_meme.metrics.threads import in_threads

RATE_BINS, FEWEST_IN_BIN = 10, 20
"""Latents of similar firing rate: ten bins of as many latents each, or fewer bins where that leaves them too few to differ."""
Pairs = Sequence[tuple[int, int]]
"""Columns of two concepts each."""


class Shared(NamedTuple):
    """Of each pair of concepts; `log_p` are natural logs, NaN where the margins allow only one count."""

    tested: Int[np.ndarray, " pairs"]
    """Latents that are tested for both concepts."""
    first: Int[np.ndarray, " pairs"]
    """Of these, latents of the first concept."""
    second: Int[np.ndarray, " pairs"]
    shared: Int[np.ndarray, " pairs"]
    expected: Float[np.ndarray, " pairs"]
    """By chance, first x second / tested."""
    log_p: Float[np.ndarray, " pairs"]
    """Upper tail of the hypergeometric distribution."""
    expected_equal_rate: Float[np.ndarray, " pairs"]
    """The same within bins of firing rate, summed: a latent that fires often is found for every concept."""
    log_p_equal_rate: Float[np.ndarray, " pairs"]
    """Exact test within these bins."""


def shared_latents(
    of_concept: Bool[np.ndarray, "latents concepts"],
    pairs: Pairs,
    rate: Float[np.ndarray, " latents"],
    tested: Bool[np.ndarray, "latents concepts"] | None = None,
) -> Shared:
    """How many latents the two concepts of each pair share, and how many they would share by chance.

    Args:
        of_concept: which latents belong to which concept, such as those with q < .05.
        rate: how often each latent fires.
        tested: latents that can belong to a concept at all; default all.
    """
    tested = np.ones_like(of_concept) if tested is None else tested
    a, b = _columns(pairs)
    both = tested[:, a] & tested[:, b]
    first, second = of_concept[:, a] & both, of_concept[:, b] & both
    n_bins = min(max(len(rate) // FEWEST_IN_BIN, 1), RATE_BINS)
    bins = np.searchsorted(np.quantile(rate, np.linspace(0, 1, n_bins + 1)[1:-1]), rate)
    in_bin = (bins == np.arange(n_bins)[:, None]).astype(np.int64)
    shared, fires, true, n = ((in_bin @ part).T for part in (first & second, first, second, both))
    tables = Tables(shared[None], fires[None], true, n)
    size, of_first, of_second = (part.sum(axis=1) for part in (n, fires, true))
    free = (np.minimum(of_first, of_second) > 0) & (np.maximum(of_first, of_second) < size)
    return Shared(
        *(size, of_first, of_second, shared.sum(axis=1)),
        of_first * of_second / np.maximum(size, 1),
        np.where(free, fisher_greater(tables)[0], np.nan),
        (fires * true / np.maximum(n, 1)).sum(axis=1),
        stratified_greater(tables)[0],
    )


class LabelOverlap(NamedTuple):
    """Of each pair of concepts, over the memes of which both are known; NaN where one of them is constant there."""

    known: Int[np.ndarray, " pairs"]
    both_true: Int[np.ndarray, " pairs"]
    phi: Float[np.ndarray, " pairs"]
    phi_within_source: Float[np.ndarray, " pairs"]


def label_overlap(codes: UInt8[np.ndarray, "n concepts"], strata: Int[np.ndarray, " n"], pairs: Pairs) -> LabelOverlap:
    """The phi coefficient of the labels themselves: concepts that go together in the data share latents for that alone."""
    a, b = _columns(pairs)
    shape = (int(strata.max(initial=0)) + 1, len(pairs))
    n, true_a, true_b, both = (np.zeros(shape) for _ in range(4))
    for s in range(shape[0]):
        mine = codes[strata == s]
        known, true = ((mine != UNKNOWN).astype(np.float64), (mine == TRUE).astype(np.float64))
        n[s], both[s] = (known.T @ known)[a, b], (true.T @ true)[a, b]
        true_a[s], true_b[s] = (true.T @ known)[a, b], (known.T @ true)[a, b]
    pooled = [part.sum(axis=0, keepdims=True) for part in (n, true_a, true_b, both)]
    counts = (pooled[0][0].astype(np.int64), pooled[3][0].astype(np.int64))
    return LabelOverlap(*counts, phi_within(*pooled, strata=0), phi_within(n, true_a, true_b, both, strata=0))


def from_labels_alone(
    latents: Latents,
    labels: ConceptLabels,
    of_concept: Bool[np.ndarray, "latents concepts"],
    pairs: Pairs,
    log_p: float,
    draws: int,
    seed: int,
    order: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, "draws pairs 2"]:
    """Latents shared where the two labels overlap as they do and the latents know only one of them.

    The labels of the second concept change places among memes of one source and one value (true, false, unknown) of the
    first, groups whole: margins and overlap of the labels stay, and whatever else ties a latent to the second concept is
    gone. Counted are the first concept's latents that then pass for the second one's. The last axis is which of the two is
    kept.

    Args:
        log_p: natural log of the largest p of a latent that belongs to a concept.
        order: as of `permutation_within`.
    """
    found = np.zeros((draws, len(pairs), 2), np.int64)
    alpha = min(max(math.exp(log_p) * (1 + 1e-9), 1e-300), 1.0) if np.isfinite(log_p) else 0.0
    if not draws or not alpha:
        return found
    a, b = _columns(pairs)

    def count(kept: int) -> None:
        mine = [(p, side) for side, part in enumerate((a, b)) for p in np.flatnonzero(part == kept)]
        if not mine or not of_concept[:, kept].any():
            return
        others = np.array([(b, a)[side][p] for p, side in mine])
        active = latents.csr()[:, np.flatnonzero(of_concept[:, kept])]
        strata = labels.sources * (TRUE + 1) + labels.known[:, kept]
        generator = np.random.default_rng([seed, kept])
        for draw in range(draws):
            to = permutation_within(strata, generator, order, labels.groups)
            counter = Counter(active, labels.known[to][:, others], labels.sources)
            passes = greater_one_a_group(counter.count, labels.one_a_group, alpha) <= log_p
            for column, (p, side) in enumerate(mine):
                found[draw, p, side] = passes[:, column].sum()

    in_threads(count, range(labels.known.shape[1]))
    return found


def _columns(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return a, b
