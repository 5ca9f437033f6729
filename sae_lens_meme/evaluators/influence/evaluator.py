"""Ablation and steering of every latent at once: the exact change of each class's probability, with controls.

Latent route: z_f <- m z_f, the row normalised again, then the probe on latents. Embedding route:
h <- h + (m-1) z_f d_f with the SAE's error kept, then a probe on h or the model's own head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64
from pydantic import Field, field_validator
from scipy import sparse
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import Probe, SharedProbes, Task, tasks_of
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.influence.compute import PAIRS_PER_BLOCK, Effects, Resampling, effects_of, table_of
from sae_lens_meme.evaluators.influence.routes import (
    CosineHead,
    CosineRoute,
    Route,
    embedding_route,
    head_of,
    latent_route,
)
from sae_lens_meme.evaluators.latents import Latents, decoder_rows, hook_of
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section
from sae_lens_meme.evaluators.rows import measured_rows
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.metrics.directions import random_directions
from sae_lens_meme.options import Count

Head = CosineHead | Probe
RouteName = Literal["latent", "embedding"]

ORTHOGONAL = "orthogonal"
"""The heading of that control."""
SAME_ROWS = "the same rows, which flatters it"
_SILENT = "no latent fires on these rows, or none changes a probability on the rows that choose it"
_RANDOM = "control: |mean change| for a step of equal norm on the same memes, mean over fixed random directions"
_ORTHOGONAL = (
    "control: |mean change| for a step of equal norm along the latent's direction without its part in the span of the "
    "classifier: no logit gains by it, what it changes is the length of the row (0 where rows are not normalised)"
)
_MATCHED = "control: mean |delta_all| of the 20 other latents nearest in firing rate"
LARGEST = Quantity(
    "largest",
    "|delta_all| of the latent and class that change most on the rows that choose; controls: largest_random and "
    "largest_matched of this latent, random_maximum",
    _SILENT,
)
SIGNED = Quantity(
    "largest_signed",
    "the same with its sign: what InterVLM publishes for this latent (`published` in the table)",
    _SILENT,
)
LATENT = Quantity("largest_latent", "which latent that is", _SILENT)
OF_RANDOM = Quantity("largest_random", _RANDOM, _SILENT)
OF_ORTHOGONAL = Quantity("largest_orthogonal", _ORTHOGONAL, f"the classifier is not linear, or {_SILENT}")
RANDOM_MAXIMUM = Quantity(
    "random_maximum",
    "control: largest |mean change| over latents and classes by a random direction of equal norm, mean over directions that "
    "all latents share; a maximum on the measured rows themselves, so it errs on the high side",
    _SILENT,
)
OF_MATCHED = Quantity("largest_matched", _MATCHED, f"no other latent fires, or {_SILENT}")
UNCHANGED = Quantity(
    "attached_no_change",
    "control: largest change of any probability under multiplier 1, on the first "
    f"{PAIRS_PER_BLOCK:,} active pairs of meme and latent",
)
ALL_LATENTS = Quantity(
    "all_latents", "largest |mean change| over classes when every active latent is ablated (zeros are decoded)"
)


class Influence(Evaluator):
    """Effect of ablating and steering each latent, for each label.

    Args:
        heads: further classifiers of the embedding: `CosineHead` for MemeCLIP's head, `Probe` for a linear one.
        fitted: the probes; give `Probes` the same ones and they are fitted once.
        options: fields of `Options`.

    Raises:
        ConfigError: two heads of one task.
    """

    name = "influence"
    question = "what ablating and steering each latent does to each class, exact and all at once, through probes and MemeCLIP's head"
    control = "nothing edited, random directions, a step orthogonal to the probe, latents of equal firing rate"
    needs_labels = True

    class Options(options.Options):
        tasks: Sequence[str] | None = None
        """Labels; default every label with 2 to 20 classes."""
        multipliers: Annotated[Sequence[float], Field(min_length=1)] = (0.0, 5.0)
        """0 is ablation; any other is steering."""
        routes: Annotated[Sequence[RouteName], Field(min_length=1)] = ("latent", "embedding")
        """Through a probe on latents, or through the embedding that a latent writes to."""
        rows: Literal["held_out", "all"] = "held_out"
        """held_out (test rows, else validation rows, else all) or all. Memes without a known label count too."""
        n_bootstrap: Count = 200
        """Resamples of the memes for the 95 % intervals; 0 for none."""
        n_random: Count = 4
        """Random directions of the equal-norm control; 0 for none, nor the step orthogonal to the probe."""
        seed: Count = 0
        """Seed of directions and resamples."""

        @field_validator("multipliers")
        @classmethod
        def _different(cls, given: Sequence[float]) -> Sequence[float]:
            if len({_edit(multiplier) for multiplier in given}) < len(given):
                raise ValueError("numbers that differ in their first six digits")
            return given

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        heads: Sequence[Head] = (),
        fitted: SharedProbes | None = None,
        **options: Any,
    ):
        super().__init__(embeddings, **options)
        self.heads, self.fitted = tuple(heads), fitted or SharedProbes(seed=self.options.seed)
        if len(tasks := [head.task for head in heads]) > len(set(tasks)):
            raise ConfigError(f"influence: two heads are of one task ({', '.join(tasks)}); give one per task")

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """With MemeCLIP's own classifier, where the SAE reads what the classifier reads."""
        heads = []
        if context.heads is not None and context.sae.cfg.metadata.hook_name == FUSED:
            from sae_lens_meme.hooks import HookedMemeCLIP

            heads = [head_of(HookedMemeCLIP.from_embeddings(context.embeddings, heads=context.heads))]
        return cls(context.embeddings, heads=heads, fitted=context.embedding_probes, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        hook = hook_of(sae, embeddings, self.hook)
        rows, which = measured_rows(embeddings, self.options.rows)
        choosing, chosen_on = self._choosing_rows(embeddings, rows)
        tasks, skipped = tasks_of(embeddings, self.options.tasks)
        measures = [
            Measure("n", len(rows), f"{which}: effects are means over them; probes are fitted on known train rows"),
            Measure("n_choosing", len(choosing), "rows that choose the latent of `largest`"),
            *(LARGEST(None, f"ablation/latent/{name}", reason=reason) for name, reason in skipped.items()),
        ]
        decoder = None
        if "embedding" in self.options.routes:
            try:
                decoder = decoder_rows(sae)
            except DataError as error:
                measures.append(Measure("ablation/embedding", None, LARGEST.what, reason=str(error)))
        resampling = None
        if self.options.n_bootstrap:
            z = latents.rows(rows).csr()
            n_bootstrap, seed = self.options.n_bootstrap, self.options.seed
            resampling = Resampling.of(z, embeddings.strata[rows], n_bootstrap, seed, embeddings.groups[rows])
        tables, multipliers = [], self.options.multipliers
        for (head, route), (_, choice) in zip(
            self._routes(hook, embeddings, latents, rows, tasks, decoder),
            self._routes(hook, embeddings, latents, choosing, tasks, decoder),
            strict=True,
        ):
            effects = effects_of(route, multipliers, resampling, self.options.n_random)
            chosen = np.abs(effects_of(choice, multipliers, n_random=0).delta_all)
            tables.append(table_of(route, effects, multipliers, head))
            measures += self._of_route(route, head, effects, chosen, f"{len(rows)} {which}; chosen on {chosen_on}")
        section = self._section(f"{len(rows):,} {which}", chosen_on)
        table = pd.concat(tables, ignore_index=True) if tables else None
        columns = {} if table is None else {name: COLUMNS[name] for name in table}
        verdict = _verdict(measures, flattered=chosen_on == SAME_ROWS)
        return Result(self.name, section, tuple(measures), table, columns, verdict)

    def log_key(self, key: str) -> str:
        """`meme/ablation/...` and `meme/steering/...`."""
        return f"meme/{key}" if "/" in key else super().log_key(key)

    def _choosing_rows(self, embeddings: Embeddings, rows: np.ndarray) -> tuple[np.ndarray, str]:
        """Validation rows choose the latents that are summed up, if others measure them; else the same rows do both."""
        validation = embeddings.rows("validation")
        if len(validation) and not np.isin(validation, rows).any():
            return validation, f"{len(validation)} validation rows"
        return rows, SAME_ROWS

    def _routes(
        self,
        hook: str,
        embeddings: Embeddings,
        latents: Latents,
        rows: np.ndarray,
        tasks: Sequence[Task],
        decoder: Float64[np.ndarray, "d_sae d_in"] | None,
    ) -> Iterator[tuple[str, Route]]:
        """Every requested classifier with the kind of its head, by each route, on these rows."""
        z = sparse.csr_matrix(latents.rows(rows).csr(), dtype=np.float64)
        rng, n_random = np.random.default_rng(self.options.seed), self.options.n_random
        if "latent" in self.options.routes:
            directions = random_directions(n_random, latents.d_sae, rng)
            for task in tasks:
                yield "probe", latent_route(self.fitted.of_latents(task, embeddings, latents), z, directions)
        if decoder is None:
            return
        embeddings.require_finite(hook)
        directions = random_directions(n_random, decoder.shape[1], rng)
        self.fitted.prepare(tasks, embeddings, hook)
        for task in tasks:
            probe = self.fitted.of(task, embeddings, hook)
            yield "probe", embedding_route(probe, z, embeddings, hook, rows, decoder, directions)
        for head in self.heads:
            _require_fits(head, hook, decoder.shape[1], tasks)
            make: Any = CosineRoute if isinstance(head, CosineHead) else embedding_route
            yield "model", make(head, z, embeddings, hook, rows, decoder, directions)

    def _of_route(
        self,
        route: Route,
        head: str,
        effects: Effects,
        chosen: Float64[np.ndarray, "d_sae m outputs"],
        rows: str,
    ) -> Iterator[Measure]:
        """For each multiplier the effect of the latent and class that `chosen` has largest; None where no latent fires."""
        where = f"{route.name}/{route.task}" if head == "probe" else f"{route.name}/{head}/{route.task}"
        shown = head == "probe" and (route.name == "latent" or "latent" not in self.options.routes)
        for m, multiplier in enumerate(self.options.multipliers):
            group = f"ablation/{where}" if multiplier == 0 else f"steering/x{multiplier:g}/{where}"
            unchanged = UNCHANGED(effects.attached_no_change, group, rows=rows)
            largest, others = self._largest(effects, chosen[:, m], m, group, rows)
            if shown and largest.value is not None:
                beside = {"random maximum": RANDOM_MAXIMUM, "random": OF_RANDOM}
                beside |= {ORTHOGONAL: OF_ORTHOGONAL, "matched": OF_MATCHED}
                controls = [others[q.key].control(name) for name, q in beside.items() if q.key in others]
                label = f"{route.task}: {_edit(multiplier)}, latent {others[LATENT.key].value}"
                largest = largest.row(label, *controls, unchanged.control("attached"))
            yield from (largest, *others.values(), unchanged)
        yield ALL_LATENTS(float(np.abs(route.all_ablated()).max()), f"ablation/{where}", rows=rows)

    def _largest(
        self, effects: Effects, chosen: Float64[np.ndarray, "d_sae outputs"], m: int, group: str, rows: str
    ) -> tuple[Measure, dict[str, Measure]]:
        top, best = (int(place) for place in np.unravel_index(chosen.argmax(), chosen.shape))
        fires, delta = bool(effects.n_active.any() and chosen.any()), float(effects.delta_all[top, m, best])
        values: dict[Quantity, Any] = {SIGNED: delta, LATENT: top}
        if effects.delta_random is not None and effects.random_maximum is not None:
            values |= {OF_RANDOM: effects.delta_random[top, m, best], RANDOM_MAXIMUM: effects.random_maximum[m]}
            orthogonal = effects.delta_orthogonal
            values[OF_ORTHOGONAL] = None if orthogonal is None else orthogonal[top, m, best]
        values[OF_MATCHED] = effects.delta_matched[top, m, best]
        others = {q.key: q(value if fires else None, group, rows=rows) for q, value in values.items()}
        interval = None
        if effects.delta_all_interval is not None:
            ends = [end[top, m, best] for end in effects.delta_all_interval]
            low, high = sorted(np.abs(ends)) if ends[0] * ends[1] > 0 else (0.0, np.abs(ends).max())
            what = (
                "of delta_all of this latent and class, percentile bootstrap over memes within source, groups whole, "
                f"{self.options.n_bootstrap} resamples; it does not count the choice"
            )
            interval = Interval(low if fires else None, high if fires else None, what)
        return LARGEST(abs(delta) if fires else None, group, rows=rows, interval=interval), others

    def _section(self, rows: str, chosen_on: str) -> Section:
        random = (
            "random maximum: the largest change that any latent's step makes in a random direction of equal norm; "
            f"random: the same for this latent, mean of {self.options.n_random}; orthogonal: a step of equal norm that moves no "
            "logit, only the row's length; "
        )
        return Section(
            f"Influence: mean change of a class's probability caused by one latent, {rows}",
            f"of the latent with the largest change on {chosen_on}; {random if self.options.n_random else ''}"
            "matched: 20 latents of equal firing rate; attached: nothing edited",
        )


COLUMNS = {
    "latent": "number of the latent",
    "task": "the label",
    "class": "the class whose probability changes",
    "kind": "ablation or steering",
    "multiplier": "what the latent's activation is multiplied by; 0 is ablation",
    "delta_all": "mean change of the probability over all measured rows",
    "delta_active": "mean change over the rows where the latent fires; null where it fires on none",
    "n_active": "measured rows where the latent fires",
    "n": "measured rows",
    "route": "latent: through a probe on latents; embedding: through the embedding that the latent writes to",
    "head": "probe, or model for a head that was given",
    "published": "true for InterVLM's one number per latent and edit: the positive class of two, else the class of largest "
    "|delta_all|, probe on latents; their rows are the test rows",
    "delta_all_low": "low end of the 95 % interval of delta_all, percentile bootstrap over memes within source, groups whole",
    "delta_all_high": "high end of the same",
    "delta_active_low": "low end of the 95 % interval of delta_active; null where a resample never fires",
    "delta_active_high": "high end of the same",
    "delta_random": _RANDOM,
    "delta_orthogonal": f"{_ORTHOGONAL}; null where the classifier is not linear",
    "delta_matched": f"{_MATCHED}; null where no other latent fires",
}


def _edit(multiplier: float) -> str:
    return "ablation" if multiplier == 0 else f"steering x{multiplier:g}"


def _require_fits(head: Head, hook: str, d_in: int, tasks: Sequence[Task]) -> None:
    reads = head.W1.shape[1] if isinstance(head, CosineHead) else head.coef.shape[1]
    if reads != d_in:
        raise DataError(f"head of {head.task!r}: reads {reads} dimensions, {hook} has {d_in}; give a head of this hook")
    if f"model/{head.task}" in [task.name for task in tasks]:
        raise DataError(f"label 'model/{head.task}' is also the name of a head in the result; rename the label")


def _verdict(measures: Sequence[Measure], flattered: bool) -> str | None:
    """Whether the largest effect (the lower end of its interval) beats the largest of random steps, and what of it is length."""
    found: dict[str, list[bool]] = {}
    by_length: dict[str, list[tuple[bool, float]]] = {}  # where the classifier is linear
    for measure in measures:
        rivals = {control.name: control.value for control in measure.controls}
        if (rival := rivals.get("random maximum")) is not None and measure.value:
            low = measure.value if measure.interval is None else measure.interval.low or 0
            kind, multiplier, *_ = measure.key.split("/")
            edit = f"steering {multiplier}" if kind == "steering" else kind
            found.setdefault(edit, []).append(low > rival)
            if (length := rivals.get(ORTHOGONAL)) is not None:
                by_length.setdefault(edit, []).append((length >= low, length / measure.value))
    if not found:
        return None
    beats = ", ".join(f"{edit} for {sum(of)}" for edit, of in found.items())
    length = ", ".join(
        f"{edit} for {sum(much for much, _ in of)} (median {np.median([part for _, part in of]):.0%})"
        for edit, of in by_length.items()
    )
    alone = f"does as much: {length}" if length else "cannot be asked of a classifier that is not linear"
    by = " (lower end of 95 %)" if any(measure.interval for measure in measures) else ""
    same = "; chosen on the same memes" if flattered else ""
    return (
        f"One latent beats the largest random step{by}: {beats} of {max(map(len, found.values()))} labels. "
        f"Renormalisation alone (a step orthogonal to the probe) {alone}{same}."
    )
