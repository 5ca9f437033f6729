"""Whether matched latents fire on the same memes."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae_lens_meme.evaluators.latents import Latents


def firing_agreement(
    these: Latents, others: Latents, partner: Int[np.ndarray, " latents"]
) -> dict[str, Float[np.ndarray, " latents"]]:
    """Of each latent and its partner over all memes, NaN where there is none or it is constant.

    `jaccard`: memes that fire both over memes that fire one of them; `correlation`: Pearson's of the activations.
    """
    mine = np.flatnonzero(partner >= 0)
    a: Any = sparse.csc_matrix(these.csc()[:, mine], dtype=np.float64)
    b: Any = sparse.csc_matrix(others.csc()[:, partner[mine]], dtype=np.float64)
    both = _sums((a > 0).multiply(b > 0))
    either = np.diff(a.indptr) + np.diff(b.indptr) - both
    spread = np.sqrt(_variance(a) * _variance(b))
    covariance = _sums(a.multiply(b)) - _sums(a) * _sums(b) / a.shape[0]
    return {
        "jaccard": _placed(both, either, mine, len(partner)),
        "correlation": _placed(covariance, spread, mine, len(partner)),
    }


def _sums(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def _variance(matrix: Any) -> np.ndarray:
    """Times the number of memes."""
    return np.maximum(_sums(matrix.multiply(matrix)) - _sums(matrix) ** 2 / max(matrix.shape[0], 1), 0)


def _placed(part: np.ndarray, whole: np.ndarray, mine: np.ndarray, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[mine] = np.divide(part, whole, out=np.full(len(mine), np.nan), where=whole > 0)
    return out
