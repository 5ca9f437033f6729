"""The flat numbers of weights, scores and stability, undefined ones with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.evaluators.cross_modal.pairs import MemePairs
from sae_lens_meme.evaluators.cross_modal.scores import ItemScores, rank_correlation
from sae_lens_meme.evaluators.cross_modal.stability import jaccard
from sae_lens_meme.evaluators.cross_modal.weights import Weights
from sae_lens_meme.evaluators.result import Number, defined
from sae_lens_meme.metrics.bootstrap import percentile_interval

Numbers = dict[str, Number]
Reasons = dict[str, str]
OF_WEIGHTS = (
    *("memes/train", "memes/without_cosine", "latents/silent", "latents/too_rare", "latents/with_weight"),
    *("omega/median", "omega/median_permuted", "omega/median_chance", "omega/median_corrected"),
    *("omega/median_paired", "omega/median_unpaired", "omega/above_chance", "omega/above_chance_permuted"),
    *("cosine/same_meme", "cosine/two_memes", "cosine/two_memes_within_source"),
)
OF_SCORES = tuple(f"score/{by}/spearman_{other}" for by in ("sum", "mean") for other in ("l0", "clip"))


def stability_keys(share: float) -> list[str]:
    suffixes = ("", "_low", "_high", "_random")
    names = [f"{name}{suffix}" for name in ("kept_again", "jaccard") for suffix in suffixes]
    return [f"stability/keep_{share:g}/{by}/{name}" for by in ("sum", "mean") for name in names]


def weight_numbers(weights: Weights, permuted: Weights, pairs: MemePairs, n_train: int) -> tuple[Numbers, Reasons]:
    """Counts and medians over the latents that have a weight."""
    found = ~np.isnan(weights.omega)
    values = {
        "memes/train": n_train,
        "memes/without_cosine": n_train - len(pairs.train),
        "latents/silent": int((weights.support == 0).sum()),
        "latents/too_rare": int((~found & (weights.support > 0)).sum()),
        "latents/with_weight": int(found.sum()),
        "omega/median": _median(weights.omega),
        "omega/median_permuted": _median(permuted.omega),
        "omega/median_chance": _median(weights.chance),
        "omega/median_corrected": _median(weights.corrected),
        "omega/median_paired": _median(weights.paired),
        "omega/median_unpaired": _median(weights.unpaired),
        "omega/above_chance": _above_chance(weights),
        "omega/above_chance_permuted": _above_chance(permuted),
        "cosine/same_meme": float(pairs.clip[pairs.train].mean()),
        "cosine/two_memes": pairs.any_pair,
        "cosine/two_memes_within_source": pairs.pair_within_source,
    }
    why = dict.fromkeys(values, f"no latent fires on {weights.min_support} train memes")
    why |= dict.fromkeys(("cosine/two_memes", "cosine/two_memes_within_source"), "there are no two such train memes")
    if found.any() and not len(weights.replicates):
        why |= dict.fromkeys(("omega/above_chance", "omega/above_chance_permuted"), "n_bootstrap is 0: no intervals")
    return with_reasons(values, why)


def score_numbers(scores: ItemScores) -> tuple[Numbers, Reasons]:
    """Rank correlations over the train memes."""
    values, why = {}, {}
    for by in ("sum", "mean"):
        for other in ("l0", "clip"):
            key = f"score/{by}/spearman_{other}"
            values[key] = rank_correlation(scores.by(by)[scores.train], scores.by(other)[scores.train])
            why[key] = f"the {by} score or {other} is the same for all train memes that have both"
    return with_reasons(values, why)


def stability_numbers(
    share: float, again: dict[str, np.ndarray], random: tuple[float, float]
) -> tuple[Numbers, Reasons]:
    """Mean over resamples and percentile interval, beside two random selections."""
    values: dict[str, Any] = {}
    for by, kept in again.items():
        for (name, replicates), expected in zip(
            (("kept_again", kept), ("jaccard", jaccard(kept))), random, strict=True
        ):
            at = f"stability/keep_{share:g}/{by}/{name}"
            low, high = percentile_interval(replicates) if len(replicates) else (np.nan, np.nan)
            mean = replicates.mean() if len(replicates) else np.nan
            values |= {at: mean, f"{at}_low": low, f"{at}_high": high, f"{at}_random": expected}
    return with_reasons(values, dict.fromkeys(values, "n_bootstrap is 0: no resamples"))


def _above_chance(weights: Weights) -> float:
    low = weights.interval[0]
    measured = ~np.isnan(low)
    return float((low[measured] > weights.chance[measured]).mean()) if measured.any() else float("nan")


def _median(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else float("nan")


def with_reasons(values: dict[str, Any], why: Reasons) -> tuple[Numbers, Reasons]:
    """NaN becomes None, with its reason."""
    numbers = {key: defined(value) for key, value in values.items()}
    return numbers, {key: why[key] for key, value in numbers.items() if value is None}
