"""Every latent x concept pair measured under one protocol, as arrays and as the tidy table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import nullable
from sae_lens_meme.metrics.contingency import FALSE, TRUE, Counter, Tables
from sae_lens_meme.metrics.effect_sizes import (
    common_odds_ratio,
    f1_always_on,
    f1_ceiling,
    f1_score,
    firing_rate_difference,
    precision,
    recall,
)
from sae_lens_meme.metrics.fisher import fisher_greater, stratified_greater
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg, benjamini_hochberg_by_concept, rejected
from sae_lens_meme.metrics.ranking import BestF1, Ranked, auroc, best_f1, confusion, delong_interval

PROTOCOLS = ("corrected", "published")
COLUMNS = (
    *("latent", "concept", "protocol", "n", "a", "b", "c", "d", "odds_ratio", "p", "q_concept", "q_global", "auroc"),
    *("threshold", "f1_validation", "f1_test", "precision_test", "recall_test", "f1_always_on"),
    *("log10_p", "odds_ratio_low", "odds_ratio_high", "firing_rate_difference", "auroc_low", "auroc_high"),
    *("f1_ceiling", "winners_curse", "n_test", "threshold_split"),
)


@dataclass(frozen=True, eq=False)
class Pairs:
    """`columns` holds [latents, concepts] arrays, NaN where undefined; `log_p` is the natural logarithm."""

    protocol: str
    concepts: tuple[str, ...]
    log_p: Float[np.ndarray, "latents concepts"]
    columns: dict[str, np.ndarray]
    threshold_splits: list[str | None]

    def table(self) -> pd.DataFrame:
        """One row a pair, null where undefined, ordered by latent and then by concept."""
        latents, concepts = self.log_p.shape
        names = pd.Categorical.from_codes(np.tile(np.arange(concepts), latents), categories=list(self.concepts))
        splits = pd.array(self.threshold_splits * latents, dtype="string")
        fixed = {
            "latent": np.repeat(np.arange(latents), concepts),
            "concept": names,
            "protocol": pd.Categorical([self.protocol] * (latents * concepts), categories=list(PROTOCOLS)),
            "threshold_split": splits,
        }
        return pd.DataFrame({c: fixed[c] if c in fixed else nullable(self.columns[c]) for c in COLUMNS})


def measure_pairs(latents: Latents, targets: ConceptLabels, protocol: str, ranked: Ranked | None = None) -> Pairs:
    """All pairs under `protocol`.

    corrected: the test of association on all memes with a known label, within source; the threshold on the
    validation rows; F1, precision, recall and AUROC (within source) on the test rows.
    published: everything on all rows at once, a missing label counted as negative.
    """
    ranked = Ranked.of(latents.csc()) if ranked is None else ranked
    tables = Counter(latents.csr(), targets.codes(protocol), targets.strata(protocol)).count()
    log_p = association(tables, protocol)
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
    scores, splits = _published_scores(ranked, targets) if protocol == "published" else _held_out(ranked, targets)
    of_latent = scores.keys() - {"n_test", "f1_always_on"}  # these two hold of the concept, whatever the latent does
    scores |= {name: np.where(silent, np.nan, scores[name]) for name in of_latent}
    return Pairs(protocol, targets.names, log_p, {**columns, **scores}, splits)


def association(tables: Tables, protocol: str, alpha: float = 1.0) -> Float[np.ndarray, "latents concepts"]:
    """Natural logs of the one-sided p of the protocol's test; NaN where it cannot be done.

    A p above `alpha` may come out as 1: for counts of significant pairs it need not be known.
    """
    return fisher_greater(tables, alpha) if protocol == "published" else stratified_greater(tables, alpha)


def significant(log_p: Float[np.ndarray, "latents concepts"], alpha: float) -> dict[str, Bool[np.ndarray, "l c"]]:
    """q < alpha with all pairs as one family (`global`), and with one family a concept (`concept`)."""
    by_concept = np.stack([rejected(column, alpha) for column in log_p.T], axis=1)
    return {"global": rejected(log_p, alpha), "concept": by_concept}


def measured_f1(latents: Latents, targets: ConceptLabels, protocol: str) -> Float[np.ndarray, "latents concepts"]:
    """F1 as the protocol measures it: the best on all rows (published), or on test rows (corrected); NaN where undefined."""
    ranked = Ranked.of(latents.csc())
    if protocol == "corrected":
        return _on_test_rows(ranked, targets, best_f1(ranked, targets.threshold_codes()[0]))[2]
    return np.where((targets.published == TRUE).any(axis=0), best_f1(ranked, targets.published).f1, np.nan)


def _on_test_rows(ranked: Ranked, targets: ConceptLabels, best: BestF1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True memes that reach the threshold, memes that do, and the F1 of it: [latents, concepts] each."""
    test = targets.test_codes()
    true_fired, fired = confusion(ranked, test, best.threshold)
    f1 = f1_score(true_fired, fired, (test == TRUE).sum(axis=0))
    return true_fired, fired, np.where(np.isnan(best.threshold), np.nan, f1)


def _held_out(ranked: Ranked, targets: ConceptLabels) -> tuple[dict[str, np.ndarray], list[str | None]]:
    choose, splits = targets.threshold_codes()
    test = targets.test_codes()
    best = best_f1(ranked, choose)
    true_fired, fired, f1_test = _on_test_rows(ranked, targets, best)
    true, n = (test == TRUE).sum(axis=0), (test >= FALSE).sum(axis=0)
    chosen = ~np.isnan(best.threshold)
    f1_validation = np.where(chosen, best.f1, np.nan)
    return {
        **_auroc_columns(ranked, test, targets.strata("corrected")),
        "threshold": best.threshold,
        "f1_validation": f1_validation,
        "f1_test": f1_test,
        "winners_curse": f1_validation - f1_test,
        "precision_test": np.where(chosen, precision(true_fired, fired), np.nan),
        "recall_test": np.where(chosen, recall(true_fired, true), np.nan),
        "f1_always_on": np.broadcast_to(f1_always_on(true, n), fired.shape),
        "f1_ceiling": np.where(chosen, f1_ceiling(fired, true), np.nan),
        "n_test": np.broadcast_to(n, fired.shape),
    }, splits


def _published_scores(ranked: Ranked, targets: ConceptLabels) -> tuple[dict[str, np.ndarray], list[str | None]]:
    codes = targets.published
    best = best_f1(ranked, codes)
    _, fired = confusion(ranked, codes, best.threshold)
    true, n = (codes == TRUE).sum(axis=0), (codes >= FALSE).sum(axis=0)
    nothing = np.full(fired.shape, np.nan)
    return {
        **_auroc_columns(ranked, codes, targets.strata("published")),
        **dict.fromkeys(("f1_test", "precision_test", "recall_test", "winners_curse"), nothing),
        "threshold": best.threshold,
        "f1_validation": np.where(true > 0, best.f1, np.nan),
        "f1_always_on": np.broadcast_to(f1_always_on(true, n), fired.shape),
        "f1_ceiling": f1_ceiling(fired, true),
        "n_test": np.zeros(fired.shape, np.int64),
    }, ["all"] * len(targets.names)


def _auroc_columns(ranked: Ranked, codes: np.ndarray, strata: np.ndarray) -> dict[str, np.ndarray]:
    value, error = auroc(ranked, codes, strata)
    low, high = delong_interval(value, error)
    return {"auroc": value, "auroc_low": low, "auroc_high": high}
