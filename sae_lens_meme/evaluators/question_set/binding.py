"""Whether an interaction of picture and text binds one feature of each, or is what any product of two vectors shows.

Where the embedding is a product of both sides, neither side alone decides its directions, even of pure noise. What noise
does not have is structure in the interaction, which tables of many pictures x many texts show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from threadpoolctl import threadpool_limits

from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.question_set.compute import CLASSES, MAJORITY, TwoByTwo

MIN_MEMES = 5
"""Pictures, and texts, on which a latent must fire: a single picture with a few texts is one product by chance."""
ROUNDING = 1e-12
"""A share of the mean square at the level of float32's rounding is no interaction."""
LATENTS_PER_BLOCK = 256


class Concentration(NamedTuple):
    """With its 95 % interval, of each latent; NaN where it fires on too few memes or has no interaction."""

    value: Float64[np.ndarray, " m"]
    low: Float64[np.ndarray, " m"]
    high: Float64[np.ndarray, " m"]


class Crossed(NamedTuple):
    """Units where every picture of a table meets every text of it."""

    units: Latents
    """Table by table; in a table all texts of the first picture, then of the second, and so on."""
    shapes: Sequence[tuple[int, int]]
    """Pictures and texts of each table."""
    fused: Float32[np.ndarray, "cells d"]
    """What they read there."""


class Binding(NamedTuple):
    """Which cross-modal latents bind one feature of the picture to one of the text."""

    concentration: Concentration
    copied: Float64[np.ndarray, " m"]
    """See `share_of_one_dimension`."""
    copies: Bool[np.ndarray, " m"]
    """Concentrated, but reading mostly one dimension of the fused vector, in which the fusion binds two numbers itself."""
    binds: Bool[np.ndarray, " m"]
    """Concentrated (the whole interval above one half) and no copy."""


def binding_of(crossed: Crossed, effects: TwoByTwo) -> Binding:
    """Of the latents that `effects` classed."""
    found = concentration(crossed.units, crossed.shapes, effects.latents)
    copied = share_of_one_dimension(crossed.units, crossed.fused, effects.latents)
    concentrated = (effects.classes == CLASSES.index("cross-modal")) & (found.low > MAJORITY)
    copies = concentrated & (copied > MAJORITY)
    return Binding(found, copied, copies, concentrated & ~copies)


def concentration(
    crossed: Latents, shapes: Sequence[tuple[int, int]], latents: Int[np.ndarray, " m"] | None = None
) -> Concentration:
    """How much of a latent's interaction is one function of the picture times one of the text, 0 to 1.

    In a table of pictures x texts the interaction I, the activation without the means of its row and of its column, is
    a sum of products s_1 u_1(picture) w_1(text) + s_2 u_2(picture) w_2(text) + ..., its singular value decomposition
    (Gollob 1968; Mandel 1971). This is sum s^4 / (sum s^2)^2, which is 1 / (number of products) where they are equally
    large, and at most the share of the leading one (Johnson and Graybill's statistic, 1972): above one half, a single
    feature of the picture bound to a single feature of the text carries most of the interaction. a AND b, a OR b and
    a XOR b have 1. A linear unit sum w_j v_j t_j of a product of white d-dimensional v and t has
    sum w^4 / (sum w^2)^2: about 3 / d for a random direction, less behind a threshold: the noise floor. It is 1 for
    a single dimension, because there the fusion itself multiplies one number by one number, and a dictionary trained
    on enough noise finds these dimensions (products are sparse along them): `share_of_one_dimension` tells them apart.

    Estimated over all rectangles of two pictures a, c and two texts b, d: the sum of I_ab I_cd I_ad I_cb over the sum of
    I_ab^2 I_cd^2. The cells of a rectangle are distinct memes, so that noise of single memes is not taken for
    structure. It is 1 where every tetrad I_ab I_cd - I_ad I_cb vanishes (Spearman), and never more
    (Cauchy-Schwarz). Interval: jackknife over pictures plus jackknife over texts (Arvesen 1969).

    Args:
        crossed: table by table; in a table all texts of the first picture, then of the second, and so on.
        shapes: pictures and texts of each table.
        latents: default all.
    """
    latents = np.arange(crossed.d_sae) if latents is None else latents
    columns = crossed.csc()
    ends = np.cumsum([0, *(pictures * texts for pictures, texts in shapes)])
    found = [np.empty((3, 0))]
    for start in range(0, len(latents), LATENTS_PER_BLOCK):
        z = columns[:, latents[start : start + LATENTS_PER_BLOCK]].toarray().astype(np.float64).T
        tables = [z[:, a:b].reshape(len(z), *shape) for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]
        with threadpool_limits(1, user_api="blas"):  # many small products: threads would wait for each other
            found.append(_of_block(tables))
    return Concentration(*np.concatenate(found, axis=1))


def share_of_one_dimension(
    units: Latents, fused: Float32[np.ndarray, "cells d"], which: Int[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """max w^2 / sum w^2 of the direction w that a unit reads: its least-squares weights on the z-scored dimensions.

    For white noise sum w^4 / (sum w^2)^2 is at most this: where noise has a concentration above one half, a single
    dimension has more than half of the direction.

    Args:
        fused: the vectors that the units read.
    """
    x = fused - fused.mean(axis=0, dtype=np.float64)
    std = x.std(axis=0)
    x /= np.where(std > ROUNDING, std, 1)
    products = np.asarray(units.csc()[:, which].astype(np.float64).T @ x)
    ridge = 1e-6 * len(x) * np.eye(x.shape[1])  # dimensions may be copies of each other
    squares = np.linalg.solve(x.T @ x + ridge, products.T).T ** 2
    total = squares.sum(axis=1)
    return np.divide(squares.max(axis=1), total, out=np.full(len(which), np.nan), where=total > 0)


def _of_block(tables: Sequence[Float64[np.ndarray, "m pictures texts"]]) -> Float64[np.ndarray, "3 m"]:
    """Value, low and high."""
    interactions = [
        z - z.mean(1, keepdims=True) - z.mean(2, keepdims=True) + z.mean((1, 2), keepdims=True) for z in tables
    ]
    by_picture = [_rectangles(i) for i in interactions]
    by_text = [_rectangles(i.transpose(0, 2, 1)) for i in interactions]
    concordant, size = (np.sum([part[k].sum(axis=1) for part in by_picture], axis=0) for k in (0, 1))
    known = _fires_enough(tables) & (_mean_square(interactions) > ROUNDING * _mean_square(tables)) & (size > 0)
    value = np.divide(concordant, size, out=np.full(len(known), np.nan), where=known)
    parts = (*by_picture, *by_text)
    variance = np.sum([_jackknife(part, concordant, size, value, known) for part in parts], axis=0)
    half = 1.959963984540054 * np.sqrt(variance)
    return np.stack([value, value - half, np.minimum(value + half, 1)])


def _rectangles(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the sums over rectangles with it and another row: of the four cells' product, and of the squares."""
    squares = x**2
    same_column = squares @ squares.transpose(0, 2, 1)
    lengths = squares.sum(axis=2)
    concordant = (x @ x.transpose(0, 2, 1)) ** 2 - same_column
    size = lengths[:, :, None] * lengths[:, None, :] - same_column
    off_diagonal = ~np.eye(x.shape[1], dtype=bool)
    return (concordant * off_diagonal).sum(axis=2), (size * off_diagonal).sum(axis=2)


def _jackknife(
    part: tuple[np.ndarray, np.ndarray], concordant: np.ndarray, size: np.ndarray, value: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Variance from leaving out each row of one table in turn: the rectangles with it are counted from both its rows."""
    left_concordant, left_size = concordant[:, None] - 2 * part[0], size[:, None] - 2 * part[1]
    enough = known[:, None] & (left_size > ROUNDING * size[:, None])
    without = np.divide(left_concordant, left_size, out=np.tile(value[:, None], left_size.shape[1]), where=enough)
    n = max(without.shape[1], 1)
    return (n - 1) / n * ((without - without.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)


def _fires_enough(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Of each table the fewer of the two count: a picture with some texts there and a text with some pictures here are
    single products each."""
    fewer = [np.minimum(z.any(axis=2).sum(axis=1), z.any(axis=1).sum(axis=1)) for z in tables]
    return np.sum(fewer, axis=0) >= MIN_MEMES


def _mean_square(tables: Sequence[np.ndarray]) -> np.ndarray:
    return np.sum([(z**2).sum(axis=(1, 2)) for z in tables], axis=0) / sum(z[0].size for z in tables)
