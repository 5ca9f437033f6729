"""Matching of latents by decoder cosine, agreement of firing, and whether significant latents are the stable ones.

The partner of a latent is given by the one-to-one matching with the largest sum of cosines (Hungarian algorithm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.stats import fisher_exact
from scipy.stats.contingency import odds_ratio
from statsmodels.stats.contingency_tables import StratifiedTable

from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.evaluators.latents import Latents, decoder_rows
from sae_lens_meme.metrics.directions import unit_rows
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

_TEMPERATURE, _ROUNDS = 0.02, 20  # of Sinkhorn's scaling
_NEARLY_SQUARE = 1.1
_MOMENT_ROUNDS = 6  # the variances are then right to 1e-4
_LOST = 1e-9
"""A variance below this share of the mean square is rounding: the activation does not vary."""
N_RATES = 5
"""Groups of latents of about equal firing rate."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Unit decoder rows of one SAE, and which of its latents take part."""

    rows: Float[np.ndarray, "d_sae d_in"]
    alive: Bool[np.ndarray, " d_sae"]
    """Fires on some meme (if latents are known), and has a direction."""


@dataclass(frozen=True, eq=False)
class Matching:
    """The partner of every latent; -1 and NaN for dead ones and for those that an SAE of fewer latents leaves over."""

    partner: Int[np.ndarray, " latents"]
    cosine: Float[np.ndarray, " latents"]
    nearest: Float[np.ndarray, " latents"]
    """Largest cosine with any latent of the other SAE: an upper bound of `cosine`."""


def directions_of(sae: Any, latents: Latents, scale: Float[np.ndarray, " d_in"] | float) -> Directions:
    """Decoder rows in the space of the embeddings, each of norm 1.

    Args:
        latents: of the memes; those that fire on none are dead.
        scale: what each dimension is divided by first, such as its standard deviation.

    Raises:
        DataError: the latents are of another SAE.
        NonFiniteError: a decoder row is NaN or infinite.
    """
    if (bad := torch.nonzero(~sae.W_dec.isfinite().all(dim=1))).numel():
        raise NonFiniteError(
            f"decoder row {int(bad[0])} holds NaN or infinity ({len(bad)} such rows); train the SAE again"
        )
    rows = decoder_rows(sae)
    if latents.d_sae != len(rows):
        raise DataError(
            f"these are latents of an SAE with d_sae {latents.d_sae}, not {len(rows)}; encode with this SAE"
        )
    rows = rows / scale
    return Directions(unit_rows(rows).astype(np.float32), rows.any(axis=1) & (np.diff(latents.csc().indptr) > 0))


def random_like(directions: Directions, rng: np.random.Generator) -> Directions:
    """Unit rows that share nothing with these but their mean and covariance.

    Gaussian draws brought to norm 1, with the mean and covariance of the Gaussian chosen so that those of the unit rows
    are right. Where a few dimensions hold most of the variance, directions that share nothing but these
    dimensions have large cosines: isotropic directions, or a random rotation, would hide that.
    """
    mine = directions.rows[directions.alive].astype(np.float64)
    if len(mine) == 0:
        return directions
    mean = mine.mean(axis=0)
    variance, axes = np.linalg.eigh((mine - mean).T @ (mine - mean) / len(mine))
    mean, variance = mean @ axes, np.maximum(variance, 0)
    noise = rng.standard_normal(mine.shape) @ axes  # in the axes of the covariance, whatever their signs
    centre, scale = mean, np.sqrt(variance)
    for _ in range(_MOMENT_ROUNDS):
        drawn = unit_rows(centre + noise * scale)
        centre = centre + mean - drawn.mean(axis=0)
        scale = scale * np.sqrt(variance / np.maximum(drawn.var(axis=0), 1e-12))
    rows = np.zeros_like(directions.rows)
    rows[directions.alive] = unit_rows(centre + noise * scale) @ axes.T
    return Directions(rows, directions.alive)


def match(these: Directions, others: Directions) -> Matching:
    """Match alive latents by the Hungarian algorithm on the cosines of their decoder rows."""
    partner = np.full(len(these.rows), -1)
    cosine, nearest = np.full(len(these.rows), np.nan), np.full(len(these.rows), np.nan)
    mine, theirs = np.flatnonzero(these.alive), np.flatnonzero(others.alive)
    if len(mine) and len(theirs):
        cosines = these.rows[mine] @ others.rows[theirs].T
        rows, columns = largest_sum(cosines)
        partner[mine[rows]], cosine[mine[rows]] = theirs[columns], cosines[rows, columns]
        nearest[mine] = cosines.max(axis=1)
    return Matching(partner, cosine, nearest)


def largest_sum(cosines: Float[np.ndarray, "n m"]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of `scipy.optimize.linear_sum_assignment(cosines, maximize=True)`: the same optimum, sooner.

    A constant added to a row or a column of a square matrix does not move the optimum, but the search is far shorter
    when these constants are near the dual solution; a few rounds of Sinkhorn's scaling give such ones (4,096
    anisotropic directions: 18 s without, 2 s with). A nearly square matrix is made square by rows of zeros.
    """
    n, m = cosines.shape
    if n > m:
        columns, rows = largest_sum(cosines.T)
        return rows, columns
    if m > _NEARLY_SQUARE * n:  # as many rows of zeros would be one large tie, and slower than nothing
        return linear_sum_assignment(cosines, maximize=True)
    square = np.zeros((m, m), cosines.dtype)
    square[:n] = cosines
    rows, columns = linear_sum_assignment(_shifted(square), maximize=True)
    return rows[:n], columns[:n]


def _shifted(square: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """With constants added to rows and columns."""
    largest = square.max(axis=1, keepdims=True)
    sharp = np.exp((square - largest) / np.float32(_TEMPERATURE))
    of_column = np.ones(len(square), square.dtype)
    of_row = of_column
    for _ in range(_ROUNDS):
        of_row = 1 / np.maximum(sharp @ of_column, 1e-30)
        of_column = 1 / np.maximum(sharp.T @ of_row, 1e-30)
    shifted = square.astype(np.float64) - largest + _TEMPERATURE * np.log(of_row)[:, None]
    shifted += _TEMPERATURE * np.log(of_column)
    return shifted


class Firing(NamedTuple):
    """Of each latent and its partner over all memes, NaN where there is none or it is constant."""

    jaccard: Float[np.ndarray, " latents"]
    """Memes that fire both over memes that fire one of them."""
    correlation: Float[np.ndarray, " latents"]
    """Pearson's, of the activations."""


def firing_agreement(these: Latents, others: Latents, partner: Int[np.ndarray, " latents"]) -> Firing:
    """Whether matched latents fire on the same memes."""
    mine = np.flatnonzero(partner >= 0)
    a: Any = sparse.csc_matrix(these.csc()[:, mine], dtype=np.float64)
    b: Any = sparse.csc_matrix(others.csc()[:, partner[mine]], dtype=np.float64)
    both = _sums((a > 0).multiply(b > 0))
    either = np.diff(a.indptr) + np.diff(b.indptr) - both
    spread = np.sqrt(_variance(a) * _variance(b))
    covariance = _sums(a.multiply(b)) - _sums(a) * _sums(b) / a.shape[0]
    n = len(partner)
    return Firing(_placed(both, either, mine, n), _placed(covariance, spread, mine, n))


def _sums(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def _variance(matrix: Any) -> np.ndarray:
    """Times the number of memes; 0 where it is lost in rounding."""
    squares = _sums(matrix.multiply(matrix))
    variance = squares - _sums(matrix) ** 2 / max(matrix.shape[0], 1)
    return np.where(variance > _LOST * squares, variance, 0.0)


def _placed(part: np.ndarray, whole: np.ndarray, mine: np.ndarray, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[mine] = np.divide(part, whole, out=np.full(len(mine), np.nan), where=whole > 0)
    return out


def significant_latents(found: pd.DataFrame | None, d_sae: int, alpha: float) -> Float[np.ndarray, " latents"]:
    """1 where some pair of the latent has q_global < alpha (corrected protocol), 0 where none has, NaN where none was tested.

    Raises:
        DataError: this is not a table of concept alignment under the corrected protocol, or is of another SAE.
    """
    if found is None or not {"latent", "q_global"} <= set(found.columns):
        raise DataError("stability: alignment has no columns latent and q_global; give the result of ConceptAlignment")
    table: Any = found[found["protocol"] == "corrected"] if "protocol" in found else found
    if len(table) == 0:
        raise DataError("stability: alignment has no rows of the corrected protocol; measure with protocol='corrected'")
    if int(table["latent"].max()) >= d_sae:
        raise DataError(f"stability: alignment has a latent {table['latent'].max()}, the SAE has d_sae {d_sae}")
    q = table.groupby("latent")["q_global"].min()
    values = np.full(d_sae, np.nan)
    values[q.index.to_numpy()] = q.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), np.nan, values < alpha)


class Estimate(NamedTuple):
    """With a 95 % interval; NaN where undefined, infinite where a kind of latent is missing."""

    value: float
    low: float
    high: float
    p: float = np.nan


UNDEFINED = Estimate(np.nan, np.nan, np.nan)


def rate_groups(rate: Float[np.ndarray, " latents"]) -> np.ndarray:
    """The quintile of each latent's firing rate; equal rates are in one group."""
    edges = np.quantile(rate, np.arange(1, N_RATES) / N_RATES) if len(rate) else []
    return np.searchsorted(edges, rate, side="left")


def exact_odds(yes: Bool[np.ndarray, " latents"], stable: Bool[np.ndarray, " latents"]) -> Estimate:
    """Odds ratio of being stable, conditional maximum likelihood with the exact interval, and Fisher's p."""
    table = _table(yes, stable)
    if not _has_margins(table):
        return UNDEFINED
    found: Any = odds_ratio(table)
    low, high = found.confidence_interval(0.95)
    return Estimate(found.statistic, low, high, fisher_exact(table).pvalue)  # type: ignore[attr-defined]


def stratified_odds(
    yes: Bool[np.ndarray, " latents"], stable: Bool[np.ndarray, " latents"], group: np.ndarray
) -> Estimate:
    """The same within groups: Mantel-Haenszel, interval of Robins, Breslow and Greenland, Cochran-Mantel-Haenszel p."""
    tables = [table for g in np.unique(group) if _has_margins(table := _table(yes[group == g], stable[group == g]))]
    if not tables:
        return UNDEFINED
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Any = StratifiedTable([table.astype(np.float64) for table in tables])
        low, high = found.oddsratio_pooled_confint()
        return Estimate(found.oddsratio_pooled, low, high, found.test_null_odds(correction=False).pvalue)


def mean_difference(
    yes: Bool[np.ndarray, " latents"],
    cosine: Float[np.ndarray, " latents"],
    group: np.ndarray,
    replicates: int,
    seed: int,
) -> Estimate:
    """Mean cosine of these minus that of other latents, within groups, with a bootstrap over latents."""
    known = ~np.isnan(cosine)
    cosine, cells = cosine[known], 2 * group[known] + yes[known]
    value = _mean_difference(np.ones(len(cells)), cells, cosine)
    if np.isnan(value) or not replicates:
        return Estimate(value, np.nan, np.nan)
    draws = [_mean_difference(w, cells, cosine) for w in bootstrap_weights(cells, replicates, seed)]
    return Estimate(value, *percentile_interval(np.array(draws)))


def _mean_difference(weights: np.ndarray, cells: np.ndarray, cosine: np.ndarray) -> float:
    """Groups weigh by n_1 n_0 / (n_1 + n_0); cells 2 g and 2 g + 1 are the two kinds of group g."""
    n = np.bincount(cells, weights, minlength=2 * N_RATES).reshape(-1, 2)
    means = np.bincount(cells, weights * cosine, minlength=2 * N_RATES).reshape(-1, 2) / np.maximum(n, 1)
    weight = n[:, 0] * n[:, 1] / np.maximum(n.sum(axis=1), 1)
    return float((weight * (means[:, 1] - means[:, 0])).sum() / weight.sum()) if weight.sum() > 0 else float("nan")


def _table(yes: np.ndarray, stable: np.ndarray) -> np.ndarray:
    """[[significant and stable, significant only], [stable only, neither]]"""
    return np.array([[(side & stable).sum(), (side & ~stable).sum()] for side in (yes, ~yes)])


def _has_margins(table: np.ndarray) -> bool:
    """Latents of both kinds, and both stable and other ones."""
    return bool((table.sum(axis=0) > 0).all() and (table.sum(axis=1) > 0).all())
