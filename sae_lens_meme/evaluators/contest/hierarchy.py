"""Absorption and splitting on a planted hierarchy: is the latent of the general value silent where a special one fires?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from sae_lens_meme.evaluators.contest.matched import Matched, best_units
from sae_lens_meme.evaluators.contest.targets import Rows, Targets
from sae_lens_meme.evaluators.contest.units import Units
from sae_lens_meme.metrics.contingency import TRUE

WORTH = 0.03
"""What a second unit must add to count (SAEBench's threshold for splits, there of F1)."""


class Absorption(NamedTuple):
    """For each special case, on test memes: how often the general value's latent is silent."""

    absorbed: Float64[np.ndarray, " cases"]
    """On memes of the case on which the case's own latent fires; NaN where there are none."""
    elsewhere: Float64[np.ndarray, " cases"]
    """On the other memes of the general value."""
    own: Float64[np.ndarray, " cases"]
    """1 where the case has a latent of its own, else 0: nothing can be absorbed then."""


def absorption(
    units: Units, best: Matched, cases: Targets, general: Int[np.ndarray, " cases"], targets: Targets, rows: Rows
) -> Absorption:
    """
    Args:
        best: the best unit of each of the targets.
        general: the target of which each case is one.
    """
    own = best_units(units, cases, rows).unit
    test = rows.test
    silent = units.take(best.unit[general])[test] == 0
    fires = units.take(own)[test] > 0
    case, value = cases.codes[test] == TRUE, targets.codes[test][:, general] == TRUE
    differs = own != best.unit[general]
    absorbed = _mean(silent, case & fires)
    return Absorption(np.where(differs, absorbed, np.nan), _mean(silent, value & ~case), differs.astype(float))


def split(
    one: Float64[np.ndarray, " targets"], two: Float64[np.ndarray, " targets"]
) -> Float64[np.ndarray, " targets"]:
    """1 where a probe on two units is better than one on one by more than WORTH, else 0."""
    return (two - one > WORTH).astype(np.float64)


def _mean(of: np.ndarray, where: np.ndarray) -> np.ndarray:
    n = where.sum(axis=0)
    return np.divide((of & where).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)
