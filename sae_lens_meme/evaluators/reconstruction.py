"""How much of the embeddings the SAE reconstructs, on train and on held-out memes.

Fused CLIP embeddings have a few dimensions with most of the variance, so explained variance is given raw, z-scored
and without these dimensions, each beside the mean of the train memes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.decoding import reconstructed
from sae_lens_meme.evaluators.evidence import tracking
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.result import Measure, Number, Quantity, Result, Section
from sae_lens_meme.evaluators.rows import name_of_held_out
from sae_lens_meme.standardize import Moments, train_moments

OUTLIER_SHARE, OUTLIER_RATIO = 0.01, 10
ROUNDING = 1e-12
"""A variance that is a smaller share of the square is that of constant data."""
DENSITY_BINS = 50
STOCK = {
    "held_out/explained_variance": "metrics/explained_variance",
    "held_out/mse": "metrics/mse",
    "held_out/l0": "metrics/l0",
    "train/dead_latents": "sparsity/dead_features",
}
"""Numbers that mean what SAELens means by these names."""
COLUMNS = {
    "split": "train or held_out",
    "log10_density_from": "lower end of the bin: log10 of the share of memes that fire a latent",
    "log10_density_to": "upper end of the bin",
    "n_latents": "latents in the bin; those that never fire are in none",
}


_VARIANCE = "1 - squared error / total variance of the same rows (SAELens' metrics/explained_variance)"
_DEAD = "dimensions that do not vary there are left out"
_CONSTANT = "these rows do not vary in the dimensions that count, so that explained variance is undefined"
_NO_RATIO = "these rows do not vary, so that a fraction of variance is undefined"
_ZERO = "every embedding or every reconstruction is zero, so that no cosine is defined"
_MEAN = "control: the mean of the train memes in place of the reconstruction"
_OUTLIERS = "dimensions that hold more than 1 % of the train variance and more than 10 times the mean share"
_PLAIN = "mean_predictor"

QUANTITIES = (
    Quantity("n", "rows"),
    Quantity("mse", "squared error summed over dimensions, mean over rows (SAELens' convention)"),
    Quantity("explained_variance", _VARIANCE, _CONSTANT),
    Quantity("explained_variance_mean_predictor", _MEAN, _CONSTANT),
    Quantity(
        "explained_variance_zscored",
        f"{_VARIANCE}, each dimension divided by its std over the train rows; {_DEAD}",
        _CONSTANT,
    ),
    Quantity("explained_variance_zscored_mean_predictor", _MEAN, _CONSTANT),
    Quantity("explained_variance_without_outliers", f"{_VARIANCE}, without the {_OUTLIERS}", _CONSTANT),
    Quantity("explained_variance_without_outliers_mean_predictor", _MEAN, _CONSTANT),
    Quantity("fvu", "1 - explained_variance: the error of all rows over their variance", _CONSTANT),
    Quantity("fvu_per_sample", "mean of |x - x_hat|^2 / |x - train mean|^2 over rows that are not the mean", _NO_RATIO),
    Quantity("cosine", "of embedding and reconstruction, mean over rows where neither is zero", _ZERO),
    Quantity("cosine_mean_predictor", _MEAN, _ZERO),
    Quantity("l0", "latents that fire on a meme, mean over rows"),
    Quantity("dead_latents", "latents that fire on none of these rows"),
    Quantity("dead_share", "share of the latents that fire on none of these rows"),
)
SHOWN = {
    "explained_variance_zscored": "explained variance, z-scored",
    "explained_variance": "explained variance, raw",
    "explained_variance_without_outliers": "explained variance, outlier dimensions left out",
    "cosine": "cosine of embedding and reconstruction",
    "l0": "L0",
    "dead_latents": "latents that never fire",
}


class Reconstruction(Evaluator):
    """Error, explained variance, L0, density and dead latents, on train and on held-out memes.

    Held-out memes are the test rows, else the validation rows; without either these numbers are None.
    """

    name = "reconstruction"
    question = (
        "how much of the embeddings is reconstructed: raw, z-scored, without outlier dimensions, train and held-out"
    )
    control = "the mean of the train memes"

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        hook = hook_of(sae, embeddings, self.hook)
        train = embeddings.rows("train")
        reference = Reference(train_moments(embeddings, hook))
        split, held_out = embeddings.held_out()
        sums = {
            name: accumulate(sae, embeddings, latents, hook, rows, reference)
            for name, rows in (("train", train), ("held_out", held_out))
        }
        rows = {"train": f"{len(train)} train rows"}
        rows["held_out"] = f"{len(held_out)} {split} rows" if split else "no test or validation rows"
        found = {name: _measured(part, name, rows[name]) for name, part in sums.items()}
        shown = _shown(found, reference, latents.d_sae)
        measures = [*found["train"].values(), *shown.values(), *_of_outliers(reference)]
        table = pd.concat([density_histogram(part.fired, part.n, name) for name, part in sums.items()])
        memes = name_of_held_out(split)
        notes = ["mean: the mean of the train memes in place of the SAE."]
        notes += [tracking("l0", "L0"), tracking("dead_share", "The share of latents that never fire")]
        section = Section(f"Reconstruction, {memes}", " ".join(filter(None, notes)))
        table = table.reset_index(drop=True)
        return Result(self.name, section, tuple(measures), table, COLUMNS, _verdict(found, memes))

    def log_key(self, key: str) -> str:
        """SAELens' own names where a number means the same."""
        return STOCK.get(key, super().log_key(key))


def _measured(sums: Sums, split: str, rows: str) -> dict[str, Measure]:
    numbers, reason = sums.numbers(), None if sums.n else "there are no such rows"
    return {q.key: q(numbers.get(q.key), split, rows=rows, reason=reason) for q in QUANTITIES}


def _shown(found: dict[str, dict[str, Measure]], reference: Reference, d_sae: int) -> dict[str, Measure]:
    """The held-out measures; those of the printed table stand beside the same of train memes and of the mean."""
    held_out = found["held_out"]
    of = {"explained_variance_without_outliers": f" ({reference.outlier.sum()})", "dead_latents": f", of {d_sae}"}
    for key, label in SHOWN.items():
        controls = [found["train"][key].control("train memes")]
        if (rival := held_out.get(f"{key}_{_PLAIN}")) is not None:
            controls.append(rival.control("mean"))
        if any(number is not None for number in (held_out[key].value, *(control.value for control in controls))):
            held_out[key] = held_out[key].row(label + of.get(key, ""), *controls)
    return held_out


def _of_outliers(reference: Reference) -> list[Measure]:
    which = ", ".join(map(str, np.flatnonzero(reference.outlier))) or "none"
    return [
        Measure("outlier_dimensions", int(reference.outlier.sum()), f"{_OUTLIERS}: {which}"),
        Measure(
            "outlier_variance_share", reference.share[reference.outlier].sum(), f"of the train variance, in {_OUTLIERS}"
        ),
    ]


def _verdict(found: dict[str, dict[str, Measure]], memes: str) -> str | None:
    here, train = (found[split]["explained_variance_zscored"].value for split in ("held_out", "train"))
    mean = found["held_out"][f"explained_variance_zscored_{_PLAIN}"].value
    if here is None or train is None or mean is None:
        return None
    if here <= 0:
        return f"The SAE explains less of {memes} than their mean does (explained variance {here:.2f}, z-scored)."
    return (
        f"The SAE explains {here:.0%} of the variance of {memes} (z-scored; {train:.0%} of train memes, the mean "
        f"{round(mean, 2) + 0.0:.0%})."  # + 0.0: no -0%
    )


def accumulate(
    sae: Any, embeddings: Embeddings, latents: Latents, hook: str, rows: np.ndarray, reference: Reference
) -> Sums:
    """The sums over these rows, in batches."""
    sums = Sums(reference, latents.d_sae)
    for batch_rows, x, x_hat in reconstructed(sae, embeddings, latents, hook, rows):
        sums.add(x, x_hat, latents.rows(batch_rows))
    return sums


def density_histogram(fired: np.ndarray, n: int, split: str) -> pd.DataFrame:
    """Latents by log10 of the share of memes that fire them; those that never fire are in no bin."""
    if n == 0:
        return pd.DataFrame({"split": [], "log10_density_from": [], "log10_density_to": [], "n_latents": []})
    edges = np.linspace(np.log10(0.5 / n), 0, DENSITY_BINS + 1)
    counts, _ = np.histogram(np.log10(fired[fired > 0] / n), edges)
    columns = {"split": split, "log10_density_from": edges[:-1], "log10_density_to": edges[1:], "n_latents": counts}
    return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class Reference:
    """Mean and standard deviation of each dimension over the train rows, and the dimensions that dominate."""

    moments: Moments

    @cached_property
    def share(self) -> Float64[np.ndarray, " d_in"]:
        """Each dimension's share of the total variance."""
        variance = np.where(self.moments.dead, 0, self.moments.std**2)
        return variance / max(variance.sum(), np.finfo(float).tiny)

    @cached_property
    def outlier(self) -> Bool[np.ndarray, " d_in"]:
        """Dimensions with more than 1 % of the variance and more than 10 times the mean share."""
        return (self.share > OUTLIER_SHARE) & (self.share > OUTLIER_RATIO / len(self.share))


class Sums:
    """Sums over rows from which every number follows; memory O(d_in + d_sae), float64."""

    def __init__(self, reference: Reference, d_sae: int):
        d_in = len(reference.moments.mean)
        self.reference = reference
        self.n = self.l0 = self.n_cosine = self.n_fvu = 0
        self.cosine = self.fvu = self.along_mean = 0.0
        self.x, self.x2, self.error2 = np.zeros(d_in), np.zeros(d_in), np.zeros(d_in)  # x is taken from the train mean
        self.fired = np.zeros(d_sae, dtype=np.int64)

    def add(self, x: Float[np.ndarray, "batch d_in"], x_hat: Float[np.ndarray, "batch d_in"], latents: Latents) -> None:
        """Add a batch of embeddings, their reconstructions and their latents."""
        x, x_hat = x.astype(np.float64), x_hat.astype(np.float64)  # the square of 1e20 is no float32
        centred = x - self.reference.moments.mean
        variance, error = centred**2, (x - x_hat) ** 2
        self.n += len(x)
        self.x += centred.sum(0)
        self.x2 += variance.sum(0)
        self.error2 += error.sum(0)
        length, length_hat = np.linalg.norm(x, axis=1), np.linalg.norm(x_hat, axis=1)
        some = (length > 0) & (length_hat > 0)
        self.cosine += float((np.einsum("nd,nd->n", x, x_hat)[some] / length[some] / length_hat[some]).sum())
        self.along_mean += float((x[some] @ self.reference.moments.mean / length[some]).sum())
        self.n_cosine += int(some.sum())
        vary = variance.sum(1) > ROUNDING * length**2
        self.fvu += float((error.sum(1)[vary] / variance.sum(1)[vary]).sum())
        self.n_fvu += int(vary.sum())
        self.l0 += int(latents.l0.sum())
        self.fired += np.bincount(latents.csr().indices, minlength=len(self.fired))

    def numbers(self) -> dict[str, Number]:
        """By key of `QUANTITIES`; None where undefined, none without rows."""
        if self.n == 0:
            return {}
        moments = self.reference.moments
        scale = np.where(moments.dead, 0, 1 / moments.std**2)
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
        if length := float(np.linalg.norm(moments.mean)) * self.n_cosine:
            numbers["cosine_mean_predictor"] = self.along_mean / length
        numbers["l0"] = self.l0 / self.n
        numbers["dead_latents"] = int((self.fired == 0).sum())
        numbers["dead_share"] = float((self.fired == 0).mean())
        return numbers

    def _explained(self, error2: Float64[np.ndarray, " d_in"], weights: Float64[np.ndarray, " d_in"]) -> float | None:
        variance = self.x2 / self.n - (self.x / self.n) ** 2
        floor = ROUNDING * (self.x2 / self.n + self.reference.moments.mean**2)
        total = float((np.where(variance > floor, variance, 0) * weights).sum())
        return None if total <= 0 else 1 - float((error2 / self.n * weights).sum()) / total
