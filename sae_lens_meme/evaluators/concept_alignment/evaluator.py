"""Concept alignment: which latents fire on which labelled concepts, with every control beside the number.

`corrected` tests labelled memes within their source and scores on test memes; `published` repeats InterVLM's
procedure fault for fault, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment.compute import (
    INTERVLM_F1,
    PROTOCOLS,
    BestLatents,
    Pairs,
    best_f1_interval,
    best_latents,
    count_intervals,
    effect_of,
    f1_source_only,
    measure_pairs,
    n_above_always_on,
    pair_counts,
    significant,
)
from sae_lens_meme.evaluators.concept_alignment.quantities import (
    ABOVE_ALWAYS_ON,
    AUROC_ABOVE_HALF,
    BEST,
    BEST_LATENT,
    COLUMNS,
    COUNTS,
    F1_INTERVAL,
    HELD_OUT,
    JACKKNIFE,
    MEDIAN_AUROC,
    N_CONCEPTS,
    N_F1,
    NO_QUALITY,
    NOT_HELD_OUT,
    SCORED,
    SOURCE_ONLY,
    TESTED,
)
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, Concepts, concepts_of, require_concepts
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.result import Interval, Measure, Result, Section, nullable
from sae_lens_meme.labels import SPLITS
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.ranking import Ranked

SHOWN = {
    ("corrected", "global"): "corrected protocol",
    ("corrected", "concept"): "corrected protocol, q within each concept",
    ("published", "concept"): "published protocol",
}
"""Counts of the printed table, by protocol and family of tests."""
OWN_FAMILY = {"corrected": "global", "published": "concept"}
BESIDE = {"f1_always_on": "always on", "source_only": "source only", "f1_validation": "chosen", "auroc": "AUROC"}
"""Controls of the F1 of a concept's best latent."""


class ConceptAlignment(Evaluator):
    """Association, threshold and scores on test memes of every latent x concept pair.

    Args:
        embeddings: the memes, with labels, sources and splits.
        concepts: such as `["hate=1", "stance=support"]`; default `concepts.default_concepts`.

    Raises:
        ConfigError: an option is wrong, or a concept is not known; the message lists what there is.
    """

    name = "concept_alignment"
    question = (
        "which latents fire on which concepts: exact test within source, threshold on validation memes, scores on test "
        "memes; and InterVLM's procedure fault for fault"
    )
    control = "always on, source only"
    needs_labels = True

    class Options(options.Options):
        concepts: Concepts = None
        """Concepts such as hate=1; default InterVLM's 13, and every class of any other label."""
        protocol: Literal["corrected", "published", "both"] = "both"
        """corrected, published (InterVLM's, fault for fault), or both."""
        alpha: options.Share = 0.05
        """A pair is significant where its q is below."""
        n_bootstrap: options.Count = 200
        """Resamples of the memes for intervals; 0 leaves the intervals out."""
        seed: options.Count = 0
        """Seed of the resamples."""

    def __init__(self, embeddings: Embeddings, concepts: Iterable[str | Concept] | None = None, **given: Any):
        super().__init__(embeddings, concepts=concepts, **given)
        self.concepts = concepts_of(embeddings, self.options.concepts)

    @classmethod
    def from_context(cls, context: Context) -> Self:
        require_concepts(context.embeddings, context.options.concepts)
        return super().from_context(context)

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        return self.measure_latents(embeddings, latents)

    def measure_latents(self, embeddings: Embeddings, latents: Latents) -> Result:
        """The same for any units that come as `Latents` (raw neurons, other dictionaries)."""
        require_latents_of(latents, embeddings)
        labels = ConceptLabels.of(embeddings, concepts_of(embeddings, self.concepts))
        ranked, wanted = Ranked.of(latents.csc()), self.options.protocol
        pairs = [measure_pairs(latents, labels, p, ranked) for p in (PROTOCOLS if wanted == "both" else (wanted,))]
        measures = [measure for found in pairs for measure in self._of_protocol(found, latents, labels)]
        section = Section(
            f"Concepts: latent x concept pairs with q < {self.options.alpha:g}",
            "95 %: delete-d jackknife over memes, groups whole. Beside each count the size of the effects: the median AUROC of these pairs, "
            "how many of them have an AUROC with an interval above .5, and how many concepts have a latent with a larger F1 "
            "than firing always: on test memes, but on all memes where the protocol is the published one. "
            f"{NO_QUALITY}",
        )
        table = pd.concat([pairs_table(found) for found in pairs], ignore_index=True)
        return Result(self.name, section, tuple(measures), table, COLUMNS, _verdict(measures))

    def _of_protocol(self, pairs: Pairs, latents: Latents, labels: ConceptLabels) -> Iterator[Measure]:
        best, protocol, rows = best_latents(pairs), pairs.protocol, SCORED[pairs.protocol]
        above = ABOVE_ALWAYS_ON(n_above_always_on(pairs, best), protocol, rows=rows)
        yield from (N_CONCEPTS(len(pairs.concepts), protocol), above)
        yield from self._counts(pairs, latents, labels, above)
        for name, values in best.scores.items():
            median = None if np.isnan(values).all() else float(np.nanmedian(values))
            held = name in HELD_OUT and protocol == "published"
            what = f"median over concepts of {BEST[name].key}: {BEST[name].what}; {rows}"
            reason = NOT_HELD_OUT if held else "of no concept is it defined"
            yield Measure(f"{protocol}/median_{BEST[name].key}", median, what, reason=reason)
        yield from self._best(pairs, best, latents, labels)

    def _counts(self, pairs: Pairs, latents: Latents, labels: ConceptLabels, above: Measure) -> Iterator[Measure]:
        """Counts of significant pairs; the shown ones with their effect beside them."""
        protocol, alpha, scored = pairs.protocol, self.options.alpha, SCORED[pairs.protocol]
        rows = f"{TESTED[protocol]}; alpha = {alpha:g}"
        numbers = pair_counts(pairs.log_p, alpha)
        numbers[N_F1] = int((pairs.columns[pairs.score()] > INTERVLM_F1).sum())
        spread = count_intervals(latents, labels, protocol, alpha, self.options.n_bootstrap, self.options.seed)
        made = {
            key: quantity(numbers[key], protocol, rows=rows, interval=_jackknife(spread.get(key)))
            for key, quantity in COUNTS.items()
        }
        for family, found in significant(pairs.log_p, alpha).items():
            median, n_above = effect_of(pairs, found)
            effect = (
                MEDIAN_AUROC[family](median, protocol, rows=scored),
                AUROC_ABOVE_HALF[family](n_above, protocol, rows=scored),
            )
            yield from effect
            beside = [effect[0].control("median AUROC"), effect[1].control("AUROC above .5")]
            if label := SHOWN.get((protocol, family)):
                if family == OWN_FAMILY[protocol]:
                    beside.append(above.control(f"above always on, of {len(pairs.concepts)} concepts"))
                label = f"{label} (of {numbers['n_pairs_tested']:,} pairs tested)"
                made[f"n_significant_{family}"] = made[f"n_significant_{family}"].row(label, *beside)
            for c, concept in enumerate(pairs.concepts):
                count = int(found[:, c].sum())
                yield COUNTS[f"n_significant_{family}"](count, f"{protocol}/{concept}", rows=f"of this concept; {rows}")
        yield from made.values()

    def _best(self, pairs: Pairs, best: BestLatents, latents: Latents, labels: ConceptLabels) -> Iterator[Measure]:
        """Of each concept's best latent; the corrected protocol's scores have an interval, controls and a row."""
        corrected, given = pairs.protocol == "corrected", self.options
        ends = best_f1_interval(pairs, best, latents, labels, given.n_bootstrap, given.seed) if corrected else None
        alone = f1_source_only(labels) if corrected else None
        hidden = np.ones(len(best.latent), dtype=bool)
        if alone is not None and (labels.splits == "test").any():
            hidden = np.isnan(alone) & (best.latent < 0)
        section = _section_of_best(pairs, [concept for concept, h in zip(pairs.concepts, hidden, strict=True) if h])
        for c, concept in enumerate(pairs.concepts):
            group, rows, why = f"{pairs.protocol}/{concept}", SCORED[pairs.protocol], _why_undefined(pairs, labels, c)
            latent = None if best.latent[c] < 0 else int(best.latent[c])
            made = {
                name: BEST[name](values[c], group, rows=rows, reason=why[name]) for name, values in best.scores.items()
            }
            if ends is not None:
                made["f1_test"] = replace(made["f1_test"], interval=Interval(*ends[:, c], what=F1_INTERVAL))
            if alone is not None:
                made["source_only"] = SOURCE_ONLY(alone[c], group, reason=why["f1_test"])
            if not hidden[c]:
                beside = [made[name].control(column) for name, column in BESIDE.items()]
                made["f1_test"] = made["f1_test"].row(_label(concept, latent, labels, c), *beside, section=section)
            yield BEST_LATENT(latent, group, rows=rows, reason=why["f1_validation"])
            yield from made.values()


def pairs_table(pairs: Pairs) -> pd.DataFrame:
    """One row a pair, null where undefined, ordered by latent and then by concept."""
    latents, concepts = pairs.log_p.shape
    names = pd.Categorical.from_codes(np.tile(np.arange(concepts), latents), categories=list(pairs.concepts))
    fixed = {
        "latent": np.repeat(np.arange(latents), concepts),
        "concept": names,
        "protocol": pd.Categorical([pairs.protocol] * (latents * concepts), categories=list(PROTOCOLS)),
        "threshold_split": pd.array(pairs.threshold_splits * latents, dtype="string"),
    }
    return pd.DataFrame({c: fixed[c] if c in fixed else nullable(pairs.columns[c]) for c in COLUMNS})


def _section_of_best(pairs: Pairs, hidden: list[str]) -> Section:
    """The note says which split chose, and which concepts have nothing to show."""
    on_train = [name for name, split in zip(pairs.concepts, pairs.threshold_splits, strict=True) if split == "train"]
    chosen = "validation memes"
    if on_train and "validation" not in pairs.threshold_splits:
        chosen = "train memes (no concept is true of a validation meme)"
    elif on_train:
        chosen += f" (train memes for {_listed(on_train)}: true of no validation meme)"
    note = (
        f"latent and threshold chosen on {chosen}; always on: a latent that fires on every meme; source only: the best rule "
        "that reads nothing but the source; chosen: F1 on the memes that chose; AUROC: of that latent, within source"
    )
    note += f". Not shown, as no latent can be chosen: {_listed(hidden)}" if hidden else ""
    return Section(
        "Concepts: F1 on test memes of the best latent of each concept",
        note,
        "F1, test memes (AUROC: of the same latent)",
    )


def _label(concept: str, latent: int | None, labels: ConceptLabels, c: int) -> str:
    known = labels.known[:, c] != UNKNOWN
    tested = "" if known[labels.splits == "test"].any() else f"; label known for {_by_split(known, labels)}"
    return f"{concept} ({'no latent' if latent is None else f'latent {latent}'}{tested})"


def _why_undefined(pairs: Pairs, labels: ConceptLabels, c: int) -> dict[str, str]:
    """By name of a score of the best latent."""
    if pairs.protocol == "published":
        return {name: NOT_HELD_OUT if name in HELD_OUT else "the concept is true of no meme" for name in BEST}
    known, true = (_by_split(labels.known[:, c] >= code, labels) for code in (FALSE, TRUE))
    counts = f"the label is known for {known}; the concept is true of {true}"
    needs = {
        "f1_validation": "a threshold needs a true validation or train meme, and a latent that fires on one with a label",
        "f1_always_on": "a test score needs true test memes",
        "auroc": "an AUROC needs true and false test memes of one source, and a latent that has a threshold",
    }
    f1 = "a test score needs true test memes, and a latent that has a threshold"
    return {name: f"{counts}: {needs.get(name, f1)}" for name in BEST}


def _by_split(rows: np.ndarray, labels: ConceptLabels) -> str:
    return ", ".join(f"{int(rows[labels.splits == split].sum()):,} {split}" for split in SPLITS) + " memes"


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _jackknife(ends: tuple[float, float] | None) -> Interval | None:
    if ends is None:
        return None
    low, high = ends if any(ends) else (None, None)
    return Interval(low, high, JACKKNIFE, "no four fifths of the memes give any: the spread of 0 is not known")


def _verdict(measures: list[Measure]) -> str | None:
    """Of the corrected protocol where there is one; the effect beside the count."""
    number = {measure.key: measure.value for measure in measures}
    if (n := number.get("corrected/n_significant_global")) is None:
        return (
            f"{number['published/n_significant_concept']:,} latent x concept pairs are significant under the published "
            "protocol, which cannot tell a concept from the source of a meme."
        )
    tested, median, above = (
        number[f"corrected/{key}"]
        for key in ("n_pairs_tested", "median_auroc_significant_global", "n_concepts_above_always_on")
    )
    if not tested:
        return None
    if not n:
        return f"Not one of {tested:,} latent x concept pairs is significant."
    if median is None or above is None:
        return f"Significant: {n:,} of {tested:,} latent x concept pairs; no test memes say how large the effects are."
    return (
        f"Significant: {n:,} of {tested:,} latent x concept pairs, with a median AUROC of {median:.2f} on test memes; the "
        f"best latent beats always-on for {above} of {number['corrected/n_concepts']} concepts."
    )
