"""Counts of significant pairs: on the true labels, over subsets of the memes, and on labels permuted within source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sae_lens_meme.evaluators.concept_alignment.compute import Pairs, association, scored_codes, significant
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number
from sae_lens_meme.metrics.association import FALSE, TRUE, Counter, f1_always_on, f1_score
from sae_lens_meme.metrics.by_column import count_by_column
from sae_lens_meme.metrics.ranking import Ranked, best_f1, confusion
from sae_lens_meme.metrics.resampling import count_interval
from sae_lens_meme.metrics.threads import in_threads

FAMILIES = ("global", "concept")
"""Families of tests: all pairs together, or those of each concept."""
INTERVLM_F1 = 0.35
N_F1, N_ABOVE = f"n_f1_above_{INTERVLM_F1}", "n_pairs_above_always_on"


def pair_counts(log_p: Float[np.ndarray, "latents concepts"], alpha: float) -> dict[str, Number]:
    """Significant pairs, and latents with one, by key of `quantities.COUNTS`; a share of no tests is None."""
    n_latents, n_tested = len(log_p), int((~np.isnan(log_p)).sum())
    counts: dict[str, Number] = {"n_latents": n_latents, "n_pairs_tested": n_tested}
    for family, found in significant(log_p, alpha).items():
        pairs, latents = int(found.sum()), int(found.any(axis=1).sum())
        counts |= {f"n_significant_{family}": pairs, f"n_latents_{family}": latents}
        counts[f"share_of_latents_{family}"] = latents / n_latents
        counts[f"share_of_tests_{family}"] = pairs / n_tested if n_tested else None
    return counts


def count_intervals(
    latents: Latents, labels: ConceptLabels, protocol: str, alpha: float, replicates: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Low and high of the counts of significant pairs and of latents with one; nothing for 0 replicates."""
    if replicates == 0:
        return {}
    counter = Counter(latents.csr(), labels.codes(protocol), labels.strata(protocol))
    keys = [f"n_{what}_{family}" for what in ("significant", "latents") for family in FAMILIES]

    def count(weights: np.ndarray | None = None) -> np.ndarray:
        counts = pair_counts(association(counter.count, labels, protocol, alpha, weights), alpha)
        return np.array([counts[key] for key in keys])

    ends = count_interval(count, count(), labels.sources, replicates, seed, labels.groups)
    return dict(zip(keys, ends.T.tolist(), strict=True))


class PairCounts:
    """Every count of the pairs under one protocol, again and again for other labels of the same memes."""

    def __init__(
        self, latents: Latents, labels: ConceptLabels, protocol: str, alpha: float, ranked: Ranked | None = None
    ):
        self._latents, self._protocol, self._alpha = latents, protocol, alpha
        self._ranked = Ranked.of(latents.csr()) if ranked is None else ranked
        in_split = {split: (labels.splits == split).astype(np.uint8)[:, None] for split in ("validation", "test")}
        self._ranked_in = {split: self._ranked.known_in(rows) for split, rows in in_split.items()}
        rows = None if protocol == "published" else np.flatnonzero(labels.splits == "test")
        self._fires = count_by_column(latents.csr(), rows)

    def of(self, labels: ConceptLabels) -> dict[str, Number]:
        """By key of `quantities.COUNTS`."""
        counter = Counter(self._latents.csr(), labels.codes(self._protocol), labels.strata(self._protocol))
        log_p = association(counter.count, labels, self._protocol, self._alpha)
        return pair_counts(log_p, self._alpha) | self._by_f1(labels)

    def permuted(self, labels: ConceptLabels, draws: int, seed: int) -> list[dict[str, Number]]:
        """Of labels permuted within their strata, a dict per draw; a draw depends on the seed and its number only."""
        return in_threads(lambda i: self.of(labels.permuted(np.random.default_rng([seed, i]))), range(draws))

    def _by_f1(self, labels: ConceptLabels) -> dict[str, Number]:
        """As `measure_pairs` has it; pairs are left out that could not pass a bar whichever of their memes fire."""
        scored = scored_codes(labels, self._protocol)
        true, n = (scored == TRUE).sum(axis=0), (scored >= FALSE).sum(axis=0)
        always = f1_always_on(true, n)
        at_most = np.minimum(self._fires[:, None], true)
        with np.errstate(invalid="ignore"):
            worth = 2 * at_most / np.maximum(at_most + true, 1) > np.fmin(always, INTERVLM_F1)
        if self._protocol == "published":
            f1 = best_f1(self._ranked, scored, worth).f1
        else:
            choose, splits = labels.threshold_codes()
            ranked = self._ranked if "train" in splits else self._ranked_in["validation"]
            threshold = best_f1(ranked, choose, worth).threshold
            f1 = f1_score(*confusion(self._ranked_in["test"], scored, threshold), true)
            f1 = np.where(np.isnan(threshold), np.nan, f1)
        above = None if np.isnan(always).all() else int((f1 > always).sum())
        return {N_F1: int((f1 > INTERVLM_F1).sum()), N_ABOVE: above}


def significant_without_test(
    latents: Latents, labels: ConceptLabels, alpha: float
) -> dict[str, Bool[np.ndarray, "latents concepts"]]:
    """By family the pairs that are significant on the memes that are not test memes, which then measure them unselected."""
    count = Counter(latents.csr(), labels.known, labels.sources).count
    return significant(association(count, labels, "corrected", alpha, (labels.splits != "test").astype(int)), alpha)


class Effect(NamedTuple):
    """How large the AUROCs of some pairs are."""

    median: float
    """NaN where none has one."""
    n_above_half: int | None
    """Pairs whose interval lies above one half; None where no pair at all has an AUROC."""
    share_holding_half: float
    """Of the pairs with an interval, those whose interval holds one half; NaN without any."""


def effect_of(pairs: Pairs, chosen: Bool[np.ndarray, "latents concepts"]) -> Effect:
    auroc, low, high = (pairs.columns[name][chosen] for name in ("auroc", "auroc_low", "auroc_high"))
    median = np.nan if np.isnan(auroc).all() else float(np.nanmedian(auroc))
    known = ~np.isnan(low)
    holds = (low[known] <= 0.5) & (high[known] >= 0.5)
    above = None if np.isnan(pairs.columns["auroc"]).all() else int((low > 0.5).sum())
    return Effect(median, above, float(holds.mean()) if known.any() else np.nan)


def n_above_always_on(pairs: Pairs) -> int | None:
    """Pairs whose F1 is above that of a latent that fires on every meme; None where no such F1 is measured."""
    always = pairs.columns["f1_always_on"]
    return None if np.isnan(always).all() else int((pairs.columns[pairs.score()] > always).sum())
