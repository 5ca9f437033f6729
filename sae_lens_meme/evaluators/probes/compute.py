"""Fits, the choice of C, scores, and the same scores on resampled memes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8
from sklearn.metrics import log_loss

from sae_lens_meme.evaluators.classifiers import Probe, Task
from sae_lens_meme.evaluators.probes.quantities import AUROC, SCORES, WITHIN
from sae_lens_meme.evaluators.result import Number
from sae_lens_meme.metrics.ranking import auroc_of_scores
from sae_lens_meme.metrics.resampling import percentile_interval, permutation_within

Reader = Callable[[np.ndarray], Any]
"""From row numbers to what a probe reads of these memes."""
Weights = UInt8[np.ndarray, "n draws"]
"""Draw 0 is the memes as they are, the others are bootstrap samples."""
Draws = Float64[np.ndarray, " draws"]


class Prior:
    """Predicts the class frequencies of the train rows."""

    gradient_norm = C = None

    def __init__(self, y: np.ndarray):
        classes, counts = np.unique(y, return_counts=True)
        self.classes, self.n_train, self.frequencies = tuple(classes.tolist()), len(y), counts / counts.sum()

    def predict_proba(self, x: Any) -> Float64[np.ndarray, "n n_classes"]:
        return np.tile(self.frequencies, (x.shape[0], 1))


class Scored(NamedTuple):
    """Of a task and a space the scores, None where undefined with a reason."""

    task: Task
    space: str
    n_train: int | None
    n_classes: int
    gradient_norm: float | None
    C: float | None
    scores: dict[str, Number]
    reasons: dict[str, str]
    draws: dict[str, Draws]
    """Of the two AUROCs."""

    def interval(self, key: str) -> tuple[float, float] | None:
        """None for a score that is not resampled."""
        return ends(self.draws[key]) if key in self.draws else None


def choose(probes: Sequence[Probe], x: Any, y: np.ndarray, strata: Int[np.ndarray, " n"]) -> Probe:
    """The probe with the best AUROC within strata on these memes, pooled where no stratum has two classes; of equal ones the first."""
    found = []
    for probe in probes:
        is_class, p = _is_class(y, probe.classes), probe.predict_proba(x)
        within, pooled = (_mean_auroc(is_class, p, of)[0] for of in (strata, np.zeros_like(strata)))
        found.append(pooled if math.isnan(within) else within)
    return probes[int(np.argmax(np.nan_to_num(found)))]


def scored(
    task: Task,
    space: str,
    probes: Sequence[Probe | Prior],
    reader: Reader,
    strata: Int[np.ndarray, " n_samples"],
    weights: Weights,
) -> Scored:
    """Means over the probes: what is undefined is so for all of them, by the rows alone. One probe is also resampled."""
    x, y, strata = reader(task.held_out), task.label.values[task.held_out], strata[task.held_out]
    predicted = [probe.predict_proba(x) for probe in probes]
    found, reasons = zip(
        *(scores(probe.classes, p, y, strata) for probe, p in zip(probes, predicted, strict=True)), strict=True
    )
    why = {key: task.unmeasured or f"label {task.name!r}: {reason}" for key, reason in reasons[0].items()}
    means = {q.key: None if q.key in why else float(np.mean([f[q.key] for f in found])) for q in SCORES}
    norms = [probe.gradient_norm for probe in probes if probe.gradient_norm is not None]
    draws: dict[str, Draws] = {}
    if len(probes) == 1 and isinstance(probes[0], Probe) and len(y):
        is_class = _is_class(y, probes[0].classes)
        draws = {
            AUROC.key: _mean_auroc(is_class, predicted[0], np.zeros_like(strata), weights),
            WITHIN.key: _mean_auroc(is_class, predicted[0], strata, weights),
        }
    first = probes[0]
    return Scored(task, space, first.n_train, len(first.classes), max(norms, default=None), first.C, means, why, draws)


def scores(
    classes: Sequence[Any], probabilities: Float64[np.ndarray, "n n_classes"], y: np.ndarray, sources: np.ndarray
) -> tuple[dict[str, Number], dict[str, str]]:
    """The scores of predicted probabilities, None where undefined, and a reason for each None.

    AUROC is that of the second of two classes; with more classes the mean of one class against the rest,
    over the classes that some but not all rows have. Within source only memes of one source are compared,
    and sources weigh by their number of (true, false) pairs.
    """
    if len(y) == 0:
        return {q.key: None for q in SCORES}, {q.key: q.undefined for q in SCORES}
    is_class, strata = _is_class(y, classes), np.unique(sources, return_inverse=True)[1]
    right = is_class[np.arange(len(y)), probabilities.argmax(1)]
    pooled, within = (_mean_auroc(is_class, probabilities, of)[0] for of in (np.zeros_like(strata), strata))
    found: dict[str, Number] = {
        AUROC.key: None if math.isnan(pooled) else float(pooled),
        WITHIN.key: None if math.isnan(within) else float(within),
        "balanced_accuracy": float(np.mean([right[mine].mean() for mine in is_class.T if mine.any()])),
        "accuracy": float(right.mean()),
        "log_loss": float(log_loss(is_class.argmax(1), probabilities, labels=range(len(classes)))),
    }
    why = {AUROC.key: f"all {len(y)} held-out rows are of one class"}
    why[WITHIN.key] = f"the {len(y)} held-out rows of each source are of one class"
    return found, {key: reason for key, reason in why.items() if found[key] is None}


def ends(draws: Draws) -> tuple[float, float]:
    """95 % interval over the bootstrap samples; NaN without any."""
    low, high = percentile_interval(draws[1:]) if len(draws) > 1 else (np.nan, np.nan)
    return float(low), float(high)


def permute_within(
    values: np.ndarray, strata: np.ndarray, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """`values` shuffled among the entries of the same stratum, those of a group together."""
    return values[permutation_within(strata, rng, groups=groups)]


def _is_class(y: np.ndarray, classes: Sequence[Any]) -> Bool[np.ndarray, "n n_classes"]:
    return y[:, None] == np.array(classes, dtype=y.dtype)


def _mean_auroc(
    is_class: Bool[np.ndarray, "n n_classes"],
    probabilities: Float64[np.ndarray, "n n_classes"],
    strata: Int[np.ndarray, " n"],
    weights: Weights | None = None,
) -> Draws:
    """Over the classes of which it is defined; NaN where it is of none."""
    columns = [1] if is_class.shape[1] == 2 else range(is_class.shape[1])
    each = np.array([auroc_of_scores(probabilities[:, c], is_class[:, c], strata, weights) for c in columns])
    there = ~np.isnan(each)
    n = there.sum(axis=0)
    return np.where(n > 0, np.where(there, each, 0).sum(axis=0) / np.maximum(n, 1), np.nan)
