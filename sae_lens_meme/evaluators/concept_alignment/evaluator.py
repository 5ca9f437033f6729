"""Concept alignment: which latents fire on which labelled concepts, with every control beside the number.

`corrected` tests labelled memes within their source and scores on test memes; `published` repeats InterVLM's
procedure fault for fault, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment.compute import (
    PROTOCOLS,
    BestLatents,
    Pairs,
    association,
    best_f1_interval,
    best_latents,
    f1_source_only,
    measure_pairs,
    n_best_above_always_on,
    significant,
)
from sae_lens_meme.evaluators.concept_alignment.counts import (
    INTERVLM_F1,
    N_ABOVE,
    N_F1,
    count_intervals,
    effect_of,
    n_above_always_on,
    pair_counts,
    significant_without_test,
)
from sae_lens_meme.evaluators.concept_alignment.curse import curse_of
from sae_lens_meme.evaluators.concept_alignment.printed import label_of, pairs_table, section_of_best, why_undefined
from sae_lens_meme.evaluators.concept_alignment.quantities import (
    ABOVE_ALWAYS_ON,
    AUROC_ABOVE_HALF,
    BEST,
    BEST_LATENT,
    COLUMNS,
    COUNTS,
    CURSE,
    F1_INTERVAL,
    FOUND_BY_LENGTH,
    HELD_OUT,
    HOLDING_HALF,
    JACKKNIFE,
    LOST_TO_LENGTH,
    MEDIAN_AUROC,
    N_CONCEPTS,
    NO_QUALITY,
    NOT_HELD_OUT,
    SCORED,
    SEEDS,
    SOURCE_ONLY,
    TESTED,
    WITHOUT_TEST,
)
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, Concepts, concepts_of, require_concepts
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents, encode, require_latents_of
from sae_lens_meme.evaluators.result import Interval, Measure, Result, Section
from sae_lens_meme.evaluators.strata import NO_LENGTH, Strata, n_words, strata_of
from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.ranking import Ranked

SHOWN = {
    ("corrected", "global"): "corrected protocol",
    ("published", "concept"): "published protocol",
}
"""Counts of the printed table, by protocol and family of tests."""
OWN_FAMILY = {"corrected": "global", "published": "concept"}
BESIDE = {
    **{"f1_always_on": "always on", "source_only": "source only", "f1_validation": "chosen"},
    **{"selection": "selection", "shift": "shift", "auroc": "AUROC"},
}
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
        strata: Strata = "source"
        """Memes are compared within source, or within source_and_length (also by up to deciles of the caption's length in each source)."""
        n_bootstrap: options.Count = 200
        """Resamples of the memes for intervals; 0 leaves the intervals out."""
        seed: options.Count = 0
        """Seed of the resamples."""

    def __init__(
        self,
        embeddings: Embeddings,
        concepts: Iterable[str | Concept] | None = None,
        *,
        seeds: Mapping[str, Any] | None = None,
        **given: Any,
    ):
        super().__init__(embeddings, concepts=concepts, **given)
        self.concepts, self.seeds = concepts_of(embeddings, self.options.concepts), dict(seeds or {})

    @classmethod
    def from_context(cls, context: Context) -> Self:
        require_concepts(context.embeddings, context.options.concepts)
        return cls(context.embeddings, seeds=context.other_seeds(cls.name), **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        seeds = [encode(other, embeddings, self.hook) for other in self.seeds.values()]
        return self.measure_latents(embeddings, latents, seeds)

    def measure_latents(self, embeddings: Embeddings, latents: Latents, seeds: Sequence[Latents] = ()) -> Result:
        """The same for any units that come as `Latents` (raw neurons, other dictionaries).

        Args:
            seeds: latents of the same memes by SAEs of other training seeds.
        """
        require_latents_of(latents, embeddings)
        by_source = ConceptLabels.of(embeddings, concepts_of(embeddings, self.concepts))
        labels = by_source.within(strata_of(embeddings, self.options.strata))
        ranked, wanted = Ranked.of(latents.csr()), self.options.protocol
        pairs = [measure_pairs(latents, labels, p, ranked) for p in (PROTOCOLS if wanted == "both" else (wanted,))]
        measures = [
            m
            for found in pairs
            for m in self._of_protocol(found, latents, ranked, labels, by_source, embeddings, seeds)
        ]
        section = Section(
            f"Concepts: latent x concept pairs with q < {self.options.alpha:g}",
            "95 %: for this SAE alone (delete-d jackknife over memes, groups whole)"
            f"{f'; other training seeds ({len(seeds)}): least and most' if seeds else ', not over training seeds'}. Beside each "
            "count the size of the effects: the median AUROC of these pairs (corrected: of those that are significant without the "
            "test memes, which would flatter what they chose), the share of them with .5 in the interval of the "
            "AUROC (indistinguishable from chance), and how many concepts have a latent with a larger F1 than firing always: on test "
            "memes, or for the published protocol on all memes. The published protocol treats each concept as "
            f"its own family of tests, so that false pairs add up over concepts. {NO_QUALITY}",
        )
        table = pd.concat([pairs_table(found) for found in pairs], ignore_index=True)
        return Result(self.name, section, tuple(measures), table, COLUMNS, _verdict(measures))

    def _of_protocol(
        self,
        pairs: Pairs,
        latents: Latents,
        ranked: Ranked,
        labels: ConceptLabels,
        by_source: ConceptLabels,
        embeddings: Embeddings,
        seeds: Sequence[Latents],
    ) -> Iterator[Measure]:
        """`by_source` are the labels whatever the strata."""
        best, protocol, rows = best_latents(pairs), pairs.protocol, SCORED[pairs.protocol]
        above = ABOVE_ALWAYS_ON(n_best_above_always_on(pairs, best), protocol, rows=rows)
        yield from (N_CONCEPTS(len(pairs.concepts), protocol), above)
        yield from self._counts(pairs, latents, labels, above, seeds)
        if protocol == "corrected":
            yield from self._without_length(latents, by_source, embeddings)
        for name, values in best.scores.items():
            median = None if np.isnan(values).all() else float(np.nanmedian(values))
            held = name in HELD_OUT and protocol == "published"
            what = f"median over concepts of {BEST[name].key}: {BEST[name].what}; {rows}"
            reason = NOT_HELD_OUT if held else "it is defined for no concept"
            yield Measure(f"{protocol}/median_{BEST[name].key}", median, what, reason=reason)
        yield from self._best(pairs, best, ranked, labels, by_source)

    def _counts(
        self, pairs: Pairs, latents: Latents, labels: ConceptLabels, above: Measure, seeds: Sequence[Latents]
    ) -> Iterator[Measure]:
        """Counts of significant pairs; the shown ones with their effect beside them."""
        protocol, alpha, scored = pairs.protocol, self.options.alpha, SCORED[pairs.protocol]
        rows = f"{TESTED[protocol]}; alpha = {alpha:g}"
        numbers = pair_counts(pairs.log_p, alpha)
        numbers |= {N_F1: int((pairs.columns[pairs.score()] > INTERVLM_F1).sum()), N_ABOVE: n_above_always_on(pairs)}
        spread = count_intervals(latents, labels, protocol, alpha, self.options.n_bootstrap, self.options.seed)
        made = {
            key: quantity(numbers[key], protocol, rows=rows, interval=_jackknife(spread.get(key)))
            for key, quantity in COUNTS.items()
        }
        unselected = significant_without_test(latents, labels, alpha) if protocol == "corrected" else None
        for family, found in significant(pairs.log_p, alpha).items():
            effect = effect_of(pairs, found if unselected is None else unselected[family])
            median = MEDIAN_AUROC[family](effect.median, protocol, rows=scored)
            holding = HOLDING_HALF[family](effect.share_holding_half, protocol, rows=scored)
            yield from (median, holding, AUROC_ABOVE_HALF[family](effect.n_above_half, protocol, rows=scored))
            beside = [median.control("median AUROC"), holding.control("share with .5 in its interval")]
            if unselected is not None:
                without = WITHOUT_TEST[family](int(unselected[family].sum()), protocol, rows=rows)
                yield without
                beside.insert(0, without.control("without test memes"))
            if label := SHOWN.get((protocol, family)):
                if family == OWN_FAMILY[protocol]:
                    beside.append(above.control(f"above always on, of {len(pairs.concepts)} concepts"))
                if protocol == "corrected":
                    spread_over_seeds = [*self._over_seeds(seeds, labels, rows)]
                    yield from spread_over_seeds
                    beside += [m.control(f"seeds, {what}") for m, what in zip(spread_over_seeds, SEEDS, strict=False)]
                label = f"{label} (of {numbers['n_pairs_tested']:,} pairs tested)"
                made[f"n_significant_{family}"] = made[f"n_significant_{family}"].row(label, *beside)
            for c, concept in enumerate(pairs.concepts):
                count = int(found[:, c].sum())
                yield COUNTS[f"n_significant_{family}"](count, f"{protocol}/{concept}", rows=f"of this concept; {rows}")
        yield from made.values()

    def _over_seeds(self, seeds: Sequence[Latents], labels: ConceptLabels, rows: str) -> Iterator[Measure]:
        """The same count of SAEs of other seeds."""
        if not seeds:
            return
        alpha, counts = self.options.alpha, []
        for other in seeds:
            count = Counter(other.csr(), labels.known, labels.sources).count
            counts.append(int(significant(association(count, labels, "corrected", alpha), alpha)["global"].sum()))
        for what, value in (("least", min(counts)), ("most", max(counts))):
            yield SEEDS[what](value, "corrected", rows=f"{len(counts)} seeds; {rows}")

    def _without_length(self, latents: Latents, by_source: ConceptLabels, embeddings: Embeddings) -> Iterator[Measure]:
        """How many pairs disappear, and appear, when memes are compared within caption length too."""
        if n_words(embeddings) is None:
            yield from (q(None, "corrected", reason=NO_LENGTH) for q in (LOST_TO_LENGTH, FOUND_BY_LENGTH))
            return
        alpha, found = self.options.alpha, []
        for labels in (by_source, by_source.within(strata_of(embeddings, "source_and_length"))):
            count = Counter(latents.csr(), labels.known, labels.sources).count
            found.append(significant(association(count, labels, "corrected", alpha), alpha)["global"])
        source, length = found
        rows = f"alpha = {alpha:g}"
        new = FOUND_BY_LENGTH(int((length & ~source).sum()), "corrected", rows=rows)
        lost = LOST_TO_LENGTH(int((source & ~length).sum()), "corrected", rows=rows)
        label = f"of the {int(source.sum()):,} within source, gone within caption length"
        yield from (lost.row(label, new.control("found instead")), new)

    def _best(
        self, pairs: Pairs, best: BestLatents, ranked: Ranked, labels: ConceptLabels, by_source: ConceptLabels
    ) -> Iterator[Measure]:
        """Of each concept's best latent; the corrected protocol's scores have an interval, controls and a row."""
        corrected, given = pairs.protocol == "corrected", self.options
        ends = best_f1_interval(pairs, best, ranked, labels, given.n_bootstrap, given.seed) if corrected else None
        alone = f1_source_only(by_source) if corrected else None
        curse = curse_of(best, ranked, labels, given.seed) if corrected else None
        hidden = np.ones(len(best.latent), dtype=bool)
        if alone is not None and (labels.splits == "test").any():
            hidden = np.isnan(alone) & (best.latent < 0)
        section = section_of_best(pairs, [concept for concept, h in zip(pairs.concepts, hidden, strict=True) if h])
        for c, concept in enumerate(pairs.concepts):
            group, rows, why = f"{pairs.protocol}/{concept}", SCORED[pairs.protocol], why_undefined(pairs, labels, c)
            latent = None if best.latent[c] < 0 else int(best.latent[c])
            made = {
                name: BEST[name](values[c], group, rows=rows, reason=why[name]) for name, values in best.scores.items()
            }
            if ends is not None:
                made["f1_test"] = replace(made["f1_test"], interval=Interval(*ends[:, c], what=F1_INTERVAL))
            if curse is not None:
                made |= {
                    name: CURSE[name](part[c], group, reason=why["f1_test"]) for name, part in curse._asdict().items()
                }
            if alone is not None:
                made["source_only"] = SOURCE_ONLY(alone[c], group, reason=why["f1_test"])
            if not hidden[c]:
                beside = [made[name].control(column) for name, column in BESIDE.items()]
                made["f1_test"] = made["f1_test"].row(
                    label_of(pairs, concept, latent, labels, c), *beside, section=section
                )
            yield BEST_LATENT(latent, group, rows=rows, reason=why["f1_validation"])
            yield from made.values()


def _jackknife(ends: tuple[float, float] | None) -> Interval | None:
    if ends is None:
        return None
    low, high = ends if any(ends) else (None, None)
    return Interval(low, high, JACKKNIFE, "every subset of four fifths of the memes gives 0: its spread is not known")


def _verdict(measures: list[Measure]) -> str | None:
    """Of the corrected protocol where there is one; the effect beside the count."""
    number = {measure.key: measure.value for measure in measures}
    if (n := number.get("corrected/n_significant_global")) is None:
        return (
            f"{number['published/n_significant_concept']:,} latent x concept pairs are significant under the published "
            "protocol, which cannot tell a concept from the source of a meme."
        )
    tested, without, median, holding, above = (
        number[f"corrected/{key}"]
        for key in (
            "n_pairs_tested",
            "n_significant_without_test_global",
            "median_auroc_significant_global",
            "share_auroc_holding_half_significant_global",
            "n_concepts_above_always_on",
        )
    )
    if not tested:
        return None
    if not n:
        return f"Not one of {tested:,} latent x concept pairs is significant."
    significant_pairs = f"{n:,} of {tested:,} latent x concept pairs are significant"
    if not without and above is not None:
        return (
            f"{significant_pairs}, none of them without the test memes, so that nothing says how large the effects are."
        )
    if median is None or above is None:
        return f"{significant_pairs}; there are no test memes to say how large the effects are."
    return (
        f"{significant_pairs}; those found without the test memes ({without:,}) have a median AUROC of {median:.2f} on them"
        f"{'' if holding is None else f', {holding:.0%} indistinguishable from .5'}; the best latent beats always-on for {above} of "
        f"{number['corrected/n_concepts']} concepts."
    )
