"""What a linear probe reads about each label from the latents, the embedding and the reconstruction.

Each score stands beside the class frequencies alone and beside the same probe on labels permuted within source; the
AUROC within source shows nothing that is known from the source alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from sae_lens_meme.config import check_counts
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import (
    Probe,
    SharedProbes,
    Task,
    fit_embedding_probe,
    fit_latent_probes,
    tasks_of,
)
from sae_lens_meme.evaluators.latents import Latents, hook_of, reconstructed
from sae_lens_meme.evaluators.probes.scores import SCORES, scores
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.metrics.permutation import permutation_within
from sae_lens_meme.metrics.threads import in_threads

SPACES = ("latents", "embedding", "reconstruction")


class Probes(Evaluator):
    """AUROC (pooled and within source), balanced accuracy, accuracy and log loss of logistic probes (C = 1) for each label.

    Args:
        tasks: labels, default every label with 2 to 20 classes.
        spaces: any of "latents", "embedding", "reconstruction".
        n_permutations: draws of permuted train labels; the scores of the control are means over them.
        fitted: the probes; give `Influence` the same ones and they are fitted once.
    """

    name = "probes"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        tasks: Sequence[str] | None = None,
        spaces: Sequence[str] = SPACES,
        n_permutations: int = 5,
        fitted: SharedProbes | None = None,
        seed: int = 0,
    ):
        super().__init__(embeddings, hook=hook)
        if unknown := set(spaces) - set(SPACES):
            raise DataError(f"probes: space {min(unknown)!r} is none of {', '.join(SPACES)}")
        check_counts("probes", n_permutations=n_permutations, seed=seed)
        self.tasks, self.spaces, self.n_permutations = tasks, tuple(spaces), n_permutations
        self.fitted, self.seed = fitted or SharedProbes(seed=seed), seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, skipped = tasks_of(embeddings, self.tasks)
        hook = hook_of(sae, embeddings, self.hook)
        decoded = [part for task in tasks for part in (self.fitted.rows(task), task.held_out)]
        decoded = (
            np.unique(np.concatenate(decoded)) if decoded and "reconstruction" in self.spaces else np.empty(0, int)
        )
        readers = _readers(sae, embeddings, latents, hook, decoded)

        def measured(task: Task) -> list[tuple[dict[str, Any], dict[str, str]]]:
            probes = self._probes(task, readers, embeddings, latents, hook)
            return [_row(task, space, fitted, reader, embeddings.sources) for space, fitted, reader in probes]

        found = [pair for pairs in in_threads(measured, tasks) for pair in pairs]
        rows, reasons = [row for row, _ in found], {key: reason for _, why in found for key, reason in why.items()}
        numbers = {
            f"{r['task']}/{r['space']}/{key}": r[key] for r in rows for key in (*SCORES, "gradient_norm") if key in r
        }
        numbers = {key: value for key, value in numbers.items() if value is not None or key in reasons}
        numbers |= {f"{name}/latents/auroc": None for name in skipped}
        reasons |= {f"{name}/latents/auroc": reason for name, reason in skipped.items()}
        return Result(self.name, numbers, reasons, _table(rows), _explain(tasks, self.n_permutations, self.seed))

    def _probes(
        self, task: Task, readers: dict[str, Reader], embeddings: Embeddings, latents: Latents, hook: str
    ) -> Iterable[tuple[str, Sequence[Any], Reader]]:
        y = task.label.values[task.train]
        rng = np.random.default_rng(self.seed)
        yield "majority", [_Prior(task, y)], readers["latents"]
        if "latents" in self.spaces:
            x = readers["latents"](task.train)
            yield "latents", [self.fitted.of_latents(task, embeddings, latents)], readers["latents"]
            sources = embeddings.sources[task.train]
            draws = [permute_within(y, sources, rng) for _ in range(self.n_permutations)]
            if controls := fit_latent_probes(task.name, x, draws):
                yield "latents_permuted", controls, readers["latents"]
        if "embedding" in self.spaces:
            yield "embedding", [self.fitted.of(task, embeddings, hook)], readers["embedding"]
        if "reconstruction" in self.spaces:
            train = self.fitted.rows(task)
            probe = fit_embedding_probe(task.name, readers["reconstruction"](train), task.label.values[train])
            yield "reconstruction", [probe], readers["reconstruction"]


def permute_within(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`values` shuffled among the entries of the same group."""
    return values[permutation_within(groups, rng)]


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


def _readers(sae: Any, embeddings: Embeddings, latents: Latents, hook: str, decoded: np.ndarray) -> dict[str, Reader]:
    """Rows of each space; the rows `decoded`, ascending, are reconstructed once for all tasks."""
    parts = [x_hat for _, _, x_hat in reconstructed(sae, embeddings, latents, hook, decoded)]
    x_hat = np.concatenate(parts) if parts else np.empty((0, embeddings.d_in(hook)), np.float32)
    return {
        "latents": lambda rows: latents.csr()[rows],
        "embedding": lambda rows: embeddings.take(hook, rows),
        "reconstruction": lambda rows: x_hat[np.searchsorted(decoded, rows)],
    }


def _row(
    task: Task, space: str, probes: Sequence[Probe | _Prior], reader: Reader, sources: np.ndarray
) -> tuple[dict[str, Any], dict[str, str]]:
    """Means over the probes, and a reason for each None: what is undefined is so for all of them, by the rows alone."""
    x, y, sources = reader(task.held_out), task.label.values[task.held_out], sources[task.held_out]
    found, reasons = zip(*(scores(probe.classes, probe.predict_proba(x), y, sources) for probe in probes), strict=True)
    means = {key: None if key in reasons[0] else float(np.mean([f[key] for f in found])) for key in SCORES}
    row = {"task": task.name, "space": space, **_facts(task, probes), **means}
    return row, {f"{task.name}/{space}/{key}": reason for key, reason in reasons[0].items()}


def _facts(task: Task, probes: Sequence[Probe | _Prior]) -> dict[str, Any]:
    facts = {"split": task.split, "n_train": probes[0].n_train, "n_held_out": len(task.held_out)}
    norms = [probe.gradient_norm for probe in probes if probe.gradient_norm is not None]
    return facts | {"n_classes": len(probes[0].classes), "gradient_norm": max(norms, default=None)}


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = ["task", "space", "split", "n_train", "n_held_out", "n_classes", *SCORES, "gradient_norm"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys((*SCORES, "gradient_norm"), "Float64"))


def _explain(tasks: Sequence[Task], n_permutations: int, seed: int) -> dict[str, str]:
    lines = {
        f"{t.name}/*": f"fitted on {len(t.train)} known train rows, measured on {len(t.held_out)} known {t.split or 'held-out'} rows"
        for t in tasks
    }
    return lines | {
        "*/majority/*": "class frequencies of the train rows, whatever the meme",
        "*/latents/*": "L2-normalised, C = 1",
        **dict.fromkeys(
            ("*/embedding/*", "*/reconstruction/*"),
            "z-scored on the train rows, C = 1 (a weaker penalty than on L2-normalised latents)",
        ),
        "*/latents_permuted/*": f"control: train labels shuffled within source, measured on the true held-out labels, mean of "
        f"{n_permutations} draws (seed {seed}). Above 0.5 is what the source of a meme tells: latents show the source, and "
        "the classes differ in frequency between sources",
        "*/auroc": "second of two classes; with more, mean of one class against the rest over the classes that occur. All "
        "sources pooled, so that knowing the source counts; control: auroc_within_source",
        "*/auroc_within_source": "the same among memes of one source, sources weighted by their (true, false) pairs: knowing "
        "the source gives 0.5",
        "*/gradient_norm": "L2 norm of the gradient of |w|^2/2 + sum of losses where the fit stopped (converged: <= 1e-4)",
    }
