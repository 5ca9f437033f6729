"""Vectors of unit length."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def unit_rows(x: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
    """Each at length 1; a row of zeros stays one."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)


def random_directions(n: int, d: int, seed: int | np.random.Generator) -> Float64[np.ndarray, "n d"]:
    """Directions of unit length, each equally likely."""
    return unit_rows(np.random.default_rng(seed).standard_normal((n, d)))
