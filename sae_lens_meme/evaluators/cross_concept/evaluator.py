"""Cross-concept analysis: which latents serve which concepts together, against chance and against the labels' overlap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment import association, significant
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, Concepts, concepts_of, require_concepts
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.cross_concept.compute import Pairs, from_labels_alone, label_overlap, shared_latents
from sae_lens_meme.evaluators.cross_concept.quantities import (
    COLUMNS,
    EXPECTED,
    EXPECTED_RATE,
    FROM_LABELS,
    N_BEYOND,
    N_EQUAL_RATE,
    N_LATENTS,
    N_PAIRS,
    N_PERMUTED,
    N_SERVING,
    N_SERVING_PERMUTED,
    N_SHARING,
    PHI,
    Q_RATE,
    SHARED,
    Q,
)
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Measure, Result, Section, nullable
from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.by_column import count_by_column
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg

PRINTED, LISTED = 8, 20
NULL_DRAWS = 3
"""Draws of all labels permuted: each tests every latent for every concept."""
PAIRS = Section(
    "Concepts that share latents",
    "by chance: given how many latents each has; equal rate: the same among latents of similar firing rate; labels alone: what "
    "the overlap of the labels gives when the latents follow only one of the two; phi: of the two labels",
    "latents that serve both concepts",
)


class CrossConcept(Evaluator):
    """Latents that two concepts share, for every pair of concepts."""

    name = "cross_concept"
    question = "which latents serve which concepts together"
    control = (
        "chance from the margins, latents of similar firing rate, the overlap of the labels alone, permuted labels"
    )
    needs_labels = True

    class Options(options.Options):
        concepts: Concepts = None
        """Concepts such as hate=1; default as for concept alignment."""
        alpha: options.Share = 0.05
        """A latent belongs to a concept, and a pair of concepts shares latents, where q is below."""
        n_permutations: options.Count = 20
        """Draws of labels that overlap as they do and tell the latents nothing else; 0 for none."""
        seed: options.Count = 0
        """Seed of the permutations."""

    @classmethod
    def from_context(cls, context: Context) -> Self:
        require_concepts(context.embeddings, context.options_of(cls)["concepts"])
        return super().from_context(context)

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        concepts, given = concepts_of(embeddings, self.options.concepts), self.options
        labels = ConceptLabels.of(embeddings, concepts)
        log_p, found = _belonging(latents, labels, given.alpha)
        pairs = _Compared.of(concepts, log_p, found, latents)
        cutoff = log_p[found].max(initial=-np.inf)
        draws = from_labels_alone(
            *(latents, labels, found, pairs.columns, float(cutoff), given.n_permutations, given.seed),
            order=embeddings.by_id,
        )
        table = _table(pairs, draws, labels, log_p, found, given.alpha)
        measures = [*self._counts(pairs, table, found, latents, labels), *_of_pairs(table)]
        return Result(self.name, PAIRS, tuple(measures), table, COLUMNS, _verdict(measures, table))

    def _counts(
        self,
        pairs: _Compared,
        table: pd.DataFrame,
        found: np.ndarray,
        latents: Latents,
        labels: ConceptLabels,
    ) -> Iterator[Measure]:
        given, names = self.options, [concept.label for concept in pairs.concepts]
        generator, null = np.random.default_rng(given.seed), []
        for _ in range(NULL_DRAWS if given.n_permutations else 0):
            permuted = labels.permuted(generator)
            log_p, drawn = _belonging(latents, permuted, given.alpha)
            q = _Compared.of(pairs.concepts, log_p, drawn, latents).q
            null.append([(q < given.alpha).sum(), _serving_two(drawn, names)])
        sharing, serving = np.mean(null, axis=0) if null else (None, None)
        n = N_PAIRS(int(table["q"].notna().sum()))
        rows = f"alpha = {given.alpha:g}"
        permuted = N_PERMUTED(sharing, rows=f"{NULL_DRAWS} draws (seed {given.seed}); {rows}")
        rate = N_EQUAL_RATE(int((table["q_equal_rate"] < given.alpha).sum()), rows=rows)
        beyond = N_BEYOND(int(table["beyond_labels"].sum()) if given.n_permutations else None, rows=rows)
        counts = Section(
            "Cross-concept: pairs of concepts that share latents",
            f"of {n.value} pairs of concepts of different labels, those with q < {given.alpha:g}; equal rate: the same among "
            "latents of similar firing rate; beyond labels: of these, more than the overlap of the labels explains; permuted: all "
            "labels permuted within source",
        )
        beside = [rate.control("equal rate"), beyond.control("beyond labels"), permuted.control("permuted")]
        yield n
        yield N_SHARING(int((table["q"] < given.alpha).sum()), rows=rows).row(
            "pairs that share more latents than chance", *beside, section=counts
        )
        yield from (rate, beyond, permuted)
        null_serving = N_SERVING_PERMUTED(serving, rows=f"{NULL_DRAWS} draws (seed {given.seed})")
        serves = N_SERVING(_serving_two(found, names))
        label = f"latents that serve two labels or more (of {int(found.any(axis=1).sum())} that serve any)"
        yield serves.row(label, null_serving.control("permuted"), section=counts)
        yield from (N_LATENTS(int(found.any(axis=1).sum())), null_serving)


def _belonging(
    latents: Latents, labels: ConceptLabels, alpha: float
) -> tuple[Float[np.ndarray, "latents concepts"], Bool[np.ndarray, "latents concepts"]]:
    """Natural logs of p (1 may stand for a p above alpha), and which latents belong to which concept."""
    counter = Counter(latents.csr(), labels.known, labels.sources)
    log_p = association(counter.count, labels, "corrected", alpha)
    return log_p, significant(log_p, alpha)["global"]


def _serving_two(found: Bool[np.ndarray, "latents concepts"], labels: list[str]) -> int:
    of_label = np.stack([found[:, [name == label for name in labels]].any(axis=1) for label in dict.fromkeys(labels)])
    return int((of_label.sum(axis=0) > 1).sum())


class _Compared(NamedTuple):
    """Every pair of concepts."""

    concepts: tuple[Concept, ...]
    columns: Pairs
    same_label: np.ndarray
    counts: Any
    q: np.ndarray
    q_equal_rate: np.ndarray

    @classmethod
    def of(cls, concepts: tuple[Concept, ...], log_p: np.ndarray, found: np.ndarray, latents: Latents) -> _Compared:
        columns = list(combinations(range(len(concepts)), 2))
        same = np.array([concepts[a].label == concepts[b].label for a, b in columns], dtype=bool)
        rate = count_by_column(latents.csr()) / max(latents.n_samples, 1)
        counts = shared_latents(found, columns, rate, ~np.isnan(log_p))
        q, q_rate = (benjamini_hochberg(np.where(same, np.nan, p)) for p in (counts.log_p, counts.log_p_equal_rate))
        return cls(concepts, columns, same, counts, q, q_rate)


def _table(
    pairs: _Compared, draws: np.ndarray, labels: ConceptLabels, log_p: np.ndarray, found: np.ndarray, alpha: float
) -> pd.DataFrame:
    counts, overlap = pairs.counts, label_overlap(labels.known, labels.sources, pairs.columns)
    none = np.full(len(pairs.columns), np.nan)
    mean = draws.mean(axis=0).max(axis=1) if len(draws) else none
    high = np.quantile(draws, 0.95, axis=0).max(axis=1) if len(draws) else none
    beyond = (pairs.q_equal_rate < alpha) & (counts.shared > high)
    known = pd.arrays.BooleanArray(beyond, np.isnan(high))
    names = [concept.name for concept in pairs.concepts]
    columns = {
        "concept": np.array([names[a] for a, _ in pairs.columns], dtype=object),
        "other": np.array([names[b] for _, b in pairs.columns], dtype=object),
        "same_label": pairs.same_label,
        **{"n_tested": counts.tested, "n_concept": counts.first, "n_other": counts.second, "shared": counts.shared},
        **{"expected": nullable(counts.expected), "p": nullable(np.exp(counts.log_p)), "q": nullable(pairs.q)},
        "expected_equal_rate": nullable(counts.expected_equal_rate),
        "p_equal_rate": nullable(np.exp(counts.log_p_equal_rate)),
        "q_equal_rate": nullable(pairs.q_equal_rate),
        **{"shared_permuted": nullable(mean), "shared_permuted_95": nullable(high), "beyond_labels": known},
        **{"n_known": overlap.known, "n_both_true": overlap.both_true},
        **{"phi": nullable(overlap.phi), "phi_within_source": nullable(overlap.phi_within_source)},
        "latents": np.array([_listed(log_p, found, a, b) for a, b in pairs.columns], dtype=object),
    }
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def _listed(log_p: np.ndarray, found: np.ndarray, a: int, b: int) -> str:
    both = np.flatnonzero(found[:, a] & found[:, b])
    weaker = np.maximum(log_p[both, a], log_p[both, b])
    return ", ".join(map(str, both[np.argsort(weaker, kind="stable")][:LISTED]))


def _of_pairs(table: pd.DataFrame) -> Iterator[Measure]:
    """Of pairs of different labels; those that share most beyond what their labels give are printed."""
    different: Any = table[~table["same_label"]]
    excess = different["shared"] - different[["expected_equal_rate", "shared_permuted"]].max(axis=1)
    excess = excess.astype("float64").fillna(-np.inf).where(different["shared"] > 0, -np.inf)
    printed = {i for i in excess.sort_values(ascending=False, kind="stable").index[:PRINTED] if excess[i] > -np.inf}
    for i, row in different.iterrows():
        group = f"{row['concept']} & {row['other']}"
        made = {
            q.key: q(None if pd.isna(row[q.key]) else row[q.key], group)
            for q in (EXPECTED, EXPECTED_RATE, FROM_LABELS, Q, Q_RATE, PHI)
        }
        shared = SHARED(int(row["shared"]), group)
        if i in printed:
            headings = {EXPECTED: "by chance", EXPECTED_RATE: "equal rate", FROM_LABELS: "labels alone"}
            headings |= {Q_RATE: "q, equal rate", PHI: "phi"}
            beside = [made[quantity.key].control(heading) for quantity, heading in headings.items()]
            shared = shared.row(f"{group} (of {row['n_concept']}, {row['n_other']})", *beside)
        yield shared
        yield from made.values()


def _verdict(measures: list[Measure], table: pd.DataFrame) -> str | None:
    number: dict[str, Any] = {measure.key: measure.value for measure in measures}
    n = number[N_PAIRS.key]
    if not n:
        return None
    permuted = number[N_PERMUTED.key]
    chance = "" if permuted is None else f" (permuted labels: {permuted:.1f})"
    sentence = (
        f"{number[N_SHARING.key]} of {n} pairs of concepts share more latents than chance{chance}, "
        f"{number[N_EQUAL_RATE.key]} among latents of similar firing rate"
    )
    if permuted is None:
        return f"{sentence}."
    return f"{sentence}, {number[N_BEYOND.key]} more than the overlap of their labels explains."
