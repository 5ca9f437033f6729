"""Permutations within groups: what a number is when only the group is known."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped


def permutation_within(
    groups: Shaped[np.ndarray, " n"], rng: np.random.Generator, order: Int[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, " n"]:
    """For each row a row of the same group, each once.

    Args:
        order: the rows in an order that does not depend on how they lie, such as by id; then neither does the draw.
    """
    to = np.arange(len(groups))
    order = to.copy() if order is None else order
    for group in np.unique(groups):
        rows = order[groups[order] == group]
        to[rows] = rng.permutation(rows)
    return to
