"""Reconstruction: how much of the embeddings the SAE gives back, on training and on held-out rows.

Fused CLIP embeddings have a few dimensions with most of the variance, so explained variance is given raw,
z-scored and without these dimensions, each beside the mean predictor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.reconstruction.reconstructed import reconstructed
from sae_lens_meme.evaluators.reconstruction.statistics import Reference, Statistics
from sae_lens_meme.evaluators.result import Number, Result

STOCK = {
    "held_out/explained_variance": "metrics/explained_variance",
    "held_out/mse": "metrics/mse",
    "held_out/l0": "metrics/l0",
    "train/dead_latents": "sparsity/dead_features",
}
"""Numbers that mean what SAELens means by these names."""
DENSITY_BINS = 50


class Reconstruction(Evaluator):
    """Error, explained variance, L0, density and dead latents, split train / held-out.

    Held-out rows are the test rows, else the validation rows; without either these numbers are None.
    """

    name = "reconstruction"

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        hook = hook_of(sae, embeddings, self.hook)
        train = embeddings.rows("train")
        if len(train) == 0:
            raise DataError("these embeddings have no train rows; reconstruction needs them for its mean and std")
        reference = Reference.of(batch for _, batch in embeddings.batches(hook, train))
        split, held_out_rows = embeddings.held_out()
        parts = {
            "train": accumulate(sae, embeddings, latents, hook, train, reference),
            "held_out": accumulate(sae, embeddings, latents, hook, held_out_rows, reference),
        }
        numbers: dict[str, Number] = {}
        reasons: dict[str, str] = {}
        for name, statistics in parts.items():
            found, why = statistics.finish()
            numbers |= {f"{name}/{key}": value for key, value in found.items()}
            reasons |= {f"{name}/{key}": reason for key, reason in why.items()}
        numbers |= {"outlier_dimensions": int(reference.outlier.sum())}
        numbers |= {"outlier_variance_share": float(reference.share[reference.outlier].sum())}
        table = pd.concat([density_histogram(part.fired, part.n, name) for name, part in parts.items()])
        return Result(
            self.name,
            numbers,
            reasons,
            table.reset_index(drop=True),
            _explain(reference, split, len(train), held_out_rows),
        )

    def log_key(self, key: str) -> str:
        """SAELens' own names where a number means the same."""
        return STOCK.get(key, super().log_key(key))


def accumulate(
    sae: Any, embeddings: Embeddings, latents: Latents, hook: str, rows: np.ndarray, reference: Reference
) -> Statistics:
    """The sufficient statistics of these rows, in batches."""
    statistics = Statistics(reference, latents.d_sae)
    for batch_rows, x, x_hat in reconstructed(sae, embeddings, latents, hook, rows):
        statistics.accumulate(x, x_hat, latents.rows(batch_rows))
    return statistics


def density_histogram(fired: np.ndarray, n: int, split: str) -> pd.DataFrame:
    """Latents by log10 of the share of memes that fire them; those that never fire are in no bin."""
    if n == 0:
        return pd.DataFrame({"split": [], "log10_density_from": [], "log10_density_to": [], "n_latents": []})
    edges = np.linspace(np.log10(0.5 / n), 0, DENSITY_BINS + 1)
    counts, _ = np.histogram(np.log10(fired[fired > 0] / n), edges)
    columns = {"split": split, "log10_density_from": edges[:-1], "log10_density_to": edges[1:], "n_latents": counts}
    return pd.DataFrame(columns)


def _explain(reference: Reference, split: str | None, n_train: int, rows: np.ndarray) -> dict[str, str]:
    which = ", ".join(map(str, np.flatnonzero(reference.outlier))) or "none"
    return {
        "train/*": f"{n_train} train rows; control mean_predictor: the train mean in place of the reconstruction (EV 0)",
        "held_out/*": f"{len(rows)} {split} rows" if split else "no test or validation rows",
        "*/n": "rows",
        "*/mse": "squared error summed over dimensions, mean over rows (SAELens' convention)",
        "*/*explained_variance*": "1 - mse / total variance of the same rows (SAELens' metrics/explained_variance); fvu is 1 minus it",
        "*/explained_variance_zscored*": "each dimension divided by its std over the train rows",
        "*/explained_variance_without_outliers*": (
            "without the dimensions that hold more than 1 % of the train variance and more than 10 times the mean share: "
            + which
        ),
        "*/*_mean_predictor": "control: the train mean in place of the reconstruction",
        "*/fvu": "1 - explained_variance: the error of all rows over their variance",
        "*/fvu_per_sample": "mean over rows of |x - x_hat|^2 / |x - train mean|^2",
        "*/cosine": "of embedding and reconstruction, mean over rows where neither is zero",
        "*/l0": "latents that fire on a meme, mean over rows",
        "*/dead_*": "latents that fire on none of these rows",
        "outlier_*": "dimensions that hold more than 1 % of the train variance and more than 10 times the mean share",
    }
