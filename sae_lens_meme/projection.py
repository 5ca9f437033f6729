"""Projection to two dimensions: UMAP (McInnes et al. 2018), or principal components where there are few points."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

FEWEST_FOR_UMAP = 16


def project(x: Float[np.ndarray, "n d"], *, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Points of the plane such that neighbours stay neighbours; distances between clusters mean nothing.

    Args:
        x: rows to place; none may be 0.
        seed: the same seed and library versions give the same points.
    """
    if len(x) < FEWEST_FOR_UMAP:
        return _principal(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value")  # a fixed seed needs one thread
        warnings.filterwarnings("ignore", module="umap.*")
        from umap import UMAP

        points = UMAP(random_state=seed, metric="cosine", n_neighbors=min(15, len(x) - 1), n_jobs=1).fit_transform(x)
    return np.asarray(points, dtype=np.float64)


def _principal(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    centred = np.asarray(x, dtype=np.float64) - np.mean(x, axis=0, dtype=np.float64) if len(x) else np.zeros((0, 2))
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(x), 2))
    points[:, : min(2, len(s))] = (u * s)[:, :2]
    return points
