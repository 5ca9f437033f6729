"""Units that no SAE trained: raw dimensions, principal and independent components, both signs of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA, FastICA
from sklearn.preprocessing import StandardScaler

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.latents import Latents

FIT_ROWS = 20_000
"""Components are fitted on at most this many train rows."""

FITS: dict[str, Callable[[int], Any]] = {
    "neurons": lambda seed: StandardScaler(),
    "pca": lambda seed: PCA(whiten=True, random_state=seed),
    "ica": lambda seed: FastICA(whiten="unit-variance", random_state=seed, max_iter=500),
}
"""Each scales its directions to unit variance on the rows it is fitted on."""


def directions(
    embeddings: Embeddings, hook: str, l0: Int[np.ndarray, " n"], kind: str = "neurons", seed: int = 0
) -> Latents:
    """d directions of the embedding as 2 d units: unit j is the positive part of direction j, unit d + j the negative.

    Of each meme the `l0` units with the largest |value| fire (at most d), so that they are compared at the
    SAE's sparsity. Fitted on train rows (on all rows where there are none).

    Args:
        l0: how many units fire on each meme.
        kind: `neurons`, `pca` or `ica`.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in FITS:
        raise ConfigError(f"directions {kind!r} are none of {', '.join(FITS)}")
    rows = embeddings.rows("train") if len(embeddings.rows("train")) else np.arange(len(embeddings))
    if len(rows) > FIT_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, FIT_ROWS, replace=False))
    fitted = FITS[kind](seed).fit(embeddings.take(hook, rows))
    parts = [_signed(fitted.transform(batch), l0[batch_rows]) for batch_rows, batch in embeddings.batches(hook)]
    k = max(indices.shape[1] for indices, _ in parts)
    indices, values = (np.vstack([_widened(part[i], k) for part in parts]) for i in (0, 1))
    n_directions = len(getattr(fitted, "components_", range(embeddings.d_in(hook))))  # a scaler has none
    return Latents(indices.astype(np.int32), values.astype(np.float32), 2 * n_directions)


def _signed(z: Float[np.ndarray, "batch d"], l0: Int[np.ndarray, " batch"]) -> tuple[np.ndarray, np.ndarray]:
    """The l0 largest |z| of each row: their units and their sizes."""
    d = z.shape[1]
    k = int(min(l0.max(initial=0), d))
    size = np.abs(z)
    order = np.argpartition(-size, max(k - 1, 0), axis=1)[:, :k]
    by_size = np.argsort(-np.take_along_axis(size, order, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(order, by_size, axis=1)
    chosen = np.take_along_axis(z, order, axis=1)
    fires = (np.arange(order.shape[1]) < l0[:, None]) & (chosen != 0)
    indices = np.where(chosen > 0, order, d + order)
    return np.where(fires, indices, 0), np.where(fires, np.abs(chosen), 0)


def _widened(array: np.ndarray, k: int) -> np.ndarray:
    return np.pad(array, ((0, 0), (0, k - array.shape[1])))
