"""Probes: on the k units with the largest mean difference (Gurnee et al. 2023; SAEBench), and on the whole embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from sae_lens_meme.evaluators.contest.kernels import fit_few, logits_few
from sae_lens_meme.evaluators.contest.matched import Draws, Weights
from sae_lens_meme.evaluators.contest.targets import Rows, Targets
from sae_lens_meme.evaluators.contest.units import Units
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.logistic import fit_logistic
from sae_lens_meme.metrics.ranking import auroc_of_scores
from sae_lens_meme.metrics.threads import in_threads

FEW_C, WHOLE_C, DEFAULT_C = (0.01, 0.1, 1.0), (1e-3, 1e-2, 1e-1, 1.0), 1.0
"""Inverse penalties to choose from on validation: of units scaled to a root mean square of 1, of z-scored dimensions.

The last is DEFAULT_C, for where validation memes tell none from another."""
AT_ONCE = 8
"""Targets in one fit of whole-embedding probes."""


def mean_differences(units: Units, targets: Targets, rows: np.ndarray) -> Float64[np.ndarray, "units targets"]:
    """Mean activation on the true minus that on the false ones of these memes."""
    inside = np.zeros((len(targets.codes), 1), dtype=bool)
    inside[rows] = True
    return _mean(units, inside & (targets.codes == TRUE)) - _mean(units, inside & (targets.codes == FALSE))


def _mean(units: Units, of: Bool[np.ndarray, "n columns"]) -> Float64[np.ndarray, "units columns"]:
    return units.sums(of.astype(np.float64)) / np.maximum(of.sum(axis=0), 1)


def largest(size: Float[np.ndarray, " units"], k: int) -> Int[np.ndarray, " k"]:
    """The k largest, in descending order; of equal ones the first."""
    return np.argsort(-size, kind="stable")[:k]


def k_sparse(units: Units, targets: Targets, rows: Rows, ks: Sequence[int], weights: Weights) -> dict[int, Draws]:
    """AUROC within source on test memes of probes on k units, for each k.

    Units are chosen and probes fitted on train memes, the penalty is chosen on validation memes.
    """
    size = np.abs(mean_differences(units, targets, rows.train))

    def of(c: int) -> list[np.ndarray]:
        columns = units.take(largest(size[:, c], max(ks)))
        codes = targets.codes[:, c]
        test = rows.test[codes[rows.test] != UNKNOWN]
        drawn = weights[codes[rows.test] != UNKNOWN]
        truth = codes == TRUE
        found = (_scores(columns[:, :k], codes, rows) for k in ks)
        return [auroc_of_scores(scores[test], truth[test], rows.strata[test], drawn) for scores in found]

    found = in_threads(of, range(len(targets)))
    return {k: np.stack([of_target[i] for of_target in found], axis=1) for i, k in enumerate(ks)}


def _scores(columns: Float64[np.ndarray, "n k"], codes: np.ndarray, rows: Rows) -> Float64[np.ndarray, " n"]:
    train = rows.train[codes[rows.train] != UNKNOWN]
    x, y = columns[train], codes[train] == TRUE
    if columns.shape[1] == 1:  # every penalty leaves the same order: that of the mean difference
        return columns[:, 0] * (1.0 if x[y].mean() >= x[~y].mean() else -1.0)
    scale = np.sqrt((x**2).mean(axis=0))
    scale[scale == 0] = 1
    columns, x, weights = columns / scale, x / scale, np.zeros(columns.shape[1] + 1)
    scored = []
    for C in FEW_C if len(rows.validation) else (DEFAULT_C,):
        weights = fit_few(x, y, C, weights)
        scored.append(logits_few(columns, weights))
    return scored[_best(scored, codes, rows)]


def _best(scored: Sequence[np.ndarray], codes: np.ndarray, rows: Rows) -> int:
    """The place of the scores with the best AUROC on validation memes; the last where none is defined."""
    known = rows.validation[codes[rows.validation] != UNKNOWN]
    truth = codes[known] == TRUE
    found = [auroc_of_scores(scores[known], truth, rows.strata[known])[0] for scores in scored]
    return len(scored) - 1 if np.isnan(found).all() else int(np.nanargmax(found))


class LinearProbes(NamedTuple):
    """One logistic regression per target on the z-scored embedding; its two classes count the same."""

    coef: Float64[np.ndarray, "d_in targets"]
    intercept: Float64[np.ndarray, " targets"]

    def logits(self, z: Float[np.ndarray, "n d_in"]) -> Float64[np.ndarray, "n targets"]:
        return z.astype(np.float64) @ self.coef + self.intercept


def linear_probes(
    z: Float[np.ndarray, "n d_in"], targets: Targets, rows: Rows, at_most: int, seed: int
) -> LinearProbes:
    """Fitted on at most this many train memes, the penalty chosen on validation memes.

    The intercept is moved by the log odds of the target, so that 0 is the fair threshold for balanced classes.
    """
    known = targets.codes[rows.train] != UNKNOWN
    alike = np.unique(known, axis=1, return_inverse=True)[1].ravel()
    parts = [part for a in np.unique(alike) for part in _parts(np.flatnonzero(alike == a), AT_ONCE)]
    probes = LinearProbes(np.zeros((z.shape[1], len(targets))), np.zeros(len(targets)))

    def fit(part: np.ndarray) -> None:
        mine = rows.train[known[:, part[0]]]
        train = _thinned(mine, at_most, seed)
        if (targets.codes[np.ix_(train, part)] == targets.codes[train[0], part]).all(axis=0).any():
            train = mine  # a class was lost
        x, labels = z[train].astype(np.float64), [targets.codes[train, c] == TRUE for c in part]
        grid = WHOLE_C if len(rows.validation) else (DEFAULT_C,)
        fits = fit_balanced(x, labels, grid)
        validation = z[rows.validation].astype(np.float64)
        for i, c in enumerate(part):
            scored = [np.zeros(len(z)) for _ in grid]
            for scores, fitted in zip(scored, fits, strict=True):
                scores[rows.validation] = validation @ fitted.coef[:, i]
            chosen = fits[_best(scored, targets.codes[:, c], rows)]
            probes.coef[:, c], probes.intercept[c] = chosen.coef[:, i], chosen.intercept[i]

    in_threads(fit, parts)
    return probes


def fit_balanced(
    x: Float64[np.ndarray, "n d"], labels: Sequence[Bool[np.ndarray, " n"]], penalties: Sequence[float]
) -> list[LinearProbes]:
    """For each C minimise |w|^2 / (2 C) + sum of log losses for each label; intercepts as if its classes were equally many."""
    every = [C for C in penalties for _ in labels]
    fits = fit_logistic(x, [*labels] * len(penalties), np.array([False, True]), every)
    odds = np.array([np.log(y.sum() / (len(y) - y.sum())) for y in labels])
    coef = np.stack([fit.coef[0] for fit in fits], axis=1)
    intercept = np.array([fit.intercept[0] for fit in fits]) - np.tile(odds, len(penalties))
    of_C = [slice(i * len(labels), (i + 1) * len(labels)) for i in range(len(penalties))]
    return [LinearProbes(coef[:, one], intercept[one]) for one in of_C]


def _parts(places: np.ndarray, size: int) -> list[np.ndarray]:
    return [places[a : a + size] for a in range(0, len(places), size)]


def _thinned(rows: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    return rows if len(rows) <= at_most else np.sort(np.random.default_rng(seed).permutation(rows)[:at_most])
