"""2 x 2 x strata tables of (latent fires) x (concept true), for all latents and concepts at once.

One sparse product a stratum counts only the activations that exist: O(non-zeros x concepts).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Real, UInt8
from scipy import sparse

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
        active: [n, latents] sparse; a latent fires where its value is above 0.
        codes: UNKNOWN, FALSE or TRUE for each meme and concept.
        strata: the stratum of each meme, 0, 1, ...
    """

    def __init__(self, active: Any, codes: UInt8[np.ndarray, "n concepts"], strata: Int[np.ndarray, " n"]):
        # float32 products are the fastest and exact below 2^24 memes
        dtype = np.float32 if len(codes) < 2**24 else np.float64
        active = sparse.csc_matrix(active)
        fires = (active.data > 0).astype(dtype)
        # scipy multiplies a CSR matrix from the left: the transpose of CSC shares its arrays
        transposed = sparse.csr_matrix((fires, active.indices, active.indptr), shape=active.shape[::-1])
        n_strata = int(strata.max(initial=0)) + 1
        self._rows = [np.flatnonzero(strata == s) for s in range(n_strata)]
        self._fires = [transposed] if n_strata == 1 else [transposed[:, rows] for rows in self._rows]
        self._flags = [np.hstack([codes[r] == TRUE, codes[r] != UNKNOWN]).astype(dtype) for r in self._rows]

    def count(self, weights: Real[np.ndarray, " n"] | None = None) -> Tables:
        """Tables in which each meme counts `weights` times (whole numbers, default once)."""
        products, margins = [], []
        for rows, fires, flags in zip(self._rows, self._fires, self._flags, strict=True):
            weighted = flags if weights is None else flags * weights[rows, None].astype(flags.dtype)
            products.append(fires @ weighted)
            margins.append(weighted.sum(axis=0, dtype=np.float64))
        fires_true, fires = _split(np.stack(products, axis=-1))
        true, n = _split(np.stack(margins, axis=-1)[None])
        return Tables(fires_true, fires, true[0], n[0])


def _split(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, known = np.split(counts.astype(np.int64), 2, axis=1)
    return true, known
