"""What is measured: the memes with their unit embeddings at the reference hooks, streamed from disk, and their activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from scipy import sparse

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity.kernels import add_by_stratum, pair_weights, row_products
from sae_lens_meme.hook_columns import require_finite
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED

BATCH = 2_048  # rows: 6 MB of 768 float32 stay in cache while all latents pass over them
ROUNDING = 1e-6
"""An activation that varies by less than this share of itself does not vary: a sum in float32 is no more exact."""
CROSS_MODAL = "cross_modal"

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Panel:
    """n memes, their strata (sources), and what is needed of their embeddings beside the embeddings themselves.

    Of each hook: 1 / norm of every row and the sum of the unit vectors of each stratum. A pair (i, j) of hooks is a
    reference: i = j compares embeddings of one hook, i != j the one side of a meme with the other side of another.
    """

    reference: Embeddings
    rows: Int[np.ndarray, " n"]
    """Of the memes."""
    reference_rows: Int[np.ndarray, " n"]
    """Of the same memes in `reference`."""
    ids: np.ndarray
    strata: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    """As `Embeddings.groups`, without gaps."""
    hooks: tuple[str, ...]
    pairs: dict[str, Pair]
    inverse_norm: Float64[np.ndarray, "hooks n"]
    sums: list[Float64[np.ndarray, "strata d"]]
    diagonal: Float64[np.ndarray, "pairs n"]
    """Cosine of the two embeddings of one meme: 1 for a hook with itself."""
    n_zero_norm: int

    @classmethod
    def of(
        cls,
        embeddings: Embeddings,
        rows: Int[np.ndarray, " n"],
        reference: Embeddings | None,
        hooks: Sequence[str],
    ) -> Panel:
        """Memes with a zero vector at any hook are left out and counted. Each hook is a reference, and where image and
        text embeddings are in one space also `cross_modal`.

        Args:
            rows: memes of `embeddings`, ascending.
            reference: embeddings of the same memes in any order; default `embeddings`.

        Raises:
            DataError: a meme is not in `reference`, or fewer than two are left.
            NonFiniteError: an embedding is NaN or infinite.
        """
        at = rows if reference is None else aligned(embeddings, reference)[rows]
        reference = embeddings if reference is None else reference
        norm = np.stack([_norms(reference, hook, at) for hook in hooks])
        kept = (norm > 0).all(axis=0)
        if kept.sum() < 2:
            raise DataError(
                f"monosemanticity: {kept.sum()} of {len(rows)} memes have a vector that is not 0; 2 or more are needed"
            )
        rows, at = rows[kept], at[kept]
        strata, groups = (
            np.unique(codes[rows], return_inverse=True)[1] for codes in (embeddings.strata, embeddings.groups)
        )  # without gaps
        pairs = _pairs(reference, hooks)
        inverse = 1 / norm[:, kept]
        sums = [np.zeros((strata.max() + 1, reference.d_in(hook))) for hook in hooks]
        diagonal = np.ones((len(pairs), len(rows)))
        panel = cls(
            *(reference, rows, at, embeddings.ids[rows], strata, groups, tuple(hooks), pairs),
            *(inverse, sums, diagonal, int((~kept).sum())),
        )
        panel._fill()
        return panel

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_strata(self) -> int:
        return len(self.sums[0])

    @cached_property
    def n_groups(self) -> int:
        return int(self.groups.max()) + 1

    @cached_property
    def stratum_sizes(self) -> Int[np.ndarray, " strata"]:
        return np.bincount(self.strata, minlength=self.n_strata)

    def batches(self) -> Iterator[tuple[int, list[Float32[np.ndarray, "batch d"]]]]:
        """The place of the first row, and the embeddings at each hook, as they are on disk."""
        for first in range(0, len(self), BATCH):
            at = self.reference_rows[first : first + BATCH]
            yield first, [self.reference.take(hook, at) for hook in self.hooks]

    def units(self) -> Float32[np.ndarray, "hooks n d"]:
        """All unit vectors, padded with zeros to the widest hook."""
        out = np.zeros((len(self.hooks), len(self), max(s.shape[1] for s in self.sums)), np.float32)
        for first, batch in self.batches():
            for h, x in enumerate(batch):
                out[h, first : first + len(x), : x.shape[1]] = x * self.inverse_norm[h, first : first + len(x), None]
        return out

    def mean_cosine(self, name: str) -> float:
        """Of all pairs of different memes."""
        (i, j), n = self.pairs[name], len(self)
        return float((self.sums[i].sum(0) @ self.sums[j].sum(0) - self._diagonal(name).sum()) / (n * (n - 1)))

    def mean_cosine_by_stratum(self, name: str) -> Float64[np.ndarray, "strata strata"]:
        """Of all pairs of different memes, the first of one stratum, the second of another; 0 where there is no pair."""
        i, j = self.pairs[name]
        total, size = self.sums[i] @ self.sums[j].T, self.stratum_sizes
        total -= np.diag(np.bincount(self.strata, self._diagonal(name), minlength=self.n_strata))
        n_pairs = np.outer(size, size) - np.diag(size)
        return np.divide(total, n_pairs, out=np.zeros_like(total), where=n_pairs > 0)

    def _diagonal(self, name: str) -> Float64[np.ndarray, " n"]:
        return self.diagonal[list(self.pairs).index(name)]

    def _fill(self) -> None:
        for first, batch in self.batches():
            rows = slice(first, first + len(batch[0]))
            for h, x in enumerate(batch):
                add_by_stratum(x, self.inverse_norm[h, rows], self.strata[rows], self.sums[h])
            for p, (i, j) in enumerate(self.pairs.values()):
                if i != j:
                    row_products(batch[i], batch[j], self.diagonal[p, rows])
                    self.diagonal[p, rows] *= self.inverse_norm[i, rows] * self.inverse_norm[j, rows]


def cross_modal_problem(reference: Embeddings, hooks: Sequence[str]) -> str | None:
    """Why image-side and text-side embeddings cannot be compared with each other, if so."""
    if missing := [hook for hook in (IMAGE_EMBED, TEXT_EMBED) if hook not in hooks]:
        return f"{' and '.join(missing)} not among the reference hooks {', '.join(hooks)}"
    widths = [reference.d_in(hook) for hook in (IMAGE_EMBED, TEXT_EMBED)]
    if widths[0] != widths[1]:
        return f"{IMAGE_EMBED} has {widths[0]} dimensions and {TEXT_EMBED} {widths[1]}: they are not in one space"
    return None


def aligned(embeddings: Embeddings, reference: Embeddings) -> Int[np.ndarray, " n"]:
    """The row of each meme in `reference`.

    Raises:
        DataError: a meme is not in `reference`, or is there twice.
    """
    order = reference.by_id
    ids = reference.ids[order]
    if (twice := np.flatnonzero(ids[1:] == ids[:-1])).size:
        raise DataError(f"reference: id {str(ids[twice[0]])!r} is there twice; keep one row per meme")
    place = np.searchsorted(ids, embeddings.ids)
    missing = np.flatnonzero((place == len(ids)) | (ids[np.minimum(place, len(ids) - 1)] != embeddings.ids))
    if missing.size:
        raise DataError(
            f"reference: id {str(embeddings.ids[missing[0]])!r} (row {missing[0]}) is not in it, nor are "
            f"{missing.size - 1} others of {len(embeddings)}; embed the same memes with the reference encoder"
        )
    return order[place]


def _pairs(reference: Embeddings, hooks: Sequence[str]) -> dict[str, Pair]:
    pairs = {hook: (h, h) for h, hook in enumerate(hooks)}
    if cross_modal_problem(reference, hooks) is None:
        pairs[CROSS_MODAL] = (list(hooks).index(IMAGE_EMBED), list(hooks).index(TEXT_EMBED))
    return pairs


def _norms(reference: Embeddings, hook: str, rows: np.ndarray) -> Float64[np.ndarray, " rows"]:
    squares = np.empty(len(rows))
    for first, (part, x) in zip(range(0, len(rows), BATCH), reference.batches(hook, rows, BATCH), strict=True):
        require_finite(x, hook, reference.ids, part)
        row_products(x, x, squares[first : first + len(x)])
    return np.sqrt(squares)


@dataclass(frozen=True, eq=False)
class PanelUnits:
    """Activations as weights of n memes, once or twice (image side, text side), in one CSC pattern.

    `values[w]` are the weights of side w: (z - min) / (max - min) over the rows. The minimum is 0 unless a latent
    fires on every row.
    """

    indptr: Int[np.ndarray, " latents_1"]
    rows: Int[np.ndarray, " active"]
    values: Float64[np.ndarray, "sides active"]
    support: Int[np.ndarray, " latents"]
    """Rows on which the latent fires (of two sides, on the side where it fires less)."""
    constant: Bool[np.ndarray, " latents"]
    """Whether the latent fires on every row with one and the same activation, up to float32 (on either side)."""
    n: int

    @classmethod
    def of(cls, *sides: Latents) -> PanelUnits:
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
            *(pattern.indptr.astype(np.int64), pattern.indices.astype(np.int32), np.stack(values)),
            *(support, np.logical_or.reduce(constant), sides[0].n_samples),
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
        """One value per weight, summed by latent."""
        return _counted(self.column, values, self.n_latents)

    def summed_squares(
        self, values: Float64[np.ndarray, " active"], groups: Int[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " latents"]:
        """Sum over groups of memes of the square of the sum of their values."""
        if len(np.unique(groups)) == len(groups):
            return self.summed(values**2)
        shape = (self.n_latents, int(groups.max()) + 1)
        by_group = sparse.csr_matrix((values, (self.column, groups[self.rows])), shape=shape)  # adds up what meets
        return np.asarray(by_group.power(2).sum(axis=1)).ravel()

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
        return _counted(cell, values, self.n_latents * n_strata).reshape(self.n_latents, n_strata)

    def part(self, start: int, stop: int) -> PanelUnits:
        """The latents start : stop."""
        low, high = self.indptr[start], self.indptr[stop]
        active = (self.indptr[start : stop + 1] - low, self.rows[low:high], self.values[:, low:high])
        return PanelUnits(*active, self.support[start:stop], self.constant[start:stop], self.n)


def _counted(places: Int[np.ndarray, " n"], values: np.ndarray, size: int) -> Float64[np.ndarray, " size"]:
    """numpy counts nothing at all in whole numbers."""
    return np.bincount(places, values, minlength=size).astype(np.float64, copy=False)


def _scaled(active: Any) -> tuple[Any, Bool[np.ndarray, " latents"]]:
    """(z - min) / (max - min) of each latent in float64, and whether max = min > 0 up to rounding."""
    low, high = (m.toarray().ravel().astype(np.float64) for m in (active.min(axis=0), active.max(axis=0)))
    column = np.repeat(np.arange(active.shape[1]), np.diff(active.indptr))
    span = high - low
    constant = (span <= ROUNDING * high) & (high > 0)
    data = np.where(constant[column], 0.0, (active.data - low[column]) / np.where(span > 0, span, 1.0)[column])
    return sparse.csc_matrix((data, active.indices, active.indptr), active.shape), constant
