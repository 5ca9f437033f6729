"""The whole contest: every estimator for every set of units, on the same memes and the same bootstrap samples.

Absorption and splitting are measured on a planted hierarchy: is the latent of the general value silent where a special one
fires?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.concepts import Concept
from sae_lens_meme.evaluators.contest.ablation import Biased, biased_probes, scr, tpp
from sae_lens_meme.evaluators.contest.matched import (
    Draws,
    Matched,
    Weights,
    auroc_of,
    best_units,
    correlation_of,
    f1_of,
    one_to_one,
)
from sae_lens_meme.evaluators.contest.probing import LinearProbes, k_sparse, linear_probes, mean_differences
from sae_lens_meme.evaluators.contest.targets import (
    CROSS_MODAL,
    LABELS,
    PLANTED,
    Key,
    Rows,
    Targets,
    special_cases,
    targets_of,
)
from sae_lens_meme.evaluators.contest.units import Units
from sae_lens_meme.evaluators.rows import resampled
from sae_lens_meme.metrics.association import FALSE, TRUE
from sae_lens_meme.metrics.resampling import permutation_within
from sae_lens_meme.standardize import Moments

GROUPS = (LABELS, PLANTED, CROSS_MODAL)
MOST_ABLATED = 64
"""Targets of TPP: its cost is their square. Of more, this many are taken at even distances."""
MOST_PLANTED_K = 5
"""Of k-sparse probes for planted values: with more units all directions read them."""


class Event(NamedTuple):
    """An estimator on a group of targets, with k units or n ablated ones where it has such a number."""

    group: str
    estimator: str
    k: int | None = None

    @property
    def key(self) -> str:
        return f"{self.group}/{self.estimator}" + ("" if self.k is None else f"_{self.k}")


Scores = dict[Event, Draws]
_ONE, _TWO = (Event(PLANTED, "k_sparse", k) for k in (1, 2))


@dataclass(frozen=True, eq=False)
class Arena:
    """What is the same for all sets of units."""

    targets: Targets
    left_out: tuple[str, ...]
    """Targets with too few memes."""
    rows: Rows
    weights: Weights
    logits: Float64[np.ndarray, "test targets"]
    """Of the probes on the whole embedding, on test memes."""
    probes: LinearProbes
    z: Float[np.ndarray, "n d_in"]
    tasks: Mapping[str, list[Biased]]
    cases: tuple[Targets, Int[np.ndarray, " cases"]] | None
    ks: Sequence[int]
    ns: Sequence[int]

    @classmethod
    def of(
        cls,
        embeddings: Embeddings,
        hook: str,
        moments: Moments,
        *,
        concepts: Iterable[str | Concept] | None,
        key: Key | None,
        ks: Sequence[int],
        ns: Sequence[int],
        probe_rows: int,
        replicates: int,
        seed: int,
    ) -> Arena:
        """Raises DataError where there is nothing to score."""
        rows = Rows.of(embeddings)
        targets, left_out = targets_of(embeddings, rows, concepts, key)
        z = np.empty((len(embeddings), embeddings.d_in(hook)), np.float32)
        for batch_rows, batch in embeddings.batches(hook):
            z[batch_rows] = (batch - moments.mean) / moments.std
        probes = linear_probes(z, targets, rows, probe_rows, seed)
        tasks = {g: biased_probes(z, targets, embeddings, rows, g, seed) for g in (LABELS, PLANTED)}
        cases = special_cases(targets, rows) if key is not None else None
        weights = resampled(embeddings, rows.test, replicates, seed)
        logits = probes.logits(z[rows.test])
        return cls(targets, left_out, rows, weights, logits, probes, z, tasks, cases, ks, ns)

    def by_group(self, estimator: str, draws: Draws, k: int | None = None, groups: Sequence[str] = GROUPS) -> Scores:
        """The draws of all targets, group by group."""
        columns = {group: self.targets.columns(group) for group in groups}
        return {Event(group, estimator, k): draws[:, mine] for group, mine in columns.items() if len(mine)}

    def without_draws(self, targets: Targets) -> Arena:
        """The same for other truths, without bootstrap samples."""
        return replace(self, targets=targets, weights=self.weights[:, :1])


def play(units: Units, arena: Arena) -> Scores:
    """Every estimator that these units allow."""
    return {**read(units, arena), **ablate(units, arena)}


def read(units: Units, arena: Arena) -> Scores:
    """The estimators that only read activations."""
    targets, rows, weights = arena.targets, arena.rows, arena.weights
    best = best_units(units, targets, rows)
    columns = best.columns(units)
    scores = arena.by_group("auroc", auroc_of(columns, targets, rows, weights))
    scores |= arena.by_group("f1", f1_of(columns, targets, rows, weights))
    for groups, ks in (((LABELS,), arena.ks), ((PLANTED, CROSS_MODAL), [k for k in arena.ks if k <= MOST_PLANTED_K])):
        mine = targets.columns(*groups)
        for k, draws in k_sparse(units, targets.only(mine), rows, ks, weights).items() if len(mine) and ks else ():
            everywhere = np.full((len(draws), len(targets)), np.nan)
            everywhere[:, mine] = draws
            scores |= arena.by_group("k_sparse", everywhere, k, groups)
    if len(planted := targets.columns(PLANTED)):
        scores |= _recovered(units, targets.only(planted), rows, weights)
        if not {_ONE, _TWO} - scores.keys():
            scores[Event(PLANTED, "split")] = split(scores[_ONE][0], scores[_TWO][0])[None]
    if arena.cases is not None and len(arena.cases[0]) and not units.dense:
        cases, general = arena.cases
        absorbed, elsewhere, own = absorption(units, best, cases, general, targets, rows)
        scores[Event(PLANTED, "absorbed")] = absorbed[None]
        scores[Event(PLANTED, "absorbed_elsewhere")] = np.where(np.isnan(absorbed), np.nan, elsewhere)[None]
        scores[Event(PLANTED, "own_latent")] = own[None]
    return scores


def _recovered(units: Units, targets: Targets, rows: Rows, weights: Weights) -> Scores:
    columns = one_to_one(units, targets, rows).columns(units)
    return {
        Event(PLANTED, "mcc"): correlation_of(columns, targets, rows, weights),
        Event(PLANTED, "matched_f1"): f1_of(columns, targets, rows, weights),
    }


def ablate(units: Units, arena: Arena, seed: int | None = None) -> Scores:
    """TPP and SCR; with a seed of units drawn at random."""
    scores: Scores = {}
    if units.decoder is None:
        return scores
    for group in (LABELS, PLANTED):
        mine = _ablated(arena.targets, group)
        if len(mine) > 1:
            targets = arena.targets.only(mine)
            probes = LinearProbes(arena.probes.coef[:, mine], arena.probes.intercept[mine])
            difference = mean_differences(units, targets, arena.rows.train)
            found = tpp(
                *(units, difference, probes, arena.logits[:, mine], targets, arena.rows, arena.ns, arena.weights),
                seed=seed,
            )
            scores |= {Event(group, *of): draws for of, draws in found.items()}
        if tasks := arena.tasks[group]:
            found = scr(units, arena.z, tasks, arena.rows, arena.ns, arena.weights, seed=seed)
            scores |= {Event(group, "scr", n): draws for n, draws in found.items()}
    return scores


def _ablated(targets: Targets, group: str) -> Int[np.ndarray, " ablated"]:
    mine = targets.columns(group)
    return mine[np.unique(np.linspace(0, len(mine) - 1, MOST_ABLATED).round().astype(int))] if len(mine) else mine


def permuted(units: Units, arena: Arena, embeddings: Embeddings, draws: int, seed: int) -> Scores:
    """What `read` gives where no unit knows any target: labels change places within source; the mean over the draws."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        targets = replace(arena.targets, codes=arena.targets.codes[_permuted_rows(embeddings, generator)])
        found.append(read(units, replace(arena.without_draws(targets), cases=None)))
    return {event: np.mean([scores[event] for scores in found], axis=0) for event in found[0]}


def _permuted_rows(embeddings: Embeddings, generator: np.random.Generator) -> Int[np.ndarray, " n"]:
    return permutation_within(embeddings.strata, generator, embeddings.by_id, embeddings.groups)


def whole_embedding(arena: Arena) -> Scores:
    """AUROC of a linear probe on every dimension: the ceiling of whatever reads the embedding linearly."""
    logits = np.zeros((len(arena.z), len(arena.targets)))
    logits[arena.rows.test] = arena.logits
    return arena.by_group("auroc", auroc_of(logits, arena.targets, arena.rows, arena.weights))


def names_of(arena: Arena, event: Event) -> list[str]:
    """The targets of an event, in the order of its draws."""
    if event.estimator == "scr":
        return [task.tie.name for task in arena.tasks[event.group]]
    return list(_targets_of(arena, event).names)


def _targets_of(arena: Arena, event: Event) -> Targets:
    if event.estimator in ("absorbed", "absorbed_elsewhere", "own_latent"):
        return arena.cases[0] if arena.cases is not None else arena.targets.only(np.empty(0, np.int64))
    columns = _ablated if event.estimator.startswith("tpp") else Targets.columns
    return arena.targets.only(columns(arena.targets, event.group))


def questions(arena: Arena, event: Event) -> Int[np.ndarray, " questions"]:
    """Places in the draws of an event of the first target of each question: a label's two classes are one."""
    if event.estimator == "scr":  # no two ties are of one question
        return np.arange(len(arena.tasks[event.group]))
    same = _targets_of(arena, event).same()
    return np.flatnonzero(same.argmax(axis=1) == np.arange(len(same)))


WORTH = 0.03
"""What a second unit must add to count (SAEBench's threshold for splits, there of F1)."""


class Absorption(NamedTuple):
    """For each special case, on test memes: how often the general value's latent is silent."""

    absorbed: Float64[np.ndarray, " cases"]
    """On memes of the case on which the case's own latent fires; NaN where there are none."""
    elsewhere: Float64[np.ndarray, " cases"]
    """On the other memes of the general value."""
    own: Float64[np.ndarray, " cases"]
    """1 where the case has a latent of its own, else 0: nothing can be absorbed then."""


def absorption(
    units: Units, best: Matched, cases: Targets, general: Int[np.ndarray, " cases"], targets: Targets, rows: Rows
) -> Absorption:
    """
    Args:
        best: the best unit of each of the targets.
        general: the target of which each case is one.
    """
    own = best_units(units, cases, rows).unit
    test = rows.test
    silent = units.take(best.unit[general])[test] == 0
    fires = units.take(own)[test] > 0
    case, value = cases.codes[test], targets.codes[test][:, general] == TRUE
    differs = own != best.unit[general]
    absorbed = _mean(silent, (case == TRUE) & fires)
    elsewhere = _mean(silent, value & (case == FALSE))
    return Absorption(np.where(differs, absorbed, np.nan), elsewhere, differs.astype(float))


def split(
    one: Float64[np.ndarray, " targets"], two: Float64[np.ndarray, " targets"]
) -> Float64[np.ndarray, " targets"]:
    """1 where a probe on two units is better than one on one by more than WORTH, else 0."""
    return (two - one > WORTH).astype(np.float64)


def _mean(of: np.ndarray, where: np.ndarray) -> np.ndarray:
    n = where.sum(axis=0)
    return np.divide((of & where).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)
