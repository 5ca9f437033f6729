"""Permutations within strata: the value of a number when only the stratum is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped


def permutation_within(
    strata: Shaped[np.ndarray, " n"],
    rng: np.random.Generator,
    order: Int[np.ndarray, " n"] | None = None,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, " n"]:
    """For each row a row of the same stratum, each once.

    Memes of one group are not independent evidence, so groups move whole: one changes places with another that has as many
    memes in each stratum, its memes in their order. A group that matches no other stays where it is and keeps what
    it had: the draws of a null are then too close to what was observed, and a p is too large, never too small.

    Args:
        order: the rows in an order that does not depend on how they lie, such as by id; then neither does the draw.
        groups: the group of each row, default every row its own.
    """
    to = np.arange(len(strata))
    order = to.copy() if order is None else order
    for rows in _alike(strata, order, groups):
        to[rows] = rng.permutation(rows)
    return to


def _alike(strata: np.ndarray, order: np.ndarray, groups: np.ndarray | None) -> Iterator[np.ndarray]:
    """Rows of the groups that may change places, `[groups, memes]`; `[memes]` where each is its own group."""
    names, stratum = np.unique(strata, return_inverse=True)
    group, _ = pd.factorize((np.arange(len(strata)) if groups is None else groups)[order])
    alone = np.bincount(group)[group] == 1
    for s in range(len(names)):
        yield order[alone & (stratum[order] == s)]
    together = order[~alone]
    together = together[np.lexsort((stratum[together], group[~alone]))]
    code = np.sort(group[~alone])
    kinds: defaultdict[tuple[int, ...], list[np.ndarray]] = defaultdict(list)
    for rows in np.split(together, np.flatnonzero(np.diff(code)) + 1) if len(code) else ():
        kinds[tuple(stratum[rows])].append(rows)
    yield from (np.stack(kind) for kind in kinds.values())
