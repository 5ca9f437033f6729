"""What is audited: each class of each label's probe, with its logit, its threshold, and the rows that choose and measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.classifiers import Probe, Task
from sae_lens_meme.evaluators.contest.units import ranked
from sae_lens_meme.metrics.contingency import FALSE, TRUE
from sae_lens_meme.metrics.ranking import best_f1


@dataclass(frozen=True, eq=False)
class AuditQuestion:
    """One class of a probe against the others: `hate=1`.

    Of two classes the second. Of more, the logit is that of the class minus the mean logit of all: a number that is
    added to every logit changes no probability.
    """

    name: str
    task: Task
    true: Bool[np.ndarray, " n"]
    """Of all memes; it means something where the label is known."""
    logits: Float64[np.ndarray, " n"]
    coef: Float64[np.ndarray, " d_in"]
    threshold_rows: Int[np.ndarray, " t"]
    threshold_split: str
    """validation, or train where no validation meme is true or validation memes measure."""
    threshold: float
    """The logit from which a meme is flagged: the best F1 on these rows."""
    selection: Int[np.ndarray, " s"]
    """Train and validation rows whose label is known, without those that measure."""

    @property
    def test(self) -> Int[np.ndarray, " h"]:
        return self.task.held_out


def questions_of(
    tasks: Sequence[Task], probes: Sequence[Probe], embeddings: Embeddings, hook: str
) -> list[AuditQuestion]:
    """Of every task that has rows to measure on."""
    asked = [
        (task, value, coef, bias)
        for task, probe in zip(tasks, probes, strict=True)
        if task.split is not None
        for value, coef, bias in _classes(probe)
    ]
    if not asked:
        return []
    weights, biases = np.stack([coef for _, _, coef, _ in asked], axis=1), np.array([bias for *_, bias in asked])
    logits = np.empty((len(embeddings), len(asked)))
    for rows, batch in embeddings.batches(hook):
        logits[rows] = batch.astype(np.float64) @ weights + biases
    parts = zip(asked, logits.T, strict=True)
    return [_question(embeddings, task, value, coef, of) for (task, value, coef, _), of in parts]


def _classes(probe: Probe) -> list[tuple[Any, np.ndarray, float]]:
    """Value of the class, weights and bias."""
    if len(probe.coef) == 1:
        return [(probe.classes[1], probe.coef[0], float(probe.intercept[0]))]
    coef, bias = probe.coef - probe.coef.mean(axis=0), probe.intercept - probe.intercept.mean()
    return [(value, coef[c], float(bias[c])) for c, value in enumerate(probe.classes)]


def _question(
    embeddings: Embeddings, task: Task, value: Any, coef: np.ndarray, logits: Float64[np.ndarray, " n"]
) -> AuditQuestion:
    true = task.label.known & (task.label.values == value)
    known = np.flatnonzero(task.label.known)
    selection = known[np.isin(embeddings.splits[known], ("train", "validation")) & ~np.isin(known, task.held_out)]
    validation = selection[embeddings.splits[selection] == "validation"]
    split = "validation" if true[validation].any() else "train"
    rows = validation if split == "validation" else task.train
    codes = np.where(true[rows], TRUE, FALSE).astype(np.uint8)[:, None]
    threshold = float(best_f1(ranked(logits[rows, None]), codes).threshold[0, 0])
    logits = np.ascontiguousarray(logits)
    return AuditQuestion(f"{task.name}={value}", task, true, logits, coef, rows, split, threshold, selection)
