"""What a linear probe reads about each label from the latents, the embedding and the reconstruction.

Each score comes with that of the class frequencies alone and of the same probe on labels permuted within source; the
AUROC within source shows nothing that is known from the source alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import (
    Probe,
    ReadsProbes,
    Task,
    fit_embedding_probes,
    fit_latent_probes,
    tasks_of,
)
from sae_lens_meme.evaluators.decoding import reconstructed
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.probes.compute import Prior, Reader, Scored, choose, ends, permute_within, scored
from sae_lens_meme.evaluators.probes.quantities import (
    AUROC,
    BESIDE,
    BOOTSTRAP,
    COLUMNS,
    GRADIENT,
    NO_BOOTSTRAP,
    PAIRED,
    PENALTY,
    RIVALS,
    SCORES,
    SPACES,
    WITHIN,
)
from sae_lens_meme.evaluators.result import Interval, Measure, Result, Section
from sae_lens_meme.evaluators.rows import resampled
from sae_lens_meme.metrics.threads import in_threads
from sae_lens_meme.options import Count

Space = Literal["latents", "embedding", "reconstruction"]
Penalties = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, min_length=1)]


class Probes(ReadsProbes, Evaluator):
    """AUROC (pooled and within source), balanced accuracy, accuracy and log loss of logistic probes for each label.

    Args:
        fitted: the probes at C = 1; give `Influence` the same ones and they are fitted once.
        options: fields of `Options`.
    """

    name = "probes"
    question = "what a linear probe reads from latents, embedding, reconstruction"
    control = "permuted labels; AUROC within source; the embedding on the same resamples"
    needs_labels = True

    class Options(options.Options):
        tasks: Sequence[str] | None = None
        """Labels; default every label with 2 to 20 classes."""
        spaces: Sequence[Space] = ("latents", "embedding", "reconstruction")
        """What is probed."""
        latents_C: Penalties = (0.1, 1.0, 10.0)
        """Inverse penalties of probes on latents, of which validation memes choose."""
        embedding_C: Penalties = (0.001, 0.01, 0.1, 1.0)
        """The same of probes on the embedding and on the reconstruction."""
        n_permutations: Count = 5
        """Draws of permuted train labels; the scores of this control are means over them."""
        n_bootstrap: Count = 200
        """Resamples of the held-out memes for intervals; 0 leaves the intervals out."""
        seed: Count = 0
        """Seed of the permutations and resamples."""

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, skipped = tasks_of(embeddings, self.options.tasks)
        hook = hook_of(sae, embeddings, self.hook)
        embeddings.require_finite(hook)
        readers = self._readers(sae, embeddings, latents, hook, tasks)

        def measured(task: Task) -> list[Scored]:
            weights = resampled(embeddings, task.held_out, self.options.n_bootstrap, self.options.seed)
            return [
                scored(task, space, probes, readers[space.removesuffix("_permuted")], embeddings.strata, weights)
                for space, probes in self._probes(task, readers, embeddings, latents, hook)
            ]

        each = in_threads(measured, tasks, cost=lambda task: task.size)
        found = {task.name: measures for task, measures in zip(tasks, each, strict=True)}
        apart = Section(
            "Linear probes: AUROC of latents minus that of the embedding, within source",
            "95 %: both probes on the same resampled memes, groups whole; C: inverse penalty of each, chosen on validation "
            "memes (of the same task; 1 where none has the label, or none of a second class)",
        )
        measures = [measure for each in found.values() for measure in self._measures(each, apart)]
        measures += [AUROC(None, f"{name}/latents", reason=reason) for name, reason in skipped.items()]
        section = Section("Linear probes on latents: AUROC", self._note(measures), "AUROC, held-out memes")
        rows = [_row(one) for each in found.values() for one in each]
        numbers = {q.key: "Float64" for q in (*SCORES, GRADIENT, PENALTY)}
        table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(numbers)
        return Result(self.name, section, tuple(measures), table, COLUMNS, _verdict(found))

    def _probes(
        self, task: Task, readers: dict[str, Reader], embeddings: Embeddings, latents: Latents, hook: str
    ) -> Iterator[tuple[str, Sequence[Probe | Prior]]]:
        """Of each space the probe at the C that validation memes choose; at that of the true labels also permuted ones."""
        y, asked = task.label.values[task.train], self.options
        validation = _validation(task, embeddings)

        def best(space: str, grid: Sequence[float], fit: Callable[[Sequence[float]], list[Probe]]) -> Probe:
            probes = fit(grid if len(validation) else (1.0,))
            if len(probes) == 1:
                return probes[0]
            x, strata = readers[space](validation), embeddings.strata[validation]
            return choose(probes, x, task.label.values[validation], strata)

        def of_latents(grid: Sequence[float]) -> list[Probe]:
            return self.fitted.latent_grid(task, embeddings, latents, grid)

        def of_embedding(grid: Sequence[float]) -> list[Probe]:
            return self.fitted.grid(task, embeddings, hook, grid)

        def of_reconstruction(grid: Sequence[float]) -> list[Probe]:
            rows = self.fitted.rows(task)
            return fit_embedding_probes(task.name, readers["reconstruction"](rows), task.label.values[rows], grid)

        yield "majority", [Prior(y)]
        if "latents" in asked.spaces:
            probe = best("latents", asked.latents_C, of_latents)
            yield "latents", [probe]
            rng, sources = np.random.default_rng(asked.seed), embeddings.sources[task.train]
            groups, n = embeddings.groups[task.train], asked.n_permutations
            draws = [permute_within(y, sources, rng, groups) for _ in range(n)]
            if controls := fit_latent_probes(task.name, readers["latents"](task.train), draws, [probe.C] * n):
                yield "latents_permuted", controls
        if "embedding" in asked.spaces:
            yield "embedding", [best("embedding", asked.embedding_C, of_embedding)]
        if "reconstruction" in asked.spaces:
            yield "reconstruction", [best("reconstruction", asked.embedding_C, of_reconstruction)]

    def _readers(
        self, sae: Any, embeddings: Embeddings, latents: Latents, hook: str, tasks: Sequence[Task]
    ) -> dict[str, Reader]:
        """Rows of each space; those of the reconstruction are decoded once for all tasks."""
        needed = [p for t in tasks for p in (self.fitted.rows(t), t.held_out, _validation(t, embeddings))]
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

    def _measures(self, scored: Sequence[Scored], apart: Section) -> list[Measure]:
        """Of one task; its AUROC of latents stands beside the others, and in a row of its own minus that of the embedding."""
        draws = f"mean of {self.options.n_permutations} draws (seed {self.options.seed})"
        found = {(s.space, m.key.rpartition("/")[2]): m for s in scored for m in _of_space(s, draws)}
        shown = found.get(("latents", AUROC.key))
        if shown is not None and shown.value is not None:
            task, controls = scored[0].task, [found[key].control(name) for name, key in BESIDE.items() if key in found]
            label = f"{task.name} ({len(task.held_out)} {task.split} memes)"
            found["latents", AUROC.key] = shown.row(label, *controls)
        return [*found.values(), *_differences(scored, found, apart)]

    def _note(self, measures: Sequence[Measure]) -> str:
        shown = {control.name for measure in measures for control in measure.controls}
        lines = ["in brackets: number of memes measured"]
        if "permuted" in shown:
            lines.append(
                f"permuted: train labels permuted within source, mean of {self.options.n_permutations} draws; what it has "
                "above .5 comes from knowing the source, and disappears within source"
            )
        if others := [space for space in RIVALS if space in shown]:
            lines.append(f"{', '.join(others)}: a probe on these")
        left_out = [m.key.rsplit("/", 2)[0] for m in measures if m.key.endswith("/latents/auroc") and m.value is None]
        if left_out:
            lines.append(
                f"left out, reasons in evaluation.json: {', '.join(left_out[:5])}{', ...' if left_out[5:] else ''}"
            )
        return "; ".join(lines)


def _validation(task: Task, embeddings: Embeddings) -> np.ndarray:
    """Memes that may choose: of a class that the train memes have, none of those that measure; and not of one class alone."""
    if task.split != "test":
        return np.empty(0, dtype=np.int64)
    rows = embeddings.rows("validation")
    rows = rows[task.label.known[rows]]
    rows = rows[np.isin(task.label.values[rows], np.unique(task.label.values[task.train]))]
    return rows if len(np.unique(task.label.values[rows])) > 1 else rows[:0]


def _row(scored: Scored) -> dict[str, Any]:
    """Of the table."""
    task = scored.task
    facts = {"task": task.name, "space": scored.space, "split": task.split, "n_train": scored.n_train}
    facts |= {"n_held_out": len(task.held_out), "n_classes": scored.n_classes}
    return {**facts, **scored.scores, GRADIENT.key: scored.gradient_norm, PENALTY.key: scored.C}


def _of_space(scored: Scored, draws: str) -> list[Measure]:
    task, group, what = scored.task, f"{scored.task.name}/{scored.space}", SPACES[scored.space]
    what += f", {draws}" if scored.space == "latents_permuted" else ""
    what += f"; fitted on {scored.n_train} known train rows, measured on {len(task.held_out)} known "
    what += f"{task.split or 'held-out'} rows"
    found = [
        q(
            *(scored.scores[q.key], group),
            rows=what,
            reason=scored.reasons.get(q.key),
            interval=None if (of := scored.interval(q.key)) is None else Interval(*of, BOOTSTRAP, NO_BOOTSTRAP),
        )
        for q in SCORES
    ]
    fitted = ((GRADIENT, scored.gradient_norm), (PENALTY, scored.C))
    return [*found, *(q(value, group, rows=what) for q, value in fitted if value is not None)]


def _differences(
    scored: Sequence[Scored], found: dict[tuple[str, str], Measure], section: Section
) -> Iterator[Measure]:
    """The AUROC of latents minus that of each rival, on the same resamples."""
    of = {one.space: one for one in scored}
    if (ours := of.get("latents")) is None:
        return
    for rival in RIVALS:
        for q in (AUROC, WITHIN):
            if rival not in of or ours.scores[q.key] is None or of[rival].scores[q.key] is None:
                continue
            apart = ours.draws[q.key] - of[rival].draws[q.key]
            measure = Measure(
                f"{ours.task.name}/latents_minus_{rival}/{q.key}",
                *(float(apart[0]), f"{q.what}; of latents minus that of the {rival}"),
                interval=Interval(*ends(apart), PAIRED, NO_BOOTSTRAP),
            )
            if (rival, q) == ("embedding", WITHIN):
                beside = [found[space, WITHIN.key].control(space) for space in ("latents", rival)]
                beside += [found[space, PENALTY.key].control(f"C {space}") for space in ("latents", rival)]
                measure = measure.row(ours.task.name, *beside, section=section)
            yield measure


def _verdict(found: dict[str, list[Scored]]) -> str | None:
    """Within source: what the source alone reveals is no merit of the latents."""
    of = {task: {s.space: s for s in each} for task, each in found.items()}
    within: dict[str, dict[str, Any]] = {
        task: {space: s.scores[WITHIN.key] for space, s in spaces.items()} for task, spaces in of.items()
    }
    within = {task: values for task, values in within.items() if values.get("latents") is not None}
    if not within:
        return None

    def median(space: str) -> str:
        return f"{np.median([values[space] for values in within.values()]):.2f}"

    worst = min(within, key=lambda task: within[task]["latents"])
    rivals = {"embedding": "embedding", "latents_permuted": "permuted labels"}
    beside = ", ".join(f"{name} {median(space)}" for space, name in rivals.items() if space in within[worst])
    many = f"{len(within)} label{'s' * (len(within) != 1)}"
    return (
        f"Probes on latents reach a median AUROC of {median('latents')} within source{f' ({beside})' if beside else ''}"
        f"{_against_embedding([of[task] for task in within])}; worst of {many}: {worst}, {within[worst]['latents']:.2f}."
    )


def _against_embedding(tasks: Sequence[dict[str, Scored]]) -> str:
    """Nothing where there is no embedding, or no interval."""
    if any("embedding" not in spaces or len(spaces["latents"].draws[WITHIN.key]) < 2 for spaces in tasks):
        return ""
    apart = [ends(s["latents"].draws[WITHIN.key] - s["embedding"].draws[WITHIN.key]) for s in tasks]
    behind, ahead = sum(high < 0 for _, high in apart), sum(low > 0 for low, _ in apart)
    return f", behind the embedding for {behind} and ahead for {ahead}"
