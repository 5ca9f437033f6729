"""Every question against every subgroup, with the same under permuted membership, and the worst pair of each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.contest import resampled
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.subgroups.compute import Audit, ablated, audit, carried, gap_log_p, matched_draws
from sae_lens_meme.evaluators.subgroups.questions import SOURCE, AuditQuestion, Subgroup
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.by_column import count_by_column
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg
from sae_lens_meme.metrics.resampling import permutation_within
from sae_lens_meme.metrics.threads import in_threads

CARRIERS = 10
"""Latents that are listed of each pair."""


@dataclass(frozen=True, eq=False)
class AuditedMemes:
    """What is the same for every question."""

    embeddings: Embeddings
    latents: Latents
    gain: Float64[np.ndarray, "d_sae questions"] | None
    """What one unit of each latent adds to each logit; None where the decoder has no fixed rows."""
    rows: Int[np.ndarray, " measured"]
    weights: Any
    """How often each of these is drawn, one column per draw; the first is the memes as they are."""
    min_support: int

    @classmethod
    def of(
        cls,
        embeddings: Embeddings,
        latents: Latents,
        questions: Sequence[AuditQuestion],
        decoder: Float64[np.ndarray, "d_sae d_in"] | None,
        *,
        replicates: int,
        seed: int,
        min_support: int,
    ) -> AuditedMemes:
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *(q.test for q in questions)]))
        coef = np.stack([q.coef for q in questions], axis=1) if questions else None
        gain = None if decoder is None or coef is None else decoder @ coef
        return cls(embeddings, latents, gain, rows, resampled(embeddings, rows, replicates, seed), min_support)

    def drawn(self, rows: np.ndarray) -> Any:
        """The weights of these of the measured memes."""
        return self.weights[np.searchsorted(self.rows, rows)]

    def only(self, rows: np.ndarray) -> Bool[np.ndarray, " n"]:
        """Which of all memes these are."""
        found = np.zeros(len(self.embeddings), dtype=bool)
        found[rows] = True
        return found


@dataclass(frozen=True, eq=False)
class AuditedSubgroup:
    """One question and one subgroup."""

    question: AuditQuestion
    subgroup: Subgroup
    audit: Audit
    log_p: float
    within: float
    """The gap within source."""
    repeats: int
    """How many places before it the same memes are compared, one side for the other; 0 where nowhere."""
    selection_gap: float
    """The gap on the memes that select."""
    carriers: Int[np.ndarray, " carriers"]
    """The latents that carry this gap, the strongest first."""
    carried: Float64[np.ndarray, " carriers"]
    """What each adds to the mean logit of the subgroup's negatives beyond that of the background's; memes that select."""

    @property
    def size(self) -> tuple[float, float]:
        """Of the gap that selects; of two that mirror each other the one that is treated worse is the larger."""
        return abs(self.selection_gap), self.selection_gap


def audits(
    questions: Sequence[AuditQuestion], subgroups: Sequence[Subgroup], memes: AuditedMemes
) -> list[AuditedSubgroup]:
    """All pairs, without those of a question and a value of its own label."""

    def of(place: int) -> list[AuditedSubgroup]:
        question = questions[place]
        mine = [s for s in subgroups if s.column != question.task.name]
        measured = [_audit(question, s, memes) for s in mine]
        log_p, within = np.full((2, len(mine)), np.nan)
        enough = [i for i, a in enumerate(measured) if "fpr_gap" not in a.reasons]
        log_p[enough], within[enough] = gaps_tested(question, [mine[i] for i in enough], memes)
        gain = None if memes.gain is None else memes.gain[:, place]
        repeats, selected = repeats_of(question, mine), _selected(question, mine, memes, gain)
        parts = zip(mine, measured, log_p, within, repeats, selected, strict=True)
        return [AuditedSubgroup(question, s, a, p, w, r, *chosen) for s, a, p, w, r, chosen in parts]

    return [found for each in in_threads(of, range(len(questions))) for found in each]


def _audit(question: AuditQuestion, subgroup: Subgroup, memes: AuditedMemes) -> Audit:
    rows = question.test[subgroup.codes[question.test] != UNKNOWN]
    member = subgroup.codes[rows] == TRUE
    scores, true = question.logits[rows], question.true[rows]
    groups = memes.embeddings.groups[rows]
    return audit(scores, true, member, question.threshold, memes.drawn(rows), memes.min_support, groups)


def gaps_tested(
    question: AuditQuestion,
    subgroups: Sequence[Subgroup],
    memes: AuditedMemes,
    to: dict[bool, np.ndarray] | None = None,
) -> tuple[Float64[np.ndarray, " subgroups"], Float64[np.ndarray, " subgroups"]]:
    """Log p of the gap of each subgroup, and the gap within source: NaN of subgroups that are sources.

    Args:
        to: membership is taken from these rows instead, by whether the subgroup is a source.
    """
    rows = question.test[~question.true[question.test]]
    flagged, groups = question.logits[rows] >= question.threshold, memes.embeddings.groups[rows]
    log_p, within = np.full(len(subgroups), np.nan), np.full(len(subgroups), np.nan)
    for is_source in (False, True):
        mine = [i for i, s in enumerate(subgroups) if (s.column == SOURCE) == is_source]
        if not mine or not len(rows):
            continue
        from_rows = rows if to is None else to[is_source][rows]
        members = np.stack([subgroups[i].codes[from_rows] for i in mine], axis=1)
        strata = memes.embeddings.strata[rows]
        found = gap_log_p(flagged, members, np.zeros_like(strata) if is_source else strata, groups)
        log_p[mine] = found.log_p
        within[mine] = np.nan if is_source else found.within
    return log_p, within


def _selected(
    question: AuditQuestion, subgroups: Sequence[Subgroup], memes: AuditedMemes, gain: np.ndarray | None
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Of each subgroup the gap on the memes that select, and the latents that carry it there."""
    rows = question.selection[~question.true[question.selection]]
    flagged = question.logits[rows] >= question.threshold
    none = (np.nan, np.empty(0, np.int64), np.empty(0))
    found = []
    for subgroup in subgroups:
        first, second = (subgroup.codes[rows] == code for code in (TRUE, FALSE))
        if min(first.sum(), second.sum()) < memes.min_support:
            found.append(none)
            continue
        gap = float(flagged[first].mean() - flagged[second].mean())
        if gain is None:
            found.append((gap, *none[1:]))
            continue
        difference = carried(memes.latents.csr(), gain, memes.only(rows[first]), memes.only(rows[second]))
        along = difference if gap >= 0 else -difference
        order = np.argsort(-along, kind="stable")
        order = order[along[order] > 0]
        found.append((gap, order, difference[order]))
    return found


def repeats_of(question: AuditQuestion, subgroups: Sequence[Subgroup]) -> list[int]:
    """Of each subgroup how many places before it the same memes are compared; 0 where nowhere.

    Those outside of one value of two are those with the other; where a label is known in two sources, so are these.
    """
    first: dict[tuple[bool, bytes], int] = {}
    places = []
    for i, subgroup in enumerate(subgroups):
        codes = subgroup.codes[question.test]
        opposite = np.where(codes == UNKNOWN, UNKNOWN, FALSE + TRUE - codes).astype(codes.dtype)
        sides = min(codes.tobytes(), opposite.tobytes())
        places.append(i - first.setdefault((subgroup.column == SOURCE, sides), i))  # sources are tested without strata
    return places


def q_of(found: Sequence[AuditedSubgroup]) -> Float64[np.ndarray, " pairs"]:
    """Benjamini-Hochberg q over all pairs; one that repeats another has its q, and is no test of its own."""
    repeats, log_p = np.array([f.repeats for f in found], dtype=int), np.array([f.log_p for f in found], dtype=float)
    q = benjamini_hochberg(np.where(repeats > 0, np.nan, log_p))
    return q[np.arange(len(found)) - repeats]


class Null(NamedTuple):
    """Of draws of permuted membership."""

    significant: Float64[np.ndarray, " draws"]
    """Pairs with q < alpha."""
    gap: Float64[np.ndarray, " pairs"]
    """Mean |gap| of each pair; NaN where it has none."""


def permuted(found: Sequence[AuditedSubgroup], memes: AuditedMemes, alpha: float, draws: int, seed: int) -> Null:
    """The same tests where membership changes places within source (sources: among all memes), groups whole."""
    embeddings, measured = memes.embeddings, [i for i, f in enumerate(found) if "fpr_gap" not in f.audit.reasons]
    repeated = np.array([found[i].repeats > 0 for i in measured], dtype=bool)
    by_question = [
        (question, [found[i].subgroup for i in mine])
        for question, mine in groupby(measured, lambda i: found[i].question)
        for mine in [list(mine)]
    ]

    def draw(i: int) -> tuple[int, np.ndarray]:
        rng = np.random.default_rng([seed, i])
        strata = {False: embeddings.strata, True: np.zeros_like(embeddings.strata)}
        to = {kind: permutation_within(of, rng, embeddings.by_id, embeddings.groups) for kind, of in strata.items()}
        log_p = [gaps_tested(question, mine, memes, to)[0] for question, mine in by_question]
        q = benjamini_hochberg(np.where(repeated, np.nan, np.concatenate([np.empty(0), *log_p])))
        gaps = np.full(len(found), np.nan)
        gaps[measured] = [_gap(found[i], to[found[i].subgroup.column == SOURCE]) for i in measured]
        return int((q < alpha).sum()), gaps

    drawn = in_threads(draw, range(draws))
    gaps = np.array([gap for _, gap in drawn]).reshape(draws, len(found))
    return Null(
        np.array([n for n, _ in drawn], np.float64), gaps.mean(axis=0) if draws else np.full(len(found), np.nan)
    )


def _gap(found: AuditedSubgroup, to: np.ndarray) -> float:
    rows = found.question.test[~found.question.true[found.question.test]]
    codes = found.subgroup.codes[to[rows]]
    flagged = found.question.logits[rows] >= found.question.threshold
    sides = [flagged[codes == code] for code in (TRUE, FALSE)]
    return abs(sides[0].mean() - sides[1].mean()) if all(map(len, sides)) else np.nan


def worst_of(found: Sequence[AuditedSubgroup]) -> list[AuditedSubgroup]:
    """Of each question the subgroup with the largest gap on the memes that select, the largest gap first.

    Of subgroups whose gap is measured and, on the memes that select, large enough to be known.
    """
    best: dict[str, AuditedSubgroup] = {}
    for f in found:
        if "fpr_gap" in f.audit.reasons or np.isnan(f.selection_gap):
            continue
        if f.question.name not in best or f.size > best[f.question.name].size:
            best[f.question.name] = f
    return sorted(best.values(), key=lambda f: -abs(f.selection_gap))


class CarrierAblation(NamedTuple):
    """What setting the strongest n carriers to zero does, and what as many matched latents do in each draw."""

    n: int
    latents: Int[np.ndarray, " chosen"]
    gap: Float64[np.ndarray, " draws"]
    closed: Float64[np.ndarray, " draws"]
    """|gap| before minus |gap| after."""
    auroc: float
    auroc_lost: float
    closed_matched: Float64[np.ndarray, " matched"] | None
    auroc_lost_matched: Float64[np.ndarray, " matched"] | None


def effects_of(
    found: AuditedSubgroup, place: int, memes: AuditedMemes, ns: Sequence[int], n_matched: int, seed: int
) -> list[CarrierAblation]:
    """Of the strongest carriers of a pair, on the memes that measure; none where nothing carries the gap.

    Args:
        place: of the question.
    """
    question = found.question
    if memes.gain is None or not len(found.carriers):
        return []
    gain, test = memes.gain[:, place], question.test
    negatives = test[~question.true[test]]
    sides = [negatives[found.subgroup.codes[negatives] == code] for code in (TRUE, FALSE)]
    drawn = [memes.drawn(side) for side in sides]
    fixed = (question.threshold, question.threshold_rows, test, question.true, *sides)

    nothing, strongest = np.empty(0, np.int64), [found.carriers[:n] for n in ns]
    n_active, rng = count_by_column(memes.latents.csr(), question.selection), np.random.default_rng([seed, place])
    rivals_of = [matched_draws(chosen, n_active, n_matched, rng) if n_matched else None for chosen in strongest]
    needed = np.unique(np.concatenate([*strongest, *(of.ravel() for of in rivals_of if of is not None)]))
    columns = memes.latents.csr()[:, needed].tocsc()

    def without(chosen: np.ndarray, weights: Any = None) -> tuple[np.ndarray, float]:
        removed = columns[:, np.searchsorted(needed, chosen)] @ gain[chosen]
        return ablated(question.logits, removed, *fixed, weights=weights)

    before, auroc = without(nothing, drawn)
    made = []
    for n, chosen, matched in zip(ns, strongest, rivals_of, strict=True):
        after, auroc_after = without(chosen, drawn)
        closed_matched = lost_matched = None
        if matched is not None:
            rivals = [without(of) for of in matched]
            closed_matched = np.array([abs(before[0]) - abs(gap[0]) for gap, _ in rivals])
            lost_matched = np.array([auroc - rival for _, rival in rivals])
        closed = np.abs(before) - np.abs(after)
        made.append(
            CarrierAblation(n, chosen, after, closed, auroc_after, auroc - auroc_after, closed_matched, lost_matched)
        )
    return made
