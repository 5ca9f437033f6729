"""The name of every latent: a word or a concept chosen on the selection rows, measured on the held-out rows.

The statement (the caption holds the word; the concept is true) is the predictor and firing is what it predicts:
precision is the share of the memes of which the statement is true that fire the latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy import sparse

from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.kernels import WordOdds, counts_in_both, word_log_odds
from sae_lens_meme.evaluators.naming.statements import Family, NamingMemes, Statements
from sae_lens_meme.metrics.association import (
    FALSE,
    TRUE,
    UNKNOWN,
    Counter,
    Tables,
    f1_always_on,
    f1_score,
    phi_within,
    precision,
    recall,
)
from sae_lens_meme.metrics.auroc_interval import Kinds, auroc_interval
from sae_lens_meme.metrics.fisher import greater_one_a_group, stratified_greater
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg, rejected
from sae_lens_meme.metrics.ranking import Ranked, auroc
from sae_lens_meme.metrics.resampling import count_interval

Values = Float[np.ndarray, " latents"]
SCORES = (
    *("n", "support", "n_true", "auroc", "auroc_low", "auroc_high", "few", "correlation"),
    *("f1", "f1_always_on", "precision", "recall", "log_p"),
)
KINDS = ("word", "concept")
ACTIVATION = ("auroc_activation", "auroc_activation_low", "auroc_activation_high")
HELD_OUT = (*SCORES, *ACTIVATION)


LEAST_AUROC, GOOD_AUROC = 0.6, 0.8
"""On held-out rows: below the first a name is printed as "no name"; from the second it tells firing well."""


class NamingRule(NamedTuple):
    """How names are chosen."""

    alpha: float
    alpha_0: float
    min_support: int
    n_words: int


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best word, or the best concept, of every latent."""

    family: Family
    chosen: Int[np.ndarray, " latents"]
    """-1 where there is none."""
    selection: dict[str, Values]
    held_out: dict[str, Values]
    q_selection: Values
    """Benjamini-Hochberg over the latents, of p times the number of statements it was chosen from and of families."""
    q: Values
    """Of the held-out association, Benjamini-Hochberg over the latents."""
    odds: WordOdds | None = None


@dataclass(frozen=True, eq=False)
class Names:
    """Which candidate is the name of each latent, and how it does on the held-out rows."""

    candidates: dict[str, Candidates]
    kind: Int[np.ndarray, " latents"]
    """Index into KINDS; -1 where the latent has no name."""
    selection: dict[str, Values]
    held_out: dict[str, Values]
    q: Values
    """Of the held-out association, Benjamini-Hochberg over the latents with a name."""
    fires: Int[np.ndarray, " latents"]
    """On how many selection rows."""

    def holds(self, alpha: float) -> Bool[np.ndarray, " latents"]:
        """The name is associated with firing on the held-out rows too."""
        return self.q < alpha

    @property
    def tells_nothing(self) -> Bool[np.ndarray, " latents"]:
        """The name is no better than a guess on the held-out rows: it is printed as "no name"."""
        return self.held_out["auroc"] < LEAST_AUROC


def find_names(latents: Latents, memes: NamingMemes, rule: NamingRule) -> Names:
    """The best word and the best concept of each latent, and the better of the two.

    A candidate is usable if its q_selection < alpha; of two usable ones the name is the one whose truth correlates
    more with firing, within source. All of this on the selection rows.
    """
    candidates: dict[str, Candidates] = {}
    choose = {"word": _best_words, "concept": _best_concepts}
    for kind, family in memes.families.items():
        candidates[kind] = choose[kind](latents, family, rule, len(memes.families))
    strength = np.full((len(KINDS), latents.d_sae), -np.inf)
    for kind, found in candidates.items():
        usable = found.q_selection < rule.alpha
        strength[KINDS.index(kind)] = np.where(usable, found.selection["correlation"], -np.inf)
    kind = np.where(np.isfinite(strength).any(0), strength.argmax(0), -1)
    selection = _of_names(kind, SCORES, {name: found.selection for name, found in candidates.items()})
    held_out = _of_names(kind, HELD_OUT, {name: found.held_out for name, found in candidates.items()})
    fires = np.diff(_active(latents, memes.selection).indptr)
    return Names(candidates, kind, selection, held_out, benjamini_hochberg(held_out["log_p"]), fires)


def _best_words(latents: Latents, family: Family, rule: NamingRule, n_families: int) -> Candidates:
    side = family.selection
    active, occurs = _active(latents, side.rows), side.true.tocsr()
    odds = word_log_odds(active, occurs, side.sources, alpha_0=rule.alpha_0, top=rule.n_words)
    chosen = np.where(np.diff(active.indptr) >= rule.min_support, odds.word[:, 0], -1)
    return _measured(latents, family, chosen, n_families, odds)


def _best_concepts(latents: Latents, family: Family, rule: NamingRule, n_families: int) -> Candidates:
    """By the exact test within source."""
    side = family.selection
    count = concept_counter(latents, side).count
    log_p = greater_one_a_group(count, side.one_a_group)
    log_p = np.where(count().fires.sum(-1) >= rule.min_support, log_p, np.nan)
    chosen = np.where(np.isnan(log_p).all(1), -1, np.where(np.isnan(log_p), np.inf, log_p).argmin(1))
    return _measured(latents, family, chosen, n_families)


def concept_counter(latents: Latents, side: Statements) -> Counter:
    """Of all latents and all concepts."""
    _, n_statements = side.true.shape  # type: ignore[misc]
    codes = np.hstack([side.codes(c) for c in range(n_statements)])
    return Counter(_active(latents, side.rows), codes, side.sources)


def _measured(
    latents: Latents, family: Family, chosen: np.ndarray, n_families: int, odds: WordOdds | None = None
) -> Candidates:
    selection, held_out = (_scores(latents, side, chosen) for side in (family.selection, family.held_out))
    ranking = activation_auroc(_active(latents, family.held_out.rows), family.held_out, chosen)
    held_out |= dict(zip(ACTIVATION, ranking, strict=True))
    all_statements = np.minimum(selection["log_p"] + math.log(len(family.names) * n_families), 0)
    q_selection, q = benjamini_hochberg(all_statements), benjamini_hochberg(held_out["log_p"])
    return Candidates(family, chosen, selection, held_out, q_selection, q, odds)


def _scores(latents: Latents, side: Statements, chosen: np.ndarray) -> dict[str, Values]:
    active = _active(latents, side.rows)
    count = PairCounter(active, side, chosen).count
    found = scores(count(), greater_one_a_group(count, side.one_a_group)[0])
    if side.one_a_group[0] is not None:
        over_groups = _interval_over_groups(active, side, chosen)
        found |= dict(zip(("auroc_low", "auroc_high", "few"), over_groups, strict=True))
    return found


def _interval_over_groups(active: Any, side: Statements, chosen: np.ndarray) -> tuple[Values, Values, Values]:
    """Of `auroc` of `scores`, where memes of one group are not independent evidence; and whether few groups are of a kind."""
    low, high, few = np.full((3, len(chosen)), np.nan)
    for statement in np.unique(chosen[chosen >= 0]):
        mine, says = np.flatnonzero(chosen == statement), side.codes(statement)
        indicator = Ranked.of(sparse.csc_matrix((says == TRUE).astype(np.float32)))
        fires = np.where(says == UNKNOWN, UNKNOWN, np.where(active[:, mine].toarray() > 0, TRUE, FALSE))
        codes = fires.astype(np.uint8)
        found, kinds = auroc(indicator, codes, side.sources, side.groups), Kinds.of(codes, side.sources, side.groups)
        low[mine], high[mine] = auroc_interval(found.value[0], found.standard_error[0], kinds)
        few[mine] = np.where(np.isnan(found.value[0]), np.nan, kinds.few)
    return low, high, few


def hold_interval(
    names: Names, latents: Latents, memes: NamingMemes, alpha: float, replicates: int, seed: int
) -> tuple[float, float] | None:
    """95 % interval of the number of names that hold, over the held-out memes with the names as they are."""
    if replicates == 0 or memes.split is None or not (names.kind >= 0).any():
        return None
    counters = []
    for kind, found in names.candidates.items():
        side = found.family.held_out
        counters.append(
            (names.kind == KINDS.index(kind), PairCounter(_active(latents, side.rows), side, found.chosen), side)
        )

    def count(weights: np.ndarray) -> np.ndarray:
        of_meme = np.zeros(len(memes.sources), np.int64)
        of_meme[memes.held_out] = weights
        log_p = np.full(len(names.kind), np.nan)
        for mine, counter, side in counters:
            found = greater_one_a_group(counter.count, side.one_a_group[:1], weights=of_meme[side.rows])
            log_p[mine] = found[0][mine]
        return np.array([rejected(log_p, alpha).sum()])

    estimate = np.array([names.holds(alpha).sum()])
    low, high = count_interval(
        count, estimate, memes.sources[memes.held_out], replicates, seed, memes.groups[memes.held_out]
    )
    return float(low[0]), float(high[0])


def _of_names(
    kind: np.ndarray, names: tuple[str, ...], of_candidates: dict[str, dict[str, Values]]
) -> dict[str, Values]:
    """Of each latent the scores of the candidate that is its name."""
    out = {score: np.full(len(kind), np.nan) for score in names}
    for name, found in of_candidates.items():
        mine = kind == KINDS.index(name)
        for score, values in out.items():
            values[mine] = found[score][mine]
    return out


def _active(latents: Latents, rows: np.ndarray) -> Any:
    return latents.csr()[rows].tocsc()


class PairCounter:
    """Tables of (latent fires) x (its statement is true), `[1, latents, strata]`, under different weights.

    Args:
        active: CSC [n, latents], sorted.
        chosen: the statement of each latent; -1 gives an empty table.
    """

    def __init__(self, active: Any, statements: Statements, chosen: Int[np.ndarray, " latents"]):
        n_strata = int(statements.sources.max(initial=0)) + 1
        self._active, self._statements, self._chosen = active, statements, np.ascontiguousarray(chosen)
        self._one_hot = np.eye(n_strata)[statements.sources]

    def count(self, weights: Real[np.ndarray, " n"] | None = None) -> Tables:
        """Tables in which each meme counts `weights` times (whole numbers, default once)."""
        strata = self._one_hot if weights is None else self._one_hot * weights[:, None]
        true, known = self._statements.true, self._statements.known
        if known is None:
            fires, n = _columns_sum(self._active, strata), np.tile(strata.sum(0), (len(self._chosen), 1))
        else:
            fires, n = self._both(known, strata), _columns_sum(known, strata)[self._chosen]
        margins = (_columns_sum(true, strata)[self._chosen], n)
        none = self._chosen[:, None] < 0
        both, fires, true, n = (
            np.where(none, 0, x).astype(np.int64) for x in (self._both(true, strata), fires, *margins)
        )
        return Tables(both[None], fires[None], true, n)

    def _both(self, flags: Any, strata: np.ndarray) -> np.ndarray:
        active = self._active
        return counts_in_both(active.indptr, active.indices, flags.indptr, flags.indices, self._chosen, strata)


def scores(tables: Tables, log_p: Values | None = None) -> dict[str, Values]:
    """SCORES of every latent, NaN where undefined.

    `auroc` is the probability that the statement ranks a meme that fires above one that does not (of the same source,
    ties half), with DeLong's interval; `correlation` is Pearson's of the two indicators, each centred within source;
    `log_p` the natural log of the exact one-sided p within source, where it is not given (as of one meme per group).
    """
    a, b, c, d = (part[0].astype(np.float64) for part in tables.abcd)
    fires, true, n = (a + b).sum(1), (a + c).sum(1), tables.n.sum(1)
    counts = {"n": n, "support": fires, "n_true": true}
    value, error = _auroc_of_indicator(a, b, c, d)
    kinds = Kinds(a + b, c + d)
    low, high = auroc_interval(value, error, kinds)
    return {
        **{name: np.where(n > 0, count, np.nan) for name, count in counts.items()},
        **{"auroc": value, "auroc_low": low, "auroc_high": high},
        "few": np.where(np.isnan(value), np.nan, kinds.few),
        "correlation": phi_within(tables.n, tables.fires, tables.true, tables.fires_true)[0],
        **{"f1": f1_score(a.sum(1), true, fires), "f1_always_on": np.where(fires > 0, f1_always_on(fires, n), np.nan)},
        **{"precision": precision(a.sum(1), true), "recall": recall(a.sum(1), fires)},
        "log_p": stratified_greater(tables)[0] if log_p is None else log_p,
    }


def activation_auroc(
    active: Any, statements: Statements, chosen: Int[np.ndarray, " latents"]
) -> tuple[Values, Values, Values]:
    """How well the activation ranks memes of which the statement is true above the others: value, low and high."""
    order = np.argsort(chosen, kind="stable")
    ranked, first = Ranked.of(active[:, order]), np.searchsorted(chosen[order], 0)
    value, low, high = np.full((3, len(chosen)), np.nan)
    for group in np.split(np.arange(first, len(chosen)), np.flatnonzero(np.diff(chosen[order][first:])) + 1):
        if len(group) == 0:
            continue
        starts = ranked.starts[group[0] : group[-1] + 2]
        mine = Ranked(starts - starts[0], *(part[starts[0] : starts[-1]] for part in ranked[1:]))
        codes = statements.codes(int(chosen[order[group[0]]]))
        found = auroc(mine, codes, statements.sources, statements.groups)
        kinds = Kinds.of(codes, statements.sources, statements.groups)
        value[order[group]] = found.value[:, 0]
        low[order[group]], high[order[group]] = (
            ends[:, 0] for ends in auroc_interval(found.value, found.standard_error, kinds)
        )
    silent = np.diff(active.indptr) == 0
    value, low, high = (np.where(silent, np.nan, of) for of in (value, low, high))
    return value, low, high


def _auroc_of_indicator(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> tuple[Values, Values]:
    """AUROC of a yes-or-no predictor and DeLong's error from [latents, strata] counts, as `ranking.auroc` weighs them."""
    fires, silent = a + b, c + d
    wins = a * (d + c / 2) + b * d / 2  # sums over placements, which take two values a class
    pairs = (fires * silent).sum(1)
    spread_fires = a * (d + c / 2) ** 2 + b * (d / 2) ** 2 - wins**2 / np.maximum(fires, 1)
    spread_silent = c * (a / 2) ** 2 + d * (a + b / 2) ** 2 - wins**2 / np.maximum(silent, 1)
    known = (fires > 0) & (silent > 0)
    variance = fires * spread_fires / np.maximum(fires - 1, 1) + silent * spread_silent / np.maximum(silent - 1, 1)
    variance = np.maximum(np.where(known, variance, 0).sum(1), 0)
    unknown = ~((fires > 1) & (silent > 1)).any(1) | (variance <= 1e-6)  # one meme alone, or kinds that are apart
    with np.errstate(divide="ignore", invalid="ignore"):
        return wins.sum(1) / pairs, np.where(unknown, np.nan, np.sqrt(variance) / pairs)


def _columns_sum(flags: Any, strata: np.ndarray) -> np.ndarray:
    """Sum of the weights of the memes in each column, by stratum."""
    ones = sparse.csr_matrix((np.ones(flags.nnz), flags.indices, flags.indptr), shape=flags.shape[::-1])
    return ones @ strata
