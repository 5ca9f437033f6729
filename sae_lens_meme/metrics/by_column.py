"""Columns of large sparse matrices: sums over some rows, sorting and leaving out, without copies of 8 bytes a value.

scipy and numpy make such copies of values, column numbers and places, several at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64, Real

from sae_lens_meme.jit import njit


def count_by_column(matrix: Any, rows: Int[np.ndarray, " rows"] | None = None) -> Int64[np.ndarray, " columns"]:
    """Stored values of each column in these rows (default all)."""
    return _count(matrix.indptr, matrix.indices, np.arange(matrix.shape[0]) if rows is None else rows, matrix.shape[1])


def sum_by_column(matrix: Any, weights: Real[np.ndarray, " n"]) -> Float64[np.ndarray, " columns"]:
    """`matrix.T @ weights`, to the last bit; rows of weight 0 are passed over."""
    return _sum(matrix.indptr, matrix.indices, matrix.data, weights.astype(np.float64), matrix.shape[1])


def squares_by_column(matrix: Any) -> Float64[np.ndarray, " columns"]:
    """Sum of the squares of each column."""
    return _squares(matrix.indices, matrix.data, matrix.shape[1])


@njit(nogil=True)
def _count(starts, columns, rows, width):
    found = np.zeros(width, np.int64)
    for row in rows:
        for j in range(starts[row], starts[row + 1]):
            found[columns[j]] += 1
    return found


@njit(nogil=True)
def _sum(starts, columns, values, weights, width):
    found = np.zeros(width)
    for row in range(len(weights)):
        if weights[row] != 0.0:
            for j in range(starts[row], starts[row + 1]):
                found[columns[j]] += values[j] * weights[row]
    return found


@njit(nogil=True)
def _squares(columns, values, width):
    found = np.zeros(width)
    for j in range(len(columns)):
        found[columns[j]] += values[j] * values[j]
    return found


@njit(nogil=True)
def sort_descending(starts, rows, values):
    """Sort each latent's activations in place, by one integer key: the bits of a positive float32 rise with it."""
    bits = values.view(np.uint32)
    for i in range(len(starts) - 1):
        low, high = starts[i], starts[i + 1]
        keys = np.empty(high - low, np.uint64)
        for j in range(low, high):
            keys[j - low] = (np.uint64(0xFFFFFFFF - bits[j]) << np.uint64(32)) | np.uint64(j - low)
        keys.sort()
        mine_rows, mine_values = rows[low:high].copy(), values[low:high].copy()
        for j in range(high - low):
            source = np.int64(keys[j] & np.uint64(0xFFFFFFFF))
            rows[low + j], values[low + j] = mine_rows[source], mine_values[source]


@njit(nogil=True)
def kept_rows(starts, rows, values, known):
    """Without the memes that are not known, in arrays of that size."""
    kept_starts = np.zeros_like(starts)
    for i in range(len(starts) - 1):
        kept_starts[i + 1] = kept_starts[i]
        for j in range(starts[i], starts[i + 1]):
            kept_starts[i + 1] += known[rows[j]]
    kept_rows, kept_values = np.empty(kept_starts[-1], rows.dtype), np.empty(kept_starts[-1], values.dtype)
    place = 0
    for j in range(len(rows)):
        if known[rows[j]]:
            kept_rows[place], kept_values[place] = rows[j], values[j]
            place += 1
    return kept_starts, kept_rows, kept_values
