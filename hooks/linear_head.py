"""A linear head on fused vectors, for the fusion that has no classifier of its own."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from sae_lens_meme.errors import DataError
from sae_lens_meme.hooks.sources import CachedEmbeddings

MAX_DEFAULT_CLASSES = 20  # a column with more values is a description (a file name, a date), not a label


def fit_linear_head(x: Float[np.ndarray, "n d"], y: np.ndarray) -> nn.Linear:
    """Logistic regression on standardised vectors, the standardisation folded into the layer.

    Two classes get the logits -z/2 and z/2: their softmax is the regression's probability.
    The order of the logits is that of the sorted classes of `y`.
    """
    scaler = StandardScaler().fit(x)
    # on these thin matrices BLAS threads wait for each other; the line search warns at the limit of float64
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = LogisticRegression(solver="newton-cg", tol=1e-8, max_iter=200).fit(scaler.transform(x), y)
    mean, scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    weight = probe.coef_.astype(np.float64) / scale
    return linear_head(weight, probe.intercept_ - weight @ mean)


def linear_head(weight: Float[np.ndarray, "outputs d"], bias: Float[np.ndarray, " outputs"]) -> nn.Linear:
    """A layer with one logit a class; a regression with one output z gets the logits -z/2 and z/2."""
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head.eval()


def labelled_rows(embeddings: CachedEmbeddings, task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a split whose label is known, and the labels.

    Raises:
        DataError: fewer than two classes among them.
    """
    label, rows = embeddings.label(task), embeddings.rows(split)
    rows = rows[label.known[rows]]
    classes = np.unique(label.values[rows]).tolist()
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no labelled rows"
        raise DataError(
            f"label {task!r} has {found} in split {split}; a classifier needs two classes, take another task"
        )
    return rows, label.values[rows]


def first_task(embeddings: CachedEmbeddings) -> str | None:
    """The first label that a classifier can be fitted to."""
    for name in embeddings.label_names:
        label, rows = embeddings.label(name), embeddings.rows("train")
        if 2 <= len(np.unique(label.values[rows][label.known[rows]])) <= MAX_DEFAULT_CLASSES:
            return name
    return None
