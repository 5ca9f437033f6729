"""95 % interval of an AUROC: DeLong's where there is enough to estimate a variance from, Newcombe's where there is not.

With 8 true memes DeLong's interval holds the truth in .82 to .88 of all draws, and where all placements are alike it has no
width at all: its variance is estimated from the same few placements.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real, UInt8
from scipy import sparse

FEW = 20
"""With fewer true or fewer false memes (groups of memes, where they have any) the interval is Newcombe's."""
_Z = 1.959963984540054
_HALVINGS = 50


class Kinds(NamedTuple):
    """How many true and false memes are compared, by stratum: memes of one group count once."""

    true: Real[np.ndarray, "*columns strata"]
    false: Real[np.ndarray, "*columns strata"]

    @classmethod
    def of(
        cls,
        codes: UInt8[np.ndarray, "n columns"],
        strata: Int[np.ndarray, " n"],
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> Kinds:
        """From the codes of the memes: 1 false, 2 true."""
        n_strata = int(strata.max(initial=0)) + 1
        unit = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
        place = unit * n_strata + strata
        shape = (int(unit.max(initial=-1)) + 1) * n_strata
        member = sparse.csr_matrix((np.ones(len(codes)), (place, np.arange(len(codes)))), shape=(shape, len(codes)))
        counted = [
            ((member @ (codes == code)) > 0).reshape(-1, n_strata, codes.shape[1]).sum(axis=0).T for code in (2, 1)
        ]
        return cls(*counted)

    @property
    def least(self) -> Real[np.ndarray, " *columns"]:
        """Of the kind of which there are fewer, in the strata that have both."""
        both = (self.true > 0) & (self.false > 0)
        return np.minimum(np.where(both, self.true, 0).sum(axis=-1), np.where(both, self.false, 0).sum(axis=-1))

    @property
    def few(self) -> Bool[np.ndarray, " *columns"]:
        return self.least < FEW


def auroc_interval(
    value: Float[np.ndarray, "*columns"], error: Float[np.ndarray, "*columns"], kinds: Kinds
) -> tuple[Any, Any]:
    """Low and high.

    Args:
        value, error: as of `ranking.auroc`; the error NaN where it is not known.
        kinds: broadcasts against them.

    Returns:
        NaN where there is no value, or fewer than two memes of a kind.
    """
    low, high = delong_interval(value, error)
    few, least = (np.broadcast_to(of, value.shape) for of in (kinds.few, kinds.least))
    use = (few | np.isnan(error)) & ~np.isnan(value)
    if use.any():
        pairs, weighted = (np.broadcast_to(of, value.shape) for of in _sums(kinds))
        low, high = np.array(low), np.array(high)
        low[use], high[use] = _newcombe(value[use], pairs[use], weighted[use])
    enough = (least > 1) & ~np.isnan(value)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def delong_interval(value: Any, error: Any) -> tuple[Any, Any]:
    """Of an AUROC with this standard error, within 0 to 1; NaN stays NaN."""
    half = _Z * error
    return np.maximum(value - half, 0), np.minimum(value + half, 1)


def _sums(kinds: Kinds) -> tuple[np.ndarray, np.ndarray]:
    """Over strata: of the pairs, and of the pairs times (m + n) / 2 - 1."""
    m, n = (np.asarray(of, dtype=np.float64) for of in kinds)
    return (m * n).sum(axis=-1), (m * n * np.maximum((m + n) / 2 - 1, 0)).sum(axis=-1)


def _newcombe(value: np.ndarray, pairs: np.ndarray, weighted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Method 5 of Newcombe (2006, Statistics in Medicine 25, 559): the variance is that at the bound, not at the estimate.

    The bound t solves |value - t| = z sqrt(V(t)), V(t) Hanley and McNeil's with both counts at their mean. Strata, which
    weigh by their pairs, add up.
    """

    def beyond(t: np.ndarray) -> np.ndarray:
        spread = pairs + weighted * ((1 - t) / (2 - t) + t / (1 + t))
        return np.abs(value - t) > _Z * np.sqrt(t * (1 - t) * spread) / pairs

    bounds = []
    for end in (0.0, 1.0):
        outside, inside = np.full(value.shape, end), value.copy()
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            far = beyond(middle)
            outside, inside = np.where(far, middle, outside), np.where(far, inside, middle)
        bounds.append(inside)
    return bounds[0], bounds[1]
