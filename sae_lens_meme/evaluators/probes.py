"""What a linear probe reads about each label from the latents, the embedding and the reconstruction.

Each score stands beside the class frequencies alone and beside the same probe on labels permuted within source; the
AUROC within source shows nothing that is known from the source alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64
from sklearn.metrics import log_loss
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import (
    Probe,
    SharedProbes,
    Task,
    fit_embedding_probe,
    fit_latent_probes,
    tasks_of,
)
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents, hook_of, reconstructed
from sae_lens_meme.evaluators.result import Measure, Number, Quantity, Result, Section
from sae_lens_meme.metrics.permutation import permutation_within
from sae_lens_meme.metrics.ranking import auroc_of_scores
from sae_lens_meme.metrics.threads import in_threads
from sae_lens_meme.options import Count

Space = Literal["latents", "embedding", "reconstruction"]

_ZSCORED = "z-scored on the train rows, C = 1 (a weaker penalty than on L2-normalised latents)"
SPACES = {
    "majority": "control: class frequencies of the train rows, whatever the meme",
    "latents": "probe on L2-normalised latents, C = 1",
    "latents_permuted": "control: probe on L2-normalised latents whose train labels are permuted within source (groups whole), measured "
    "on the true labels. Above 0.5 is what the source of a meme tells: latents show the source, and the classes differ in "
    "frequency between sources",
    "embedding": f"probe on the embedding, {_ZSCORED}",
    "reconstruction": f"probe on the reconstruction, {_ZSCORED}",
}
SCORES = (
    Quantity(
        "auroc",
        "AUROC of the second of two classes; with more, mean of one class against the rest over the classes that occur. All "
        "sources pooled, so that knowing the source counts; control: auroc_within_source",
    ),
    Quantity(
        "auroc_within_source",
        "AUROC among memes of one source, sources weighted by their (true, false) pairs: knowing the source gives 0.5",
    ),
    Quantity(
        "balanced_accuracy", "share of the memes of a class that are told right, mean over the classes that occur"
    ),
    Quantity("accuracy", "share of the memes that are told right"),
    Quantity("log_loss", "cross-entropy in nats, mean over memes"),
)
GRADIENT = Quantity(
    "gradient_norm", "L2 norm of the gradient of |w|^2/2 + sum of losses where the fit stopped (converged: <= 1e-4)"
)
AUROC = SCORES[0]
COLUMNS = {
    "task": "the label",
    "space": f"what the probe reads: {', '.join(SPACES)}",
    "split": "split of the rows that are measured; null where there are none",
    "n_train": "known train rows that the probe was fitted on",
    "n_held_out": "known rows that are measured",
    "n_classes": "classes among the train rows",
    **{q.key: q.what for q in (*SCORES, GRADIENT)},
}
BESIDE = {
    "permuted": ("latents_permuted", "auroc"),
    "within source": ("latents", "auroc_within_source"),
    "permuted, within source": ("latents_permuted", "auroc_within_source"),
    "embedding": ("embedding", "auroc"),
    "reconstruction": ("reconstruction", "auroc"),
}
"""The columns beside a row's AUROC of latents: space and score."""


class Probes(Evaluator):
    """AUROC (pooled and within source), balanced accuracy, accuracy and log loss of logistic probes (C = 1) for each label.

    Args:
        fitted: the probes; give `Influence` the same ones and they are fitted once.
        options: fields of `Options`.
    """

    name = "probes"
    question = "what a linear probe reads from latents, embedding, reconstruction"
    control = "permuted labels; AUROC within source"
    needs_labels = True

    class Options(options.Options):
        tasks: Sequence[str] | None = None
        """Labels; default every label with 2 to 20 classes."""
        spaces: Sequence[Space] = ("latents", "embedding", "reconstruction")
        """What is probed."""
        n_permutations: Count = 5
        """Draws of permuted train labels; the scores of this control are means over them."""
        seed: Count = 0
        """Seed of the permutations."""

    def __init__(self, embeddings: Embeddings, *, fitted: SharedProbes | None = None, **options: Any):
        super().__init__(embeddings, **options)
        self.fitted = fitted or SharedProbes(seed=self.options.seed)

    @classmethod
    def from_context(cls, context: Context) -> Self:
        return cls(context.embeddings, fitted=context.embedding_probes, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, skipped = tasks_of(embeddings, self.options.tasks)
        hook = hook_of(sae, embeddings, self.hook)
        embeddings.require_finite(hook)
        readers = self._readers(sae, embeddings, latents, hook, tasks)

        def measured(task: Task) -> list[Scored]:
            return [
                _scored(task, space, probes, readers[space.removesuffix("_permuted")], embeddings.sources)
                for space, probes in self._probes(task, readers, embeddings, latents, hook)
            ]

        found = {task.name: measures for task, measures in zip(tasks, in_threads(measured, tasks), strict=True)}
        measures = [measure for scored in found.values() for measure in self._measures(scored)]
        measures += [AUROC(None, f"{name}/latents", reason=reason) for name, reason in skipped.items()]
        section = Section("Linear probes on latents: AUROC", self._note(measures), "AUROC, held-out memes")
        rows = [scored.row() for each in found.values() for scored in each]
        table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({q.key: "Float64" for q in (*SCORES, GRADIENT)})
        return Result(self.name, section, tuple(measures), table, COLUMNS, _verdict(found))

    def _probes(
        self, task: Task, readers: dict[str, Reader], embeddings: Embeddings, latents: Latents, hook: str
    ) -> Iterable[tuple[str, Sequence[Probe | _Prior]]]:
        y, spaces = task.label.values[task.train], self.options.spaces
        yield "majority", [_Prior(y)]
        if "latents" in spaces:
            yield "latents", [self.fitted.of_latents(task, embeddings, latents)]
            rng, sources = np.random.default_rng(self.options.seed), embeddings.sources[task.train]
            groups = embeddings.groups[task.train]
            draws = [permute_within(y, sources, rng, groups) for _ in range(self.options.n_permutations)]
            if controls := fit_latent_probes(task.name, readers["latents"](task.train), draws):
                yield "latents_permuted", controls
        if "embedding" in spaces:
            yield "embedding", [self.fitted.of(task, embeddings, hook)]
        if "reconstruction" in spaces:
            train = self.fitted.rows(task)
            yield (
                "reconstruction",
                [fit_embedding_probe(task.name, readers["reconstruction"](train), task.label.values[train])],
            )

    def _readers(
        self, sae: Any, embeddings: Embeddings, latents: Latents, hook: str, tasks: Sequence[Task]
    ) -> dict[str, Reader]:
        """Rows of each space; those of the reconstruction are decoded once for all tasks."""
        needed = [part for task in tasks for part in (self.fitted.rows(task), task.held_out)]
        needed = (
            np.unique(np.concatenate(needed))
            if needed and "reconstruction" in self.options.spaces
            else np.empty(0, int)
        )
        parts = [x_hat for _, _, x_hat in reconstructed(sae, embeddings, latents, hook, needed)]
        x_hat = np.concatenate(parts) if parts else np.empty((0, embeddings.d_in(hook)), np.float32)
        return {
            "majority": lambda rows: rows,
            "latents": lambda rows: latents.csr()[rows],
            "embedding": lambda rows: embeddings.take(hook, rows),
            "reconstruction": lambda rows: x_hat[np.searchsorted(needed, rows)],
        }

    def _measures(self, scored: Sequence[Scored]) -> list[Measure]:
        """Of one task; its AUROC of latents stands beside the others."""
        draws = f"mean of {self.options.n_permutations} draws (seed {self.options.seed})"
        found = {(s.space, m.key.rpartition("/")[2]): m for s in scored for m in s.measures(draws)}
        shown = found.get(("latents", AUROC.key))
        if shown is not None and shown.value is not None:
            task, controls = scored[0].task, [found[key].control(name) for name, key in BESIDE.items() if key in found]
            label = f"{task.name} ({len(task.held_out)} {task.split} memes)"
            found["latents", AUROC.key] = shown.row(label, *controls)
        return list(found.values())

    def _note(self, measures: Sequence[Measure]) -> str:
        shown = {control.name for measure in measures for control in measure.controls}
        lines = ["in brackets: the memes that are measured"]
        if "permuted" in shown:
            lines.append(
                f"permuted: train labels permuted within source, mean of {self.options.n_permutations} draws; above .5 is what "
                "the source alone tells, within source it is gone"
            )
        if others := [space for space in ("embedding", "reconstruction") if space in shown]:
            lines.append(f"{', '.join(others)}: a probe on these")
        left_out = [m.key.rsplit("/", 2)[0] for m in measures if m.key.endswith("/latents/auroc") and m.value is None]
        if left_out:
            lines.append(
                f"left out, reasons in evaluation.json: {', '.join(left_out[:5])}{', ...' if left_out[5:] else ''}"
            )
        return "; ".join(lines)


def permute_within(
    values: np.ndarray, strata: np.ndarray, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """`values` shuffled among the entries of the same stratum, those of a group together."""
    return values[permutation_within(strata, rng, groups=groups)]


Reader = Callable[[np.ndarray], Any]


class _Prior:
    """Predicts the class frequencies of the train rows."""

    gradient_norm = None

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
    scores: dict[str, Number]
    reasons: dict[str, str]

    def row(self) -> dict[str, Any]:
        """Of the table."""
        facts = {"task": self.task.name, "space": self.space, "split": self.task.split, "n_train": self.n_train}
        facts |= {"n_held_out": len(self.task.held_out), "n_classes": self.n_classes}
        return {**facts, **self.scores, GRADIENT.key: self.gradient_norm}

    def measures(self, draws: str) -> list[Measure]:
        group, what = f"{self.task.name}/{self.space}", SPACES[self.space]
        what += f", {draws}" if self.space == "latents_permuted" else ""
        what += f"; fitted on {self.n_train} known train rows, measured on {len(self.task.held_out)} known "
        what += f"{self.task.split or 'held-out'} rows"
        found = [q(self.scores[q.key], group, rows=what, reason=self.reasons.get(q.key)) for q in SCORES]
        return found if self.gradient_norm is None else [*found, GRADIENT(self.gradient_norm, group, rows=what)]


def _scored(task: Task, space: str, probes: Sequence[Probe | _Prior], reader: Reader, sources: np.ndarray) -> Scored:
    """Means over the probes: what is undefined is so for all of them, by the rows alone."""
    x, y, sources = reader(task.held_out), task.label.values[task.held_out], sources[task.held_out]
    found, reasons = zip(*(scores(probe.classes, probe.predict_proba(x), y, sources) for probe in probes), strict=True)
    why = {key: task.unmeasured or f"label {task.name!r}: {reason}" for key, reason in reasons[0].items()}
    means = {q.key: None if q.key in why else float(np.mean([f[q.key] for f in found])) for q in SCORES}
    norms = [probe.gradient_norm for probe in probes if probe.gradient_norm is not None]
    return Scored(task, space, probes[0].n_train, len(probes[0].classes), max(norms, default=None), means, why)


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


def _verdict(found: dict[str, list[Scored]]) -> str | None:
    """Within source: what the source tells is no merit of the latents."""
    within: dict[str, dict[str, Any]] = {
        task: {s.space: s.scores["auroc_within_source"] for s in scored} for task, scored in found.items()
    }
    within = {task: values for task, values in within.items() if values.get("latents") is not None}
    if not within:
        return None

    def median(space: str) -> str:
        return f"{np.median([values[space] for values in within.values()]):.2f}"

    worst = min(within, key=lambda task: within[task]["latents"])
    rivals = {"embedding": "embedding", "latents_permuted": "permuted labels"}
    beside = ", ".join(f"{name} {median(space)}" for space, name in rivals.items() if space in within[worst])
    return (
        f"Probes on latents reach a median AUROC of {median('latents')} within source{f' ({beside})' if beside else ''}; "
        f"worst of {len(within)} label{'s' * (len(within) != 1)}: {worst}, {within[worst]['latents']:.2f}."
    )
