"""What each meme scores: the cross-modal weights of its active latents, and the scores to compare that with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from scipy import sparse
from scipy.stats import spearmanr

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.cross_modal.pairs import MemePairs, train_by_id
from sae_lens_meme.evaluators.cross_modal.weights import Weights
from sae_lens_meme.evaluators.latents import Latents, require_latents_of

CRITERIA = ("sum", "mean", "clip", "l0")


@dataclass(frozen=True, eq=False)
class ItemScores:
    """Scores of every meme of the embeddings, in their order; NaN where a meme has none."""

    ids: np.ndarray
    sources: np.ndarray
    train: Int[np.ndarray, " n_train"]
    """Rows of the train memes in ascending order of id: the memes to select from."""
    sum: Float64[np.ndarray, " n_samples"]
    """Sum of omega over the meme's active latents; those without a weight add nothing."""
    mean: Float64[np.ndarray, " n_samples"]
    """Mean of omega over the meme's active latents that have a weight: the sum grows with their number."""
    clip: Float64[np.ndarray, " n_samples"]
    """Cosine of the meme's own image and text embedding."""
    l0: Int[np.ndarray, " n_samples"]
    """Active latents of the meme."""
    groups: Int[np.ndarray, " n_samples"]
    """As `Embeddings.groups`."""

    def by(self, criterion: str) -> Float64[np.ndarray, " n_samples"]:
        """One of `CRITERIA`, the larger the better.

        Raises:
            DataError: there is no such score.
        """
        if criterion not in CRITERIA:
            raise DataError(f"score {criterion!r} is none of {', '.join(CRITERIA)}")
        return np.asarray(getattr(self, criterion), dtype=np.float64)


def item_scores(
    embeddings: Embeddings, latents: Latents, weights: Weights, *, pairs: MemePairs | None = None
) -> ItemScores:
    """s_i of Lou et al. 2025 (SAE-V) for every meme: the sum of omega over its active latents, and their mean.

    In SAE-V a latent counts for an item where it is active on both a text token and an image token of it. A fused
    embedding is of both at once: a latent counts where it is active. Weights are of the train memes, so that
    the scores of other memes are scores of memes that the weights have not seen.

    Args:
        pairs: what `MemePairs.of` made of these embeddings before.
    """
    require_latents_of(latents, embeddings)
    if latents.d_sae != len(weights.omega):
        raise DataError(f"{len(weights.omega)} weights do not fit latents of d_sae {latents.d_sae}")
    pairs = pairs or MemePairs.of(embeddings)
    fires = active(latents, weights.delta)
    total, mean = sums_of(fires, weights.omega[:, None])
    return ItemScores(
        ids=embeddings.ids,
        sources=embeddings.sources,
        train=train_by_id(embeddings),
        sum=total[:, 0],
        mean=mean[:, 0],
        clip=pairs.clip,
        l0=np.diff(fires.indptr),
        groups=embeddings.groups,
    )


def active(latents: Latents, delta: float) -> sparse.csr_matrix:
    """float64 [n, d_sae]: 1 where a latent exceeds delta."""
    z = latents.csr()
    fires = sparse.csr_matrix(((z.data > delta).astype(np.float64), z.indices, z.indptr), shape=z.shape, copy=delta > 0)
    if delta > 0:
        fires.eliminate_zeros()
    return fires


def sums_of(
    fires: sparse.csr_matrix, omega: Float64[np.ndarray, "d_sae columns"]
) -> tuple[Float64[np.ndarray, "n columns"], Float64[np.ndarray, "n columns"]]:
    """Sums and means over the active latents of each meme that have a weight, of several sets of weights at once."""
    known = ~np.isnan(omega)
    total, count = fires @ np.where(known, omega, 0.0), fires @ known.astype(np.float64)
    return total, np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, over the memes that have both; NaN where either is constant."""
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return float(spearmanr(x, y).statistic)  # type: ignore[attr-defined]
