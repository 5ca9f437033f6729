"""Mergeable sums from which every reconstruction number follows; memory O(d_in + d_sae), float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number

OUTLIER_SHARE, OUTLIER_RATIO = 0.01, 10


@dataclass(frozen=True, eq=False)
class Reference:
    """Mean and variance of each dimension over the train rows."""

    mean: Float64[np.ndarray, " d_in"]
    variance: Float64[np.ndarray, " d_in"]

    @classmethod
    def of(cls, batches: Iterable[Float[np.ndarray, "batch d_in"]]) -> Reference:
        """From batches; sums are taken around the first row, so that no digits are lost to a large mean."""
        n, start, first, second = 0, np.empty(0), np.empty(0), np.empty(0)
        for batch in batches:
            if n == 0:
                start = batch[0].astype(np.float64)
                first, second = np.zeros_like(start), np.zeros_like(start)
            centred = batch - start
            n, first, second = n + len(batch), first + centred.sum(0), second + (centred**2).sum(0)
        if n == 0:
            raise DataError("no rows to take a mean and a variance from")
        return cls(start + first / n, np.maximum(second / n - (first / n) ** 2, 0))

    @cached_property
    def share(self) -> Float64[np.ndarray, " d_in"]:
        """Each dimension's share of the total variance."""
        return self.variance / max(self.variance.sum(), np.finfo(float).tiny)

    @cached_property
    def outlier(self) -> Bool[np.ndarray, " d_in"]:
        """Dimensions with more than 1 % of the variance and more than 10 times the mean share."""
        return (self.share > OUTLIER_SHARE) & (self.share > OUTLIER_RATIO / len(self.share))


class Statistics:
    """Sums over rows; those of two disjoint sets of rows `merge` into those of their union."""

    def __init__(self, reference: Reference, d_sae: int):
        d_in = len(reference.mean)
        self.reference = reference
        self.n = self.l0 = self.n_cosine = self.n_fvu = 0
        self.cosine = self.fvu = self.cosine_mean = 0.0
        self.x, self.x2, self.error2 = np.zeros(d_in), np.zeros(d_in), np.zeros(d_in)  # x is taken from the train mean
        self.fired = np.zeros(d_sae, dtype=np.int64)

    def accumulate(
        self, x: Float[np.ndarray, "batch d_in"], x_hat: Float[np.ndarray, "batch d_in"], latents: Latents
    ) -> None:
        """Add a batch of embeddings, their reconstructions and their latents."""
        centred = x - self.reference.mean
        error2 = (x.astype(np.float64) - x_hat) ** 2
        self.n += len(x)
        self.x += centred.sum(0)
        self.x2 += (centred**2).sum(0)
        self.error2 += error2.sum(0)
        self._accumulate_rows(x, x_hat, (centred**2).sum(1), error2.sum(1))
        self.l0 += int(latents.l0.sum())
        self.fired += np.bincount(latents.csr().indices, minlength=len(self.fired))

    def merge(self, other: Statistics) -> Statistics:
        """Add the sums of other rows (of the same reference)."""
        for name in ("n", "l0", "n_cosine", "n_fvu", "cosine", "cosine_mean", "fvu", "x", "x2", "error2", "fired"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def finish(self) -> tuple[dict[str, Number], dict[str, str]]:
        """The numbers, None where undefined, and a reason for each None."""
        if self.n == 0:
            reason = "there are no such rows"
            return dict.fromkeys(_KEYS), dict.fromkeys(_KEYS, reason)
        scale = np.divide(1, self.reference.variance, out=np.zeros_like(self.x), where=self.reference.variance > 0)
        everywhere = np.ones_like(self.x)
        numbers: dict[str, Number] = {"n": self.n, "mse": float(self.error2.sum() / self.n)}
        for suffix, weights in (
            ("", everywhere),
            ("_zscored", scale),
            ("_without_outliers", everywhere * ~self.reference.outlier),
        ):
            numbers[f"explained_variance{suffix}"] = self._explained(self.error2, weights)
            numbers[f"explained_variance{suffix}_mean_predictor"] = self._explained(self.x2, weights)
        explained = numbers["explained_variance"]
        numbers["fvu"] = None if explained is None else 1 - explained
        numbers["fvu_per_sample"] = self.fvu / self.n_fvu if self.n_fvu else None
        numbers["cosine"] = self.cosine / self.n_cosine if self.n_cosine else None
        numbers["cosine_mean_predictor"] = self.cosine_mean / self.n_cosine if self.n_cosine else None
        numbers["l0"] = self.l0 / self.n
        numbers["dead_latents"] = int((self.fired == 0).sum())
        numbers["dead_share"] = float((self.fired == 0).mean())
        return numbers, {key: _REASONS[key.split("_")[0]] for key, value in numbers.items() if value is None}

    def _accumulate_rows(
        self,
        x: np.ndarray,
        x_hat: np.ndarray,
        variance: Float64[np.ndarray, " batch"],
        error: Float64[np.ndarray, " batch"],
    ) -> None:
        norms = np.linalg.norm(x, axis=1).astype(np.float64) * np.linalg.norm(x_hat, axis=1)
        dots = np.einsum("nd,nd->n", x.astype(np.float64), x_hat.astype(np.float64))
        self.cosine += float((dots[norms > 0] / norms[norms > 0]).sum())
        self.n_cosine += int((norms > 0).sum())
        of_mean = x @ self.reference.mean
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(self.reference.mean)
        self.cosine_mean += float(
            np.divide(of_mean, lengths, out=np.zeros_like(of_mean), where=lengths > 0)[norms > 0].sum()
        )
        self.fvu += float((error[variance > 0] / variance[variance > 0]).sum())
        self.n_fvu += int((variance > 0).sum())

    def _explained(self, error2: Float64[np.ndarray, " d_in"], weights: Float64[np.ndarray, " d_in"]) -> float | None:
        variance = self.x2 / self.n - (self.x / self.n) ** 2
        # A variance at the level of rounding is that of constant data.
        floor = 1e-12 * (self.x2 / self.n + self.reference.mean**2)
        total = float((np.where(variance > floor, variance, 0) * weights).sum())
        return None if total <= 0 else 1 - float((error2 / self.n * weights).sum()) / total


_REASONS = {
    "explained": "these rows do not vary in the dimensions that count, so that explained variance is undefined",
    "fvu": "these rows do not vary, so that a fraction of variance is undefined",
    "cosine": "every embedding or every reconstruction is zero, so that no cosine is defined",
}
_KEYS = [
    "n",
    "mse",
    "explained_variance",
    "explained_variance_mean_predictor",
    "explained_variance_zscored",
    "explained_variance_zscored_mean_predictor",
    "explained_variance_without_outliers",
    "explained_variance_without_outliers_mean_predictor",
    "fvu",
    "fvu_per_sample",
    "cosine",
    "cosine_mean_predictor",
    "l0",
    "dead_latents",
    "dead_share",
]
