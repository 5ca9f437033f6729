"""Which labels a probe can be fitted on, and the rows that fit and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sae_lens_meme.embeddings import Embeddings, Label
from sae_lens_meme.errors import DataError

MAX_CLASSES = 20
"""A label with more classes is not taken unless it is named: it is an identifier rather than a label."""


@dataclass(frozen=True, eq=False)
class Task:
    """A label with at least two classes among its known train rows, and the rows that measure it."""

    label: Label
    train: np.ndarray
    held_out: np.ndarray  # known rows of a class that the train rows have
    split: str | None  # of `held_out`

    @property
    def name(self) -> str:
        return self.label.name


def tasks_of(embeddings: Embeddings, names: Sequence[str] | None = None) -> tuple[list[Task], dict[str, str]]:
    """The tasks, and for each label that cannot be one the reason.

    Raises:
        DataError: a named label does not exist or has fewer than two classes among the known train rows.
    """
    tasks, skipped = [], {}
    for name in embeddings.label_names if names is None else names:
        label = embeddings.label(name)
        train = _known(label, embeddings.rows("train"))
        n_classes = len(np.unique(label.values[train]))
        if n_classes < 2 and names is not None:
            raise DataError(
                f"task {name!r} has {n_classes} classes among its {len(train)} known train rows; a probe needs 2"
            )
        if n_classes < 2:
            skipped[name] = f"{n_classes} classes among {len(train)} known train rows"
        elif n_classes > MAX_CLASSES and names is None:
            skipped[name] = f"{n_classes} classes; name the task if it is one"
        else:
            tasks.append(Task(label, train, *_held_out(label, train, embeddings)))
    return tasks, skipped


def _held_out(label: Label, train: np.ndarray, embeddings: Embeddings) -> tuple[np.ndarray, str | None]:
    classes = np.unique(label.values[train])
    for split in ("test", "validation"):
        rows = _known(label, embeddings.rows(split))
        rows = rows[np.isin(label.values[rows], classes)]
        if len(rows):
            return rows, split
    return np.empty(0, dtype=np.int64), None


def _known(label: Label, rows: np.ndarray) -> np.ndarray:
    return rows[label.known[rows]]
