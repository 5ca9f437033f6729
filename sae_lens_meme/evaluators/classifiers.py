"""Linear classifiers on latents and embeddings: which labels allow one, and logistic regressions fitted to convergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits
from typing_extensions import Self

from sae_lens_meme.embeddings import Embeddings, Label
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.logistic import fit_logistic
from sae_lens_meme.metrics.threads import in_threads
from sae_lens_meme.standardize import moments

MAX_CLASSES = 20
"""A label with more classes is used only if it is named: it is an identifier rather than a label."""
MAX_ROWS = 50_000
"""Dense probes are fitted on at most this many train rows."""


@dataclass(frozen=True, eq=False)
class Task:
    """A label with at least two classes among its known train rows, and the rows that measure it."""

    label: Label
    train: np.ndarray
    held_out: np.ndarray
    """Test rows, else validation rows, that are known and of a class that the train rows have."""
    split: str | None
    """Of `held_out`; None where there are no such rows."""
    unmeasured: str = ""
    """Why there are none."""

    @property
    def name(self) -> str:
        return self.label.name

    @property
    def size(self) -> int:
        """What the time of a fit grows with: rows x classes."""
        return len(self.train) * len(np.unique(self.label.values[self.train]))


def tasks_of(embeddings: Embeddings, names: Sequence[str] | None = None) -> tuple[list[Task], dict[str, str]]:
    """The tasks, and for each label that cannot be one the reason.

    Raises:
        DataError: a named label does not exist or has fewer than two classes among the known train rows.
    """
    tasks, skipped = [], {}
    for name in dict.fromkeys(embeddings.label_names if names is None else names):
        label = embeddings.label(name)
        train = _known(label, embeddings.rows("train"))
        n_classes = len(np.unique(label.values[train]))
        found = f"has {n_classes} class{'es' * (n_classes != 1)} among its {len(train)} known train rows"
        if n_classes < 2 and names is not None:
            raise DataError(f"task {name!r} {found}; a probe needs 2")
        if n_classes < 2:
            skipped[name] = f"label {name!r} {found}"
        elif n_classes > MAX_CLASSES and names is None:
            skipped[name] = f"label {name!r} {found}; name the task if it is one"
        else:
            tasks.append(_task(label, train, embeddings))
    return tasks, skipped


def _task(label: Label, train: np.ndarray, embeddings: Embeddings) -> Task:
    classes, counts = np.unique(label.values[train]), []
    for split in ("test", "validation"):
        rows = _known(label, embeddings.rows(split))
        rows = rows[np.isin(label.values[rows], classes)]
        if len(rows):
            return Task(label, train, rows, split)
        counts.append(f"{len(embeddings.rows(split))} {split}")
    found = f"none of {' and '.join(counts)} rows has a class that its {len(train)} known train rows have"
    return Task(label, train, np.empty(0, dtype=np.int64), None, f"label {label.name!r}: {found}")


def _known(label: Label, rows: np.ndarray) -> np.ndarray:
    return rows[label.known[rows]]


CONVERGED = 1e-4
"""Largest gradient norm that counts as converged. The summed objective is 1/C-strongly convex in the weights,
so that at C = 1 weights, and logits on unit rows, are within this of the optimum. (scikit-learn's default
tolerance leaves probabilities up to .026 from it, more than most effects being measured.)"""


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier: softmax over classes, or a sigmoid for `classes[1]` where there is one output.

    A linear head of a model is a Probe too: `Probe(task, classes, W, b)`.
    """

    task: str
    classes: tuple[Any, ...]
    coef: Float64[np.ndarray, "n_outputs d"]
    intercept: Float64[np.ndarray, " n_outputs"]
    normalise: bool = False
    """Rows are divided by their L2 norm first (a zero row stays zero), as for latents."""
    gradient_norm: float | None = None
    """L2 norm of the gradient of |w|^2/(2 C) + sum(loss) where the fit stopped."""
    n_train: int | None = None
    C: float = 1.0
    """Inverse of the penalty, as scikit-learn has it."""

    def __post_init__(self) -> None:
        outputs = 1 if len(self.classes) == 2 and len(self.coef) == 1 else len(self.classes)
        if self.coef.shape[0] != outputs or self.intercept.shape != (outputs,):
            raise DataError(
                f"probe of {self.task!r}: {len(self.classes)} classes need {outputs} rows of weights and biases, "
                f"got coef {self.coef.shape} and intercept {self.intercept.shape}"
            )

    @property
    def converged(self) -> bool:
        return self.gradient_norm is not None and self.gradient_norm <= CONVERGED

    def logits(self, x: Any) -> Float64[np.ndarray, "n n_outputs"]:
        """Of rows of latents or embeddings, dense or sparse [n, d]."""
        x = x.astype(np.float64)
        if self.normalise and x.shape[0]:  # scikit-learn refuses to normalise nothing
            x = normalize(x)
        return x @ self.coef.T + self.intercept

    def predict_proba(self, x: Any) -> Float64[np.ndarray, "n n_classes"]:
        """Probability of each class, as scikit-learn's."""
        return probabilities(self.logits(x))


def probabilities(logits: Float64[np.ndarray, "n n_outputs"]) -> Float64[np.ndarray, "n n_classes"]:
    """Softmax of the logits; a single logit is that of the second class."""
    if logits.shape[1] == 1:
        positive = expit(logits)
        return np.hstack([1 - positive, positive])
    return softmax(logits, axis=1)


def fit_latent_probe(task: str, latents: Any, y: np.ndarray) -> Probe:
    """Logistic regression (C = 1) on L2-normalised latents, CSR [n, d_sae].

    Raises:
        DataError: `y` has fewer than two classes.
    """
    return fit_latent_probes(task, latents, [y])[0]


def fit_latent_probes(
    task: str, latents: Any, labels: Sequence[np.ndarray], penalties: Sequence[float] | None = None
) -> list[Probe]:
    """The same for several labels of the same classes at once, such as draws of one permuted, or one at several C."""
    if not len(labels):
        return []
    latents = _unit_rows(latents)  # those that were given are let go
    return _fit(task, latents, labels, penalties, normalise=True)


def _unit_rows(latents: Any) -> Any:
    """L2-normalised, float64; the column numbers are not copied."""
    values = latents.data.astype(np.float64)
    return normalize(sparse.csr_matrix((values, latents.indices, latents.indptr), latents.shape), copy=False)


def fit_embedding_probes(
    task: str, embeddings: Float[np.ndarray, "n d_in"], y: np.ndarray, penalties: Sequence[float] = (1.0,)
) -> list[Probe]:
    """The same regressions, one for each C, on embeddings z-scored by these rows; the z-score is folded into the weights.

    A dimension that does not vary has weight 0.

    Raises:
        DataError: `y` has fewer than two classes.
    """
    if not len(penalties):
        return []
    x, scaler = embeddings.astype(np.float64), StandardScaler(copy=False)
    dead = moments([x]).dead
    x = scaler.fit_transform(x)
    x[:, dead] = 0
    probes = _fit(task, x, [y] * len(penalties), penalties)
    coefs = [np.where(dead, 0, probe.coef / np.asarray(scaler.scale_)) for probe in probes]
    return [
        replace(probe, coef=coef, intercept=probe.intercept - coef @ np.asarray(scaler.mean_))
        for probe, coef in zip(probes, coefs, strict=True)
    ]


class SharedProbes:
    """Probes that several evaluators share, each fitted on first use.

    Args:
        seed: draws the train rows of dense probes, where there are more than `MAX_ROWS`.
        embedding_C, latents_C: the C of the probes on the embedding and on latents that will be needed: they are fitted in
            one go with the first, so that their last bits do not depend on which evaluator asks first.
    """

    def __init__(
        self,
        seed: int = 0,
        embedding_C: Sequence[float] = (),
        latents_C: Sequence[float] = (),
    ):
        self.seed = seed
        self.embedding_C, self.latents_C = tuple(embedding_C), tuple(latents_C)
        self._fitted: dict[tuple[str, str, str], dict[float, Probe]] = {}
        self._of_latents: dict[tuple[str, str], tuple[Latents, dict[float, Probe]]] = {}

    def prepare(self, tasks: Sequence[Task], embeddings: Embeddings, hook: str) -> None:
        """Fit those on the embedding that are not fitted yet, two at a time."""
        in_threads(lambda task: self.of(task, embeddings, hook), tasks, cost=lambda task: task.size)

    def of(self, task: Task, embeddings: Embeddings, hook: str) -> Probe:
        """On the embedding at `hook` (C = 1): the same for every SAE."""
        return self.grid(task, embeddings, hook, (1.0,))[0]

    def grid(self, task: Task, embeddings: Embeddings, hook: str, penalties: Sequence[float]) -> list[Probe]:
        """The same at each C."""
        found = self._fitted.setdefault((embeddings.fingerprint, hook, task.name), {})
        if not found.keys() >= set(penalties):
            missing = [C for C in dict.fromkeys((*self.embedding_C, *penalties)) if C not in found]
            train = self.rows(task)
            x, y = embeddings.take(hook, train), task.label.values[train]
            found.update(zip(missing, fit_embedding_probes(task.name, x, y, missing), strict=True))
        return [found[C] for C in penalties]

    def of_latents(self, task: Task, embeddings: Embeddings, latents: Latents) -> Probe:
        """On the latents of these memes (C = 1); only those of the last SAE are kept."""
        return self.latent_grid(task, embeddings, latents, (1.0,))[0]

    def latent_grid(
        self, task: Task, embeddings: Embeddings, latents: Latents, penalties: Sequence[float]
    ) -> list[Probe]:
        """The same at each C; those that are missing are fitted in one go."""
        key = (embeddings.fingerprint, task.name)
        last, found = self._of_latents.get(key, (None, {}))
        if last is not latents:
            self._of_latents[key] = latents, found = latents, {}
        if not found.keys() >= set(penalties):
            missing = [C for C in dict.fromkeys((*self.latents_C, *penalties)) if C not in found]
            labels = [task.label.values[task.train]] * len(missing)
            fits = fit_latent_probes(task.name, latents.csr()[task.train], labels, missing)
            found.update(zip(missing, fits, strict=True))
        return [found[C] for C in penalties]

    def rows(self, task: Task) -> np.ndarray:
        return thinned(task.train, task.label.values, MAX_ROWS, self.seed)


def thinned(rows: np.ndarray, values: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """That many of the rows, drawn at random; all of them if a class would be lost."""
    kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:at_most])
    return rows[kept] if len(np.unique(values[rows[kept]])) == len(np.unique(values[rows])) else rows


def _fit(
    task: str,
    x: Any,
    labels: Sequence[np.ndarray],
    penalties: Sequence[float] | None = None,
    normalise: bool = False,
) -> list[Probe]:
    classes, penalties = _classes(task, labels[0]), penalties or [1.0] * len(labels)
    with threadpool_limits(1, user_api="blas"):  # two threads on these thin matrices wait for each other
        fits = fit_logistic(x, labels, classes, penalties)
    names, n = tuple(classes.tolist()), x.shape[0]
    return [
        Probe(task, names, fit.coef, fit.intercept, normalise, fit.gradient_norm, n, C)
        for fit, C in zip(fits, penalties, strict=True)
    ]


def _classes(task: str, y: np.ndarray) -> np.ndarray:
    if len(classes := np.unique(y)) < 2:
        raise DataError(f"task {task!r}: a probe needs 2 classes among the known train rows, got {classes.tolist()}")
    return classes


class ReadsProbes:
    """Takes probes that are fitted already; stands before `Evaluator` among the bases.

    Args:
        fitted: the probes; give other evaluators the same ones and they are fitted once.
    """

    options: Any

    def __init__(self, embeddings: Embeddings, *, fitted: SharedProbes | None = None, **options: Any):
        super().__init__(embeddings, **options)  # pyright: ignore[reportCallIssue]  the evaluator's
        self.fitted = fitted or SharedProbes(seed=self.options.seed)

    @classmethod
    def from_context(cls, context: Context) -> Self:
        known: Any = cls
        return cls(context.embeddings, fitted=context.embedding_probes, **context.options_of(known))
