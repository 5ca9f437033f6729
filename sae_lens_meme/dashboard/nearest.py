"""Nearest neighbours by cosine, exact, in blocks: memory does not grow with the square of what is compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int

from sae_lens_meme.metrics.directions import unit_rows

ROWS, COLUMNS = 1024, 4096
"""Vectors whose neighbours are sought together, and vectors that they are compared with at a time."""
Take = Callable[[slice], Float32[np.ndarray, "rows d"]]


def nearest(take: Take, n: int, k: int) -> tuple[Int[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Of each of `n` vectors the `k` others (all of them where there are fewer) that point most nearly the same way.

    Args:
        take: gives the vectors of a slice of them.

    Returns:
        Places and cosines, the nearest first; of equally near ones the first.
    """
    k = max(0, min(k, n - 1))
    where, best = np.zeros((n, k), dtype=np.int64), np.full((n, k), -np.inf, dtype=np.float32)
    for rows in _slices(n if k else 0, ROWS):
        mine = unit_rows(take(rows))
        for columns in _slices(n, COLUMNS):
            cosine = mine @ unit_rows(take(columns)).T
            _leave_out_itself(cosine, rows.start - columns.start)
            _merge(where[rows], best[rows], cosine, columns.start)
    return where, best


def _merge(where: np.ndarray, best: np.ndarray, cosine: np.ndarray, start: int) -> None:
    """Let what is nearer than the last of each row take its place."""
    k = best.shape[1]
    floor = best[:, -1]
    if cosine.shape[1] > k:
        floor = np.maximum(floor, np.partition(cosine, -k, axis=1)[:, -k])
    nearer = cosine >= floor[:, None]
    for row in np.flatnonzero(nearer.any(axis=1)):
        found = np.flatnonzero(nearer[row])
        values = np.concatenate([best[row], cosine[row, found]])
        order = np.argsort(-values, kind="stable")[:k]
        best[row], where[row] = values[order], np.concatenate([where[row], start + found])[order]


def _leave_out_itself(cosine: np.ndarray, offset: int) -> None:
    """`offset`: the column at which the first row stands."""
    places = np.arange(len(cosine)) + offset
    there = (places >= 0) & (places < cosine.shape[1])
    cosine[there, places[there]] = -np.inf


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
