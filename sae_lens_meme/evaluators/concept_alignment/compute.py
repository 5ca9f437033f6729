"""Every latent x concept pair measured under one protocol, and each concept's best latent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.association import (
    FALSE,
    TRUE,
    UNKNOWN,
    Counter,
    Tables,
    common_odds_ratio,
    f1_always_on,
    f1_bounds_at_ends,
    f1_ceiling,
    f1_score,
    firing_rate_difference,
    precision,
    recall,
)
from sae_lens_meme.metrics.auroc_interval import Kinds, auroc_interval
from sae_lens_meme.metrics.fisher import fisher_greater, greater_one_a_group
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg, benjamini_hochberg_by_concept, rejected
from sae_lens_meme.metrics.ranking import Ranked, auroc, best_f1, confusion
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

PROTOCOLS = ("corrected", "published")
OF_BEST = ("f1_validation", "f1_test", "winners_curse", "f1_always_on", "auroc")
"""Columns of a pair that are given of each concept's best latent."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """`columns` holds [latents, concepts] arrays, NaN where undefined; `log_p` is the natural logarithm."""

    protocol: str
    concepts: tuple[str, ...]
    log_p: Float[np.ndarray, "latents concepts"]
    columns: dict[str, np.ndarray]
    threshold_splits: list[str | None]

    def score(self) -> str:
        """The column of the F1 that the protocol measures."""
        return "f1_validation" if self.protocol == "published" else "f1_test"


def measure_pairs(latents: Latents, labels: ConceptLabels, protocol: str, ranked: Ranked | None = None) -> Pairs:
    """All pairs under `protocol`.

    corrected: the test of association on all memes with a known label (one per group), within source; the threshold on the
    validation rows; F1, precision, recall and AUROC (within source) on the test rows.
    published: everything on all rows at once, a missing label counted as negative.
    """
    ranked = Ranked.of(latents.csr()) if ranked is None else ranked
    counter = Counter(latents.csr(), labels.codes(protocol), labels.strata(protocol))
    tables, log_p = counter.count(), association(counter.count, labels, protocol)
    a, b, c, d = tables.pooled
    odds = common_odds_ratio(tables)
    silent = a + b == 0
    columns: dict[str, Any] = {
        **{"n": np.broadcast_to(tables.n.sum(axis=-1), a.shape), "a": a, "b": b, "c": c, "d": d},
        **{"odds_ratio": odds.value, "odds_ratio_low": odds.low, "odds_ratio_high": odds.high},
        **{"p": np.exp(log_p), "log10_p": log_p / math.log(10)},
        **{"q_concept": benjamini_hochberg_by_concept(log_p), "q_global": benjamini_hochberg(log_p)},
        "firing_rate_difference": np.where(silent, np.nan, firing_rate_difference(tables)),
    }
    scores = _scores(ranked, labels, protocol)
    splits: list[str | None] = (
        [*labels.threshold_codes()[1]] if protocol == "corrected" else ["all"] * len(labels.names)
    )
    of_latent = scores.keys() - {"n_test", "f1_always_on", "few"}  # these hold of the concept, whatever the latent does
    scores |= {name: np.where(silent, np.nan, scores[name]) for name in of_latent}
    return Pairs(protocol, labels.names, log_p, {**columns, **scores}, splits)


def association(
    count: Callable[[Any], Tables], labels: ConceptLabels, protocol: str, alpha: float = 1.0, weights: Any = None
) -> Float[np.ndarray, "latents concepts"]:
    """Natural logs of the one-sided p of the protocol's test; NaN where it cannot be done.

    Args:
        count: from weights of the memes to tables, as `Counter.count`.
        alpha: a p above it may come out as 1: for counts of significant pairs it need not be known.
        weights: 0 or 1 for each meme: a subset, of which one draw is tested, for its spread; default all.
    """
    if protocol == "published":
        return fisher_greater(count(weights), alpha)
    draws = labels.one_a_group if weights is None else labels.one_a_group[:1]
    return greater_one_a_group(count, draws, alpha, weights)


def significant(log_p: Float[np.ndarray, "latents concepts"], alpha: float) -> dict[str, Bool[np.ndarray, "l c"]]:
    """q < alpha with all pairs as one family (`global`), and with one family per concept (`concept`)."""
    by_concept = np.stack([rejected(column, alpha) for column in log_p.T], axis=1)
    return {"global": rejected(log_p, alpha), "concept": by_concept}


class BestLatents(NamedTuple):
    """For each concept the latent with the best F1 on the rows that choose its threshold."""

    latent: Int[np.ndarray, " concepts"]
    """-1 where there is none."""
    scores: dict[str, Float[np.ndarray, " concepts"]]
    """By name of `OF_BEST`, NaN where undefined."""


def best_latents(pairs: Pairs) -> BestLatents:
    f1 = np.where(np.isnan(pairs.columns["f1_validation"]), -1.0, pairs.columns["f1_validation"])
    latent, concepts = f1.argmax(axis=0), np.arange(f1.shape[1])
    usable = f1[latent, concepts] >= 0
    scores = {name: np.where(usable, pairs.columns[name][latent, concepts], np.nan) for name in OF_BEST}
    return BestLatents(np.where(usable, latent, -1), scores)


def best_f1_interval(
    pairs: Pairs, best: BestLatents, ranked: Ranked, labels: ConceptLabels, replicates: int, seed: int
) -> Float[np.ndarray, "2 concepts"] | None:
    """95 % interval of the F1 of the best latents on test memes; None for 0 replicates."""
    if replicates == 0:
        return None
    rows, concepts = np.flatnonzero(labels.splits == "test"), np.arange(len(best.latent))
    threshold = np.where(best.latent < 0, np.nan, pairs.columns["threshold"][best.latent, concepts])
    fires = ranked.columns(best.latent, len(labels.splits))[rows] >= threshold  # NaN fires nowhere
    groups = None if labels.groups is None else labels.groups[rows]
    interval = f1_interval(fires, labels.known[rows], labels.sources[rows], replicates, seed, groups)
    return np.where(np.isnan(threshold), np.nan, interval)


def f1_interval(
    fires: Bool[np.ndarray, "n concepts"],
    codes: UInt8[np.ndarray, "n concepts"],
    strata: Int[np.ndarray, " n"],
    replicates: int,
    seed: int,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "2 concepts"]:
    """95 % interval of an F1: bootstrap over groups within stratum; the binomial bounds of an F1 of 0 or 1."""
    if not len(fires):
        return np.full((2, fires.shape[1]), np.nan)
    flags = np.hstack([fires & (codes == TRUE), fires & (codes != UNKNOWN), codes == TRUE]).astype(np.float64)
    weights = np.array(list(bootstrap_weights(strata, replicates, seed, groups)))
    drawn = percentile_interval(f1_score(*np.split(weights @ flags, 3, axis=1)))
    true_fired, fired, true = np.split(flags.sum(axis=0), 3)
    at_ends = np.array(f1_bounds_at_ends(true_fired, fired, true))
    return np.where(np.isnan(at_ends), drawn, at_ends)


def n_best_above_always_on(pairs: Pairs, best: BestLatents) -> int | None:
    """Concepts whose best latent beats a latent that fires on every meme; None where no F1 is measured."""
    score = best.scores[pairs.score()]
    return None if np.isnan(score).all() else int((score > best.scores["f1_always_on"]).sum())  # NaN is above nothing


def f1_source_only(labels: ConceptLabels) -> Float[np.ndarray, " concepts"]:
    """F1 on test memes of the best rule that fires on whole sources; NaN without a true test meme or rows to choose on.

    The rule with the best F1 fires on the sources of the highest prevalence; how many is chosen, as every
    threshold is, on the validation rows.
    """
    choose, test = labels.threshold_codes()[0], labels.test_codes()
    out = np.full(len(labels.names), np.nan)
    for c in range(len(out)):
        true, known = (np.bincount(labels.sources, choose[:, c] >= code) for code in (TRUE, FALSE))
        order = np.argsort(-true / np.maximum(known, 1), kind="stable")
        scores = f1_score(true[order].cumsum(), known[order].cumsum(), true.sum())
        if np.isnan(scores).all():
            continue
        fires = np.isin(labels.sources, order[: np.argmax(scores) + 1])
        is_true, is_known = test[:, c] == TRUE, test[:, c] >= FALSE
        out[c] = f1_score((fires & is_true).sum(), (fires & is_known).sum(), is_true.sum())
    return out


def _scores(ranked: Ranked, labels: ConceptLabels, protocol: str) -> dict[str, np.ndarray]:
    scored, strata = scored_codes(labels, protocol), labels.strata(protocol)
    groups = labels.groups if protocol == "corrected" else None
    value, error = auroc(ranked, scored, strata, groups)
    kinds = Kinds.of(scored, strata, groups)
    low, high = auroc_interval(value, error, kinds)
    true, n = (scored == TRUE).sum(axis=0), (scored != UNKNOWN).sum(axis=0)
    found = _thresholds(ranked, labels, protocol)
    return {
        **found,
        **{"auroc": value, "auroc_low": low, "auroc_high": high},
        "few": np.broadcast_to(kinds.few.astype(np.int64), value.shape),
        "winners_curse": found["f1_validation"] - found["f1_test"],
        "f1_always_on": np.broadcast_to(f1_always_on(true, n), value.shape),
        "n_test": np.broadcast_to(0 if protocol == "published" else n, value.shape),
    }


def _thresholds(ranked: Ranked, labels: ConceptLabels, protocol: str) -> dict[str, np.ndarray]:
    """The threshold with the best F1 on the rows that choose it, and its scores there and on test rows."""
    published, scored = protocol == "published", scored_codes(labels, protocol)
    choose = scored if published else labels.threshold_codes()[0]
    best = best_f1(ranked, choose)
    true_fired, fired = confusion(ranked, scored, best.threshold)
    true = (scored == TRUE).sum(axis=0)
    on_test = {
        "f1_test": f1_score(true_fired, fired, true),
        "precision_test": precision(true_fired, fired),
        "recall_test": recall(true_fired, true),
    }
    chosen = ~np.isnan(best.threshold)
    return {
        "threshold": best.threshold,
        "f1_validation": np.where(chosen & (choose == TRUE).any(axis=0), best.f1, np.nan),
        "f1_ceiling": np.where(chosen, f1_ceiling(fired, true), np.nan),
        **{name: np.where(chosen & (not published), values, np.nan) for name, values in on_test.items()},
    }


def scored_codes(labels: ConceptLabels, protocol: str) -> np.ndarray:
    return labels.published if protocol == "published" else labels.test_codes()
