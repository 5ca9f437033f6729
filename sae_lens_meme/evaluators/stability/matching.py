"""Which latent of another SAE is the same one: the one-to-one matching with the largest sum of decoder cosines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.influence.routes import decoder_rows
from sae_lens_meme.evaluators.latents import Latents

_TEMPERATURE, _ROUNDS = 0.02, 20  # of Sinkhorn's scaling
_NEARLY_SQUARE = 1.1
_MOMENT_ROUNDS = 6  # the variances are then right to 1e-4


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


def directions_of(
    sae: Any, latents: Latents | None = None, scale: Float[np.ndarray, " d_in"] | None = None
) -> Directions:
    """Decoder rows in the space of the embeddings, each of norm 1.

    Args:
        latents: of the memes; those that fire on none are dead.
        scale: what each dimension is divided by first, such as its standard deviation.
    """
    rows = decoder_rows(sae)
    if latents is not None and latents.d_sae != len(rows):
        raise DataError(
            f"these are latents of an SAE with d_sae {latents.d_sae}, not {len(rows)}; encode with this SAE"
        )
    rows = rows if scale is None else rows / scale
    fires = np.True_ if latents is None else np.diff(latents.csc().indptr) > 0
    return Directions(_unit(rows).astype(np.float32), rows.any(axis=1) & fires)


def random_like(directions: Directions, rng: np.random.Generator) -> Directions:
    """Unit rows that know no more of these than their mean and covariance.

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
        drawn = _unit(centre + noise * scale)
        centre = centre + mean - drawn.mean(axis=0)
        scale = scale * np.sqrt(variance / np.maximum(drawn.var(axis=0), 1e-12))
    rows = np.zeros_like(directions.rows)
    rows[directions.alive] = _unit(centre + noise * scale) @ axes.T
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


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


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
