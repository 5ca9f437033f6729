"""What a linear probe reads about each label from the latents, the embedding and the reconstruction.

Each score stands beside the class frequencies alone and beside the same probe on labels permuted within source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from sklearn.metrics import log_loss, roc_auc_score

from sae_lens_meme.embeddings import Embeddings, Label
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.probe import Probe, fit_embedding_probe, fit_latent_probe
from sae_lens_meme.evaluators.reconstruction import reconstructed, unscaled
from sae_lens_meme.evaluators.result import Number, Result

SCORES = ("auroc", "balanced_accuracy", "accuracy", "log_loss")
SPACES = ("latents", "embedding", "reconstruction")
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


class Probes(Evaluator):
    """AUROC, balanced accuracy, accuracy and log loss of logistic probes (C = 1) for each label.

    Args:
        tasks: labels, default every label with 2 to 20 classes.
        spaces: any of "latents", "embedding", "reconstruction".
        max_rows: dense probes are fitted on at most so many train rows, drawn by `seed`.
    """

    name = "probes"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        tasks: Sequence[str] | None = None,
        spaces: Sequence[str] = SPACES,
        max_rows: int = 50_000,
        seed: int = 0,
    ):
        super().__init__(embeddings, hook=hook)
        if unknown := set(spaces) - set(SPACES):
            raise DataError(f"probes: space {min(unknown)!r} is none of {', '.join(SPACES)}")
        self.tasks, self.spaces, self.max_rows, self.seed = tasks, tuple(spaces), max_rows, seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, skipped = tasks_of(embeddings, self.tasks)
        readers = _readers(sae, embeddings, latents, hook_of(sae, embeddings, self.hook))
        rows, reasons = [], {}
        for task in tasks:
            for space, probe, reader in self._probes(task, readers, embeddings):
                found, why = _measured(task, probe, reader)
                rows.append({"task": task.name, "space": space, **_facts(task, probe), **found})
                reasons |= {f"{task.name}/{space}/{key}": reason for key, reason in why.items()}
        numbers = {
            f"{r['task']}/{r['space']}/{key}": r[key] for r in rows for key in (*SCORES, "gradient_norm") if key in r
        }
        numbers = {key: value for key, value in numbers.items() if value is not None or key in reasons}
        numbers |= {f"{name}/latents/auroc": None for name in skipped}
        reasons |= {f"{name}/latents/auroc": reason for name, reason in skipped.items()}
        return Result(self.name, numbers, reasons, _table(rows), _explain(tasks, self.seed))

    def __call__(self, sae: Any, data_provider: Any, activation_scaler: Any) -> dict[str, float]:
        return self.evaluate(unscaled(sae, activation_scaler)).to_log_dict(f"meme/{self.name}/")

    def _probes(
        self, task: Task, readers: dict[str, Reader], embeddings: Embeddings
    ) -> Iterable[tuple[str, Any, Reader]]:
        y = task.label.values[task.train]
        rng = np.random.default_rng(self.seed)
        yield "majority", _Prior(task, y), readers["latents"]
        if "latents" in self.spaces:
            x = readers["latents"](task.train)
            yield "latents", fit_latent_probe(task.name, x, y), readers["latents"]
            permuted = permute_within(y, embeddings.sources[task.train], rng)
            yield "latents_permuted", fit_latent_probe(task.name, x, permuted), readers["latents"]
        train = thinned(task.train, task.label.values, self.max_rows, self.seed)
        for space in ("embedding", "reconstruction"):
            if space in self.spaces:
                yield (
                    space,
                    fit_embedding_probe(task.name, readers[space](train), task.label.values[train]),
                    readers[space],
                )


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


def permute_within(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`values` shuffled among the entries of the same group."""
    out = values.copy()
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        out[mine] = rng.permutation(values[mine])
    return out


def scores(
    classes: Sequence[Any], probabilities: Float64[np.ndarray, "n n_classes"], y: np.ndarray
) -> tuple[dict[str, Number], dict[str, str]]:
    """The four scores of predicted probabilities, None where undefined, and a reason for each None.

    AUROC is that of the second of two classes; with more classes the mean of one class against the rest,
    over the classes that some but not all rows have.
    """
    if len(y) == 0:
        return dict.fromkeys(SCORES), dict.fromkeys(SCORES, "no known test or validation rows")
    order = np.array(classes, dtype=y.dtype)
    is_class = y[:, None] == order
    right = order[probabilities.argmax(1)] == y
    auroc = _auroc(is_class, probabilities)
    found: dict[str, Number] = {
        "auroc": auroc,
        "balanced_accuracy": float(np.mean([right[mine].mean() for mine in is_class.T if mine.any()])),
        "accuracy": float(right.mean()),
        "log_loss": float(log_loss(is_class.argmax(1), probabilities, labels=range(len(classes)))),
    }
    return found, {} if auroc is not None else {"auroc": f"all {len(y)} held-out rows are of one class"}


def thinned(rows: np.ndarray, values: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """So many of the rows, drawn at random; all of them if a class would be lost."""
    kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:at_most])
    return rows[kept] if len(np.unique(values[rows[kept]])) == len(np.unique(values[rows])) else rows


Reader = Callable[[np.ndarray], Any]


class _Prior:
    """Predicts the class frequencies of the train rows."""

    gradient_norm = None

    def __init__(self, task: Task, y: np.ndarray):
        classes, counts = np.unique(y, return_counts=True)
        self.task, self.classes, self.n_train = task.name, tuple(classes.tolist()), len(y)
        self.frequencies = counts / counts.sum()

    def predict_proba(self, x: Any) -> Float64[np.ndarray, "n n_classes"]:
        return np.tile(self.frequencies, (x.shape[0], 1))


def _readers(sae: Any, embeddings: Embeddings, latents: Latents, hook: str) -> dict[str, Reader]:
    def reconstruction(rows: np.ndarray) -> np.ndarray:
        parts = [x_hat for _, _, x_hat in reconstructed(sae, embeddings, latents, hook, rows)]
        return np.concatenate(parts) if parts else np.empty((0, embeddings.d_in(hook)), np.float32)

    return {
        "latents": lambda rows: latents.csr()[rows],
        "embedding": lambda rows: embeddings.take(hook, rows),
        "reconstruction": reconstruction,
    }


def _measured(task: Task, probe: Probe | _Prior, reader: Reader) -> tuple[dict[str, Number], dict[str, str]]:
    return scores(probe.classes, probe.predict_proba(reader(task.held_out)), task.label.values[task.held_out])


def _facts(task: Task, probe: Probe | _Prior) -> dict[str, Any]:
    facts = {"split": task.split, "n_train": probe.n_train, "n_held_out": len(task.held_out)}
    return facts | {"n_classes": len(probe.classes), "gradient_norm": probe.gradient_norm}


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


def _auroc(is_class: np.ndarray, probabilities: np.ndarray) -> float | None:
    columns = [1] if is_class.shape[1] == 2 else range(is_class.shape[1])
    both = [c for c in columns if 0 < is_class[:, c].sum() < len(is_class)]
    return float(np.mean([roc_auc_score(is_class[:, c], probabilities[:, c]) for c in both])) if both else None


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = ["task", "space", "split", "n_train", "n_held_out", "n_classes", *SCORES, "gradient_norm"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys((*SCORES, "gradient_norm"), "float64"))


def _explain(tasks: Sequence[Task], seed: int) -> dict[str, str]:
    lines = {
        t.name: f"fitted on {len(t.train)} known train rows, measured on {len(t.held_out)} known {t.split or 'held-out'} rows"
        for t in tasks
    }
    return lines | {
        "majority": "class frequencies of the train rows, whatever the meme",
        "latents_permuted": f"train labels shuffled within source (seed {seed}), measured on the true held-out labels",
        "auroc": "second of two classes; with more, mean of one class against the rest over the classes that occur",
        "gradient_norm": "L2 norm of the gradient of |w|^2/2 + sum of losses where the fit stopped (converged: <= 1e-4)",
    }
