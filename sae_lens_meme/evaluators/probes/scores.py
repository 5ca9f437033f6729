"""Scores of predicted probabilities, undefined ones with a reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from sklearn.metrics import log_loss

from sae_lens_meme.evaluators.result import Number
from sae_lens_meme.metrics.ranking import auroc_of_scores

SCORES = ("auroc", "auroc_within_source", "balanced_accuracy", "accuracy", "log_loss")


def scores(
    classes: Sequence[Any], probabilities: Float64[np.ndarray, "n n_classes"], y: np.ndarray, sources: np.ndarray
) -> tuple[dict[str, Number], dict[str, str]]:
    """The scores of predicted probabilities, None where undefined, and a reason for each None.

    AUROC is that of the second of two classes; with more classes the mean of one class against the rest,
    over the classes that some but not all rows have. Within source only memes of one source are compared,
    and sources weigh by their number of (true, false) pairs.
    """
    if len(y) == 0:
        return dict.fromkeys(SCORES), dict.fromkeys(SCORES, "no known test or validation rows")
    order = np.array(classes, dtype=y.dtype)
    is_class = y[:, None] == order
    right = order[probabilities.argmax(1)] == y
    found: dict[str, Number] = {
        "auroc": _auroc(is_class, probabilities, np.zeros(len(y))),
        "auroc_within_source": _auroc(is_class, probabilities, sources),
        "balanced_accuracy": float(np.mean([right[mine].mean() for mine in is_class.T if mine.any()])),
        "accuracy": float(right.mean()),
        "log_loss": float(log_loss(is_class.argmax(1), probabilities, labels=range(len(classes)))),
    }
    why = {"auroc": f"all {len(y)} held-out rows are of one class"}
    why["auroc_within_source"] = f"the {len(y)} held-out rows of each source are of one class"
    return found, {key: reason for key, reason in why.items() if found[key] is None}


def _auroc(is_class: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> float | None:
    columns = [1] if is_class.shape[1] == 2 else range(is_class.shape[1])
    strata = np.unique(groups, return_inverse=True)[1]
    each = [float(auroc_of_scores(probabilities[:, c], is_class[:, c], strata)[0]) for c in columns]
    found = [value for value in each if not math.isnan(value)]
    return float(np.mean(found)) if found else None
