"""How directions share the dimensions they lie in: feature dimensionality and interference."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from sae_lens_meme.metrics.threads import in_threads

BLOCK = 512


class Geometry(NamedTuple):
    """Of each direction; NaN for a direction without length."""

    dimensionality: Float64[np.ndarray, " units"]
    mean_abs_cosine: Float64[np.ndarray, " units"]
    """With the others."""
    max_abs_cosine: Float64[np.ndarray, " units"]


def geometry(rows: Float[np.ndarray, "units d"]) -> Geometry:
    """Of directions of unit length: how long a row is and how large its activations are can be exchanged."""
    length = np.linalg.norm(rows, axis=1)
    some = length > 0
    found = np.full((3, len(rows)), np.nan)
    unit = rows[some]
    unit /= length[some, None]
    found[0, some] = feature_dimensionality(unit)
    if some.sum() > 1:
        found[1:, some] = interference(unit)
    return Geometry(*found)


def feature_dimensionality(rows: Float[np.ndarray, "units d"]) -> Float64[np.ndarray, " units"]:
    """|w_i|^2 / sum over j of (w_i . w_j / |w_i|)^2: the share of a dimension that each direction has to itself.

    1 for a direction that is orthogonal to all others, 1/2 for each of an antipodal pair. The sum over all is at most the
    rank (Elhage et al. 2022, "Toy Models of Superposition"). O(units x d^2): no matrix of units x units is made. NaN for a
    direction without length.
    """
    rows = np.asarray(rows, np.float64)
    square = np.einsum("ud,ud->u", rows, rows)
    shared = np.einsum("ud,ud->u", rows @ (rows.T @ rows), rows)
    return np.divide(square**2, shared, out=np.full(len(rows), np.nan), where=shared > 0)


def interference(unit: Float[np.ndarray, "units d"]) -> Float64[np.ndarray, "2 units"]:
    """Mean and largest |cosine| of each direction of unit length with the others; NaN for one alone."""
    narrow, n = np.ascontiguousarray(unit, np.float32), len(unit)
    if n < 2:
        return np.full((2, n), np.nan)

    def of(start: int) -> np.ndarray:
        cosines = narrow[start : start + BLOCK] @ narrow.T
        np.abs(cosines, out=cosines)
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = 0
        return np.stack([cosines.sum(axis=1, dtype=np.float64) / (n - 1), np.minimum(cosines.max(axis=1), 1)])

    return np.concatenate(in_threads(of, range(0, n, BLOCK)), axis=1)


def expected_abs_cosine(d: int) -> float:
    """Mean |cosine| of two random directions in d dimensions, Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2))."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)


def random_directions(n: int, d: int, seed: int) -> Float64[np.ndarray, "n d"]:
    """Directions of unit length, each equally likely."""
    drawn = np.random.default_rng(seed).standard_normal((n, d))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
