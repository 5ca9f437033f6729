"""Activations as weights of memes: min-max scaled per latent over the rows, by latent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy import sparse

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity.kernels import pair_weights


@dataclass(frozen=True, eq=False)
class Units:
    """Scaled activations of the latents on n memes, once or twice (image side, text side), in one CSC pattern.

    `values[w]` are the weights of side w: (z - min) / (max - min) over the rows. The minimum is 0 unless a latent
    fires on every row.
    """

    indptr: Int[np.ndarray, " latents_1"]
    rows: Int[np.ndarray, " active"]
    values: Float64[np.ndarray, "sides active"]
    support: Int[np.ndarray, " latents"]
    """Rows on which the latent fires (of two sides, on the side where it fires less)."""
    constant: Bool[np.ndarray, " latents"]
    """Whether the latent fires on every row with one and the same activation (on either side)."""
    n: int

    @classmethod
    def of(cls, *sides: Latents) -> Units:
        """From the latents of the rows that are measured, of one side or two.

        Raises:
            DataError: the sides differ in memes or width.
        """
        if len({(side.n_samples, side.d_sae) for side in sides}) != 1:
            shapes = " and ".join(f"{side.n_samples} memes x {side.d_sae} latents" for side in sides)
            raise DataError(f"monosemanticity: the sides are {shapes}; give latents of the same memes and the same SAE")
        support = np.min([np.diff(side.csc().indptr) for side in sides], axis=0)
        scaled, constant = zip(*(_scaled(side.csc()) for side in sides), strict=True)
        pattern = scaled[0] if len(sides) == 1 else scaled[0] + 1j * scaled[1]  # one pattern for both: n_1 + i n_2
        values = [pattern.data.real] if len(sides) == 1 else [pattern.data.real, pattern.data.imag]
        return cls(
            pattern.indptr.astype(np.int64),
            pattern.indices.astype(np.int32),
            np.stack(values),
            support,
            np.logical_or.reduce(constant),
            sides[0].n_samples,
        )

    @property
    def n_latents(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def column(self) -> Int[np.ndarray, " active"]:
        """The latent of each weight."""
        return np.repeat(np.arange(self.n_latents), np.diff(self.indptr))

    @cached_property
    def total(self) -> Float64[np.ndarray, "sides latents"]:
        return np.stack([self.summed(values) for values in self.values])

    @cached_property
    def effective_support(self) -> Float64[np.ndarray, " latents"]:
        """(sum a)^2 / sum a^2: as many memes with equal weights would say as much (the smaller of two sides)."""
        squares = np.stack([self.summed(values**2) for values in self.values])
        return np.divide(self.total**2, squares, out=np.zeros_like(squares), where=squares > 0).min(axis=0)

    def summed(self, values: Float64[np.ndarray, " active"]) -> Float64[np.ndarray, " latents"]:
        """One value a weight, summed by latent."""
        return np.bincount(self.column, values, minlength=self.n_latents)

    def pair_weight(self, left: int, right: int) -> Float64[np.ndarray, " latents"]:
        """sum over n != m of a_n b_m, the denominator."""
        out = np.empty(self.n_latents)
        pair_weights(self.indptr, self.values[left], self.values[right], out)
        return out

    def by_stratum(
        self, values: np.ndarray, strata: np.ndarray, n_strata: int
    ) -> Float64[np.ndarray, "latents strata"]:
        """The same summed by latent and stratum of the row."""
        cell = self.column * n_strata + strata[self.rows]
        return np.bincount(cell, values, minlength=self.n_latents * n_strata).reshape(self.n_latents, n_strata)

    def part(self, start: int, stop: int) -> Units:
        """The latents start : stop."""
        low, high = self.indptr[start], self.indptr[stop]
        return Units(
            self.indptr[start : stop + 1] - low,
            self.rows[low:high],
            self.values[:, low:high],
            self.support[start:stop],
            self.constant[start:stop],
            self.n,
        )


def _scaled(active: Any) -> tuple[Any, Bool[np.ndarray, " latents"]]:
    """(z - min) / (max - min) of each latent in float64, and whether max = min > 0."""
    low, high = (m.toarray().ravel().astype(np.float64) for m in (active.min(axis=0), active.max(axis=0)))
    column = np.repeat(np.arange(active.shape[1]), np.diff(active.indptr))
    span = high - low
    data = (active.data - low[column]) / np.where(span > 0, span, 1.0)[column]
    scaled = sparse.csc_matrix((data, active.indices, active.indptr), active.shape)
    return scaled, (span == 0) & (high > 0)
