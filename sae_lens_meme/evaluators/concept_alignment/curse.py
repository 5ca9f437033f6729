"""The winner's curse in two parts: the cost of choosing the best, and the difference between validation and test memes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from sae_lens_meme.evaluators.concept_alignment.compute import BestLatents
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.metrics.association import TRUE, UNKNOWN, f1_score
from sae_lens_meme.metrics.ranking import Ranked, best_f1
from sae_lens_meme.metrics.resampling import permutation_within

REDRAWN = 20
"""Random splits of the memes that choose and the memes that test."""


class Curse(NamedTuple):
    """Parts of `winners_curse` of each concept's best latent, which they sum to; NaN where it is undefined."""

    selection: Float[np.ndarray, " concepts"]
    shift: Float[np.ndarray, " concepts"]


def curse_of(best: BestLatents, ranked: Ranked, labels: ConceptLabels, seed: int) -> Curse:
    """What the same choice loses when the memes that choose and those that test are re-split, and what is left.

    Re-split within source, groups whole, with both parts as large as before, they differ by chance alone: the mean loss
    is that of choosing the best of many. The rest of the loss is the shift between the two splits as they are.
    """
    chosen_on, splits = labels.threshold_codes()[1], labels.splits
    total = best.scores["winners_curse"]
    found = np.full((REDRAWN, len(chosen_on)), np.nan)
    for split in {split for split, curse in zip(chosen_on, total, strict=True) if split and not np.isnan(curse)}:
        mine = np.flatnonzero([s == split for s in chosen_on])
        order = np.arange(len(splits)) if labels.by_id is None else labels.by_id
        rows = order[np.isin(splits[order], (split, "test"))]
        generator = np.random.default_rng(seed)
        for redrawn in found:
            dealt = np.full(len(splits), "", dtype=splits.dtype)
            groups = None if labels.groups is None else labels.groups[rows]
            dealt[rows] = splits[rows][permutation_within(labels.sources[rows], generator, groups=groups)]
            choose, test = (
                np.where((dealt == s)[:, None], labels.known[:, mine], np.uint8(UNKNOWN)) for s in (split, "test")
            )
            redrawn[mine] = _loss(ranked, choose, test)
    selection = np.where(np.isnan(total), np.nan, _mean(found))
    return Curse(selection, total - selection)


def _loss(
    ranked: Ranked, choose: UInt8[np.ndarray, "n concepts"], test: UInt8[np.ndarray, "n concepts"]
) -> Float[np.ndarray, " concepts"]:
    """F1 on the memes that choose latent and threshold minus F1 on the others."""
    found = best_f1(ranked, choose)
    f1 = np.where(np.isnan(found.threshold) | ~(choose == TRUE).any(axis=0), -1.0, found.f1)
    latent: Int[np.ndarray, " concepts"] = f1.argmax(axis=0)
    concepts = np.arange(len(latent))
    threshold = found.threshold[latent, concepts]
    fires = ranked.columns(latent, len(test)) >= threshold  # NaN fires nowhere
    true = test == TRUE
    on_test = f1_score((fires & true).sum(axis=0), (fires & (test != UNKNOWN)).sum(axis=0), true.sum(axis=0))
    return np.where(np.isnan(threshold), np.nan, f1[latent, concepts] - on_test)


def _mean(draws: Float[np.ndarray, "draws concepts"]) -> Float[np.ndarray, " concepts"]:
    """Over the draws that define it."""
    there = ~np.isnan(draws)
    n = there.sum(axis=0)
    return np.where(n > 0, np.where(there, draws, 0).sum(axis=0) / np.maximum(n, 1), np.nan)
