"""One-sided exact tests of association (greater), plain and stratified, for many tables at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_ndtr

from sae_lens_meme.jit import njit
from sae_lens_meme.metrics.association import Tables
from sae_lens_meme.metrics.hypergeometric import MEDIAN_RULE, log_tail, log_tail_of_sum
from sae_lens_meme.metrics.multiple_testing import median_p
from sae_lens_meme.metrics.resampling import one_each

DRAWS = 5
"""Draws of one meme per group; the median of the five p is multiplied by 5 / 3."""
ONE_DRAW = 0.9
"""With as many groups a meme, a single draw is made."""


def fisher_greater(tables: Tables, alpha: float = 1.0) -> Float[np.ndarray, "latents concepts"]:
    """Natural log of Fisher's one-sided p (`greater`) of the tables summed over strata.

    Equals `scipy.stats.fisher_exact(alternative="greater")`, without its underflow.

    Args:
        alpha: a p above it may come out as 1, which is faster.
    """
    a = tables.fires_true.sum(axis=-1)
    fires, true, n = (count.sum(axis=-1) for count in (tables.fires, tables.true, tables.n))
    out, bound = np.empty(a.shape), math.log(alpha)
    _on_two_cores(lambda first: _fisher(a, fires, true, n, bound, first, out))
    return out


def stratified_greater(tables: Tables, alpha: float = 1.0) -> Float[np.ndarray, "latents concepts"]:
    """Natural log of the one-sided p of no association within any stratum.

    The exact conditional test: given each stratum's margins, the count a is a sum of independent
    hypergeometrics (as in `mantelhaen.test(exact=TRUE)` of R). A pair of which a convolution would
    take over `hypergeometric.MAX_TERMS` terms gets the Cochran-Mantel-Haenszel p instead. NaN where the
    margins leave only one table possible (the latent is silent, or no stratum has both classes).

    Args:
        alpha: a p above it may come out as 1, which is faster.
    """
    support = int(np.minimum(tables.fires, tables.true).sum(axis=-1).max(initial=0))
    log_p, bound = np.empty(tables.fires.shape[:2]), math.log(alpha)
    of = (tables.fires_true, tables.fires, tables.true, tables.n)
    _on_two_cores(lambda first: _stratified(*of, support + 1, bound, first, log_p))
    too_large = log_p == 1.0  # a log p is never positive
    if too_large.any():
        log_p[too_large] = cmh_greater(tables)[too_large]
    return log_p


def greater_one_a_group(
    count: Callable[[Any], Tables], draws: Sequence[Any], alpha: float = 1.0, weights: Any = None
) -> Float[np.ndarray, "latents concepts"]:
    """`stratified_greater` where memes of one group are not independent evidence: on one meme per group, in several draws.

    In a draw memes are independent again, so that its p is valid; `median_p` makes one of them all. (Memes of one
    template tested as if each were its own give many false pairs: the more, the larger the templates.)

    Args:
        count: from weights of the memes (None: each once) to tables.
        draws: as of `one_a_group`.
        weights: of the memes, 0 or 1, such as a subset.
    """

    def of(draw: Any) -> np.ndarray:
        return stratified_greater(
            count(draw if weights is None else weights if draw is None else draw * weights), alpha
        )

    return of(draws[0]) if len(draws) == 1 else median_p(np.stack([of(draw) for draw in draws]))


def one_a_group(groups: Int[np.ndarray, " n"] | None) -> list[Int[np.ndarray, " n"] | None]:
    """Weights of the draws of `greater_one_a_group`; one draw of all memes where each is its own group.

    Where a draw leaves out few memes one is enough: it is a valid test by itself, and the others would say the same.
    """
    n = 0 if groups is None else len(np.unique(groups))
    if groups is None or n == len(groups):
        return [None]
    return list(one_each(groups, 1 if n >= ONE_DRAW * len(groups) else DRAWS, seed=0))


def cmh_greater(tables: Tables) -> Float[np.ndarray, "latents concepts"]:
    """Natural log of the one-sided Cochran-Mantel-Haenszel p, without continuity correction."""
    n, true, fires = np.maximum(tables.n, 1), tables.true, tables.fires
    expected = fires * (true / n)
    variance = expected * (1 - true / n) * (n - fires) / np.maximum(n - 1, 1)
    total = variance.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (tables.fires_true - expected).sum(axis=-1) / np.sqrt(total)
    return np.where(total > 0, log_ndtr(-z), np.nan)


def _on_two_cores(fill: Callable[[int], None]) -> None:
    """Every other latent from the first, and from the second."""
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(fill, 1)
        fill(0)
        other.result()


@njit(nogil=True)
def _fisher(a, fires, true, n, bound, first, out):
    for i in range(first, a.shape[0], 2):
        for c in range(a.shape[1]):
            out[i, c] = log_tail(a[i, c], fires[i, c], true[c], n[c], bound)


@njit(nogil=True)
def _stratified(a, fires, true, n, support, bound, first, out):
    latents, concepts, strata = a.shape
    work = np.empty((3, support))
    f, t, m = np.empty(strata, np.int64), np.empty(strata, np.int64), np.empty(strata, np.int64)
    for i in range(first, latents, 2):
        for c in range(concepts):
            used, count, mean = 0, 0, 0.0
            for s in range(strata):
                if 0 < true[c, s] < n[c, s] and 0 < fires[i, c, s] < n[c, s]:  # else only one table is possible
                    f[used], t[used], m[used] = fires[i, c, s], true[c, s], n[c, s]
                    count += a[i, c, s]
                    mean += f[used] * t[used] / m[used]
                    used += 1
            if used == 0:
                out[i, c] = math.nan
            elif used == 1:
                out[i, c] = log_tail(count, f[0], t[0], m[0], bound)
            elif bound < MEDIAN_RULE and count <= mean:
                out[i, c] = 0.0
            else:
                log_p = log_tail_of_sum(count, f[:used], t[:used], m[:used], work)
                out[i, c] = 1.0 if math.isnan(log_p) else log_p
