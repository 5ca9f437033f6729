"""2 x 2 x strata tables of (latent fires) x (concept true), for all latents and concepts at once.

One pass over the activations that exist: O(non-zeros x concepts).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Real, UInt8
from scipy import sparse

from sae_lens_meme.jit import njit

UNKNOWN, FALSE, TRUE = 0, 1, 2
"""Codes of a meme under a concept. Unknown memes are in no table."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Counts of latents x concepts x strata; the last axis is the stratum."""

    fires_true: Int[np.ndarray, "latents concepts strata"]
    fires: Int[np.ndarray, "latents concepts strata"]
    true: Int[np.ndarray, "concepts strata"]
    n: Int[np.ndarray, "concepts strata"]

    @cached_property
    def abcd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """fires & true, fires & false, silent & true, silent & false, by stratum: each [latents concepts strata]."""
        a, b, c = self.fires_true, self.fires - self.fires_true, self.true - self.fires_true
        return a, b, c, self.n - self.true - b

    @cached_property
    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same summed over strata: each [latents concepts]."""
        a, b, c, d = (count.sum(axis=-1) for count in self.abcd)
        return a, b, c, d


class Counter:
    """Counts tables again and again for the same memes under different weights.

    Args:
        active: [n, latents] sparse, best CSR; a latent fires where its value is above 0.
        codes: UNKNOWN, FALSE or TRUE for each meme and concept.
        strata: the stratum of each meme, 0, 1, ...
    """

    def __init__(self, active: Any, codes: UInt8[np.ndarray, "n concepts"], strata: Int[np.ndarray, " n"]):
        active = sparse.csr_matrix(active)
        if not (active.data > 0).all():
            active = (active > 0).tocsr()
        self._starts, self._latents, self._n_latents = active.indptr, active.indices, active.shape[1]
        self._flags = np.hstack([codes == TRUE, codes != UNKNOWN]).astype(np.int32)
        self._strata, self._n_strata = strata.astype(np.int64), int(strata.max(initial=0)) + 1

    def count(self, weights: Real[np.ndarray, " n"] | None = None) -> Tables:
        """Tables in which each meme counts `weights` times (whole numbers, default once)."""
        weights = np.ones(len(self._flags)) if weights is None else weights
        counts = np.zeros((self._n_strata, self._n_latents + 1, self._flags.shape[1]), np.int32)
        _count(self._starts, self._latents, self._flags, self._strata, weights.astype(np.int32), counts)
        halves = np.split(counts, 2, axis=2)
        fires_true, fires = (np.ascontiguousarray(half.transpose(1, 2, 0), dtype=np.int64) for half in halves)
        return Tables(fires_true[:-1], fires[:-1], fires_true[-1], fires[-1])


@njit(nogil=True)
def _count(starts, latents, flags, strata, weights, counts):
    """counts[stratum, latent, flag]; the last latent fires on every meme: the margins."""
    always = counts.shape[1] - 1
    for row in range(len(flags)):
        weight, s = weights[row], strata[row]
        if weight == 0:
            continue
        for c in range(flags.shape[1]):
            counts[s, always, c] += weight * flags[row, c]
        for j in range(starts[row], starts[row + 1]):
            latent = latents[j]  # outside the innermost loop, which then runs eight at a time
            for c in range(flags.shape[1]):
                counts[s, latent, c] += weight * flags[row, c]
