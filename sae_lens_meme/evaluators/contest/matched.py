"""One unit per target: the best one, and one to one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Real, UInt8
from scipy.optimize import linear_sum_assignment

from sae_lens_meme.evaluators.contest.targets import Rows, Targets
from sae_lens_meme.evaluators.contest.units import Units, ranked
from sae_lens_meme.metrics.association import TRUE, UNKNOWN
from sae_lens_meme.metrics.ranking import auroc_of_scores, best_f1
from sae_lens_meme.metrics.threads import in_threads

Draws = Float64[np.ndarray, "draws targets"]
"""Draw 0 is the memes as they are, the others are bootstrap samples."""
Weights = Real[np.ndarray, "test draws"]


class Matched(NamedTuple):
    """A unit for each target, -1 where there is none, read with a sign."""

    unit: Int[np.ndarray, " targets"]
    sign: Float64[np.ndarray, " targets"]

    def columns(self, units: Units) -> Float64[np.ndarray, "n targets"]:
        """Activations, larger where the target is more likely; 0 without a unit."""
        return np.where(self.unit >= 0, units.take(np.maximum(self.unit, 0)) * self.sign, 0.0)


def best_units(units: Units, targets: Targets, rows: Rows) -> Matched:
    """The unit with the best AUROC on the memes that select; a dense direction is read with the better sign."""
    found = units.auroc(targets.codes, rows.strata, rows.selection)
    size = np.where(np.isnan(found), -1, np.maximum(found, 1 - found) if units.dense else found)
    best = size.argmax(axis=0)
    sign = np.where(units.dense & (found[best, np.arange(len(best))] < 0.5), -1.0, 1.0)
    return Matched(best, sign)


def one_to_one(units: Units, targets: Targets, rows: Rows) -> Matched:
    """The matching with the largest sum of |correlation| on the memes that select (Hungarian algorithm)."""
    found = correlations(units, targets, rows.strata, rows.selection)
    place, column = linear_sum_assignment(-np.abs(found))
    unit, sign = np.full(len(targets), -1), np.ones(len(targets))
    unit[column], sign[column] = place, np.where(found[place, column] < 0, -1.0, 1.0)
    return Matched(unit, sign)


def correlations(
    units: Units, targets: Targets, strata: Int[np.ndarray, " n"], rows: np.ndarray
) -> Float64[np.ndarray, "units targets"]:
    """Of activations and truth within strata on the memes of which the target is known, 0 where one of them is constant."""
    inside = np.zeros((len(strata), 1))
    inside[rows] = 1
    known = targets.codes != UNKNOWN
    if not known[rows].all():  # else one sum of the activations serves all targets
        inside = inside * known
    truth = (targets.codes == TRUE).astype(np.float64)
    covariance, variance, squares, of_truth = 0.0, 0.0, 0.0, 0.0
    for s in np.unique(strata[rows]):
        mine = inside * (strata == s)[:, None]
        n, true = np.maximum(mine.sum(axis=0), 1), (mine * truth).sum(axis=0)
        total, square = units.sums(mine), units.sums(mine, power=2)
        covariance = covariance + units.sums(mine * truth) - total * true / n
        variance, squares = variance + square - total**2 / n, squares + square
        of_truth = of_truth + true - true**2 / n
    return _correlation(covariance, variance, squares, of_truth)


def auroc_of(
    columns: Float64[np.ndarray, "n targets"], targets: Targets, rows: Rows, weights: Weights
) -> Float64[np.ndarray, "draws targets"]:
    """Within source on the test memes of which the target is known."""

    def of(c: int) -> np.ndarray:
        codes = targets.codes[rows.test, c]
        known = codes != UNKNOWN
        test = rows.test[known]
        return auroc_of_scores(columns[test, c], codes[known] == TRUE, rows.strata[test], weights[known])

    return np.stack(in_threads(of, range(len(targets))), axis=1)


def f1_of(columns: Float64[np.ndarray, "n targets"], targets: Targets, rows: Rows, weights: Weights) -> Draws:
    """Of `activation >= threshold` on test memes, the threshold with the best F1 on the memes that select."""
    fires = columns[rows.test] >= _thresholds(columns, targets.codes, rows.selection)
    codes, drawn = targets.codes[rows.test], weights.T.astype(np.float64)
    true, known = codes == TRUE, codes != UNKNOWN
    size = drawn @ (fires & known) + drawn @ true
    return np.divide(2 * drawn @ (fires & true), size, out=np.full(size.shape, np.nan), where=size > 0)


def _thresholds(
    columns: Float64[np.ndarray, "n targets"], codes: UInt8[np.ndarray, "n targets"], rows: np.ndarray
) -> Float64[np.ndarray, " targets"]:
    places = range(codes.shape[1])
    return np.array([best_f1(ranked(columns[rows, c : c + 1]), codes[rows, c : c + 1]).threshold[0, 0] for c in places])


def correlation_of(columns: Float64[np.ndarray, "n targets"], targets: Targets, rows: Rows, weights: Weights) -> Draws:
    """Of each column and its target within source on the test memes of which the target is known; 0 where the column is
    constant, NaN where the target is.

    The sign of a column was chosen before, so that a match that does not hold counts against it.
    """
    known = (targets.codes[rows.test] != UNKNOWN).astype(np.float64)
    x, y = columns[rows.test] * known, (targets.codes[rows.test] == TRUE).astype(np.float64)
    strata, covariance, of_x, squares, of_y = rows.strata[rows.test], 0.0, 0.0, 0.0, 0.0
    for s in np.unique(strata):
        mine = strata == s
        drawn = weights[mine].T.astype(np.float64)
        sum_x, sum_y, n = drawn @ x[mine], drawn @ y[mine], np.maximum(drawn @ known[mine], 1)
        covariance = covariance + drawn @ (x[mine] * y[mine]) - sum_x * sum_y / n
        square = drawn @ x[mine] ** 2
        of_x, squares = of_x + square - sum_x**2 / n, squares + square
        of_y = of_y + sum_y - sum_y**2 / n
    return np.where(of_y > 0, _correlation(covariance, of_x, squares, of_y), np.nan)


def _correlation(covariance: Any, of_x: Any, squares: Any, of_y: Any) -> np.ndarray:
    """0 where x, of which `squares` is the sum of squares, varies by no more than rounding, or y does not."""
    size = np.sqrt(np.where(of_x > 1e-10 * squares, of_x, 0) * of_y)
    return np.divide(covariance, size, out=np.zeros_like(size), where=size > 0)
