"""What is audited, of whom.

Questions are each class of each label's probe, with its logit, its threshold, and the rows that choose and measure. Subgroups
are the values of a label, the sources, or the memes whose caption holds one of some words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.classifiers import Probe, Task
from sae_lens_meme.evaluators.concepts import MAX_CLASSES
from sae_lens_meme.evaluators.contest.units import ranked
from sae_lens_meme.evaluators.naming.statements import normalise, token_pattern
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN
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


SOURCE, CAPTION = "source", "caption"


@dataclass(frozen=True, eq=False)
class Subgroup:
    """Some memes, the others, and those of which it is not known."""

    name: str
    column: str
    """A label, `source`, or `caption`."""
    codes: UInt8[np.ndarray, " n"]


def subgroups_of(
    embeddings: Embeddings, columns: Sequence[str] | None = None, words: Mapping[str, Sequence[str]] | None = None
) -> list[Subgroup]:
    """One subgroup per value of each column, then one per list of words.

    Args:
        columns: labels, or `source`; default `source` and every label with 2 to 10 values.
        words: name -> words or phrases; a caption that holds one of them is in the subgroup.

    Raises:
        DataError: there is no such label, or there are no captions.
        ConfigError: a subgroup without words.
    """
    found: list[Subgroup] = []
    for column in dict.fromkeys([*embeddings.label_names, SOURCE] if columns is None else columns):
        values = list(_values(embeddings, column))
        if columns is not None or 2 <= len(values) <= MAX_CLASSES:
            found += values
    for name, listed in (words or {}).items():
        if embeddings.texts is None:
            raise DataError("subgroups.words: these embeddings have no captions (no column 'text')")
        found.append(Subgroup(f"{CAPTION}={name}", CAPTION, caption_holds(embeddings.texts, name, listed)))
    times = Counter(subgroup.name for subgroup in found)
    return [s if times[s.name] == 1 else replace(s, name=f"{s.column!r}: {s.name}") for s in found]


def _values(embeddings: Embeddings, column: str) -> Iterator[Subgroup]:
    if column == SOURCE:
        known, values = np.ones(len(embeddings), dtype=bool), embeddings.sources
        classes = np.unique(values).tolist()
    else:
        label = embeddings.label(column)
        known, values, classes = label.known, label.values, label.classes
    for value in classes:
        yield Subgroup(f"{column}={value}", column, _codes(known, values == value))


def caption_holds(texts: np.ndarray, name: str, words: Sequence[str]) -> UInt8[np.ndarray, " n"]:
    """TRUE where a caption holds one of the words (whole words, whatever their case), UNKNOWN where there is no caption.

    Raises:
        ConfigError: no word is given, or one has no letter.
    """
    pattern = re.compile(token_pattern())
    wanted = [_tokens(word, pattern) for word in words]
    if not wanted or any(not word.strip() for word in wanted):
        raise ConfigError(f"subgroups.words.{name} is {list(words)!r}; give words that have a letter")
    known = np.array([text is not None for text in texts], dtype=bool)
    captions = ["" if text is None else _tokens(text, pattern) for text in texts]
    holds = np.array([any(word in caption for word in wanted) for caption in captions], dtype=bool)
    return _codes(known, holds)


def _tokens(text: str, pattern: re.Pattern[str]) -> str:
    """The words of a text between single spaces, one also at either end."""
    return f" {' '.join(pattern.findall(normalise(text)))} "


def _codes(known: Bool[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    return np.where(known, np.where(true, TRUE, FALSE), UNKNOWN).astype(np.uint8)
