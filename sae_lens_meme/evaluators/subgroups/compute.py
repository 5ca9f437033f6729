"""How a classifier treats a subgroup: three AUROCs, the gap in false positives, and an exact test of it.

The AUROCs are those of Borkan et al. 2019, "Nuanced Metrics for Measuring Unintended Bias with Real Data for Text
Classification". The background are the memes that are known to be outside the subgroup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Real, UInt8
from scipy import sparse

from sae_lens_meme.metrics.association import Counter, firing_rate_difference
from sae_lens_meme.metrics.by_column import sum_by_column
from sae_lens_meme.metrics.fisher import greater_one_a_group, one_a_group
from sae_lens_meme.metrics.ranking import auroc_of_scores

MIN_SUPPORT = 20
AUROCS = ("subgroup_auroc", "bpsn_auroc", "bnsp_auroc")
RATES = ("fpr_subgroup", "fpr_background", "fpr_gap")


class Audit(NamedTuple):
    """Of one classifier and one subgroup; `values` by name of AUROCS and RATES, one per draw of the memes, NaN where undefined."""

    n_subgroup_positive: int
    n_subgroup_negative: int
    n_background_positive: int
    n_background_negative: int
    values: Mapping[str, Float64[np.ndarray, " draws"]]
    reasons: Mapping[str, str]
    """Why a value is undefined, by its name."""


def audit(
    scores: Float[np.ndarray, " n"],
    true: Bool[np.ndarray, " n"],
    member: Bool[np.ndarray, " n"],
    threshold: float,
    weights: Real[np.ndarray, "n draws"] | None = None,
    min_support: int = MIN_SUPPORT,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Audit:
    """Measure memes of which both the label and the subgroup are known; leave the others out before.

    Args:
        true: the label.
        member: of the subgroup; the others are the background.
        threshold: a meme with this score or a larger one is flagged.
        weights: how often each meme is drawn, one column per draw; default once.
        min_support: memes, one per group, that each part of a number must have; below, single memes decide it.
        groups: memes of one (copies of a picture, a template) are not independent evidence; default each its own.
    """
    weights = np.ones((len(scores), 1), np.uint8) if weights is None else weights
    cells = {
        "subgroup positives": member & true,
        "subgroup negatives": member & ~true,
        "background positives": ~member & true,
        "background negatives": ~member & ~true,
    }
    sizes = {name: int(rows.sum()) for name, rows in cells.items()}
    apart = sizes if groups is None else {name: len(np.unique(groups[rows])) for name, rows in cells.items()}
    needs = {
        "subgroup_auroc": ("subgroup positives", "subgroup negatives"),
        "bpsn_auroc": ("background positives", "subgroup negatives"),
        "bnsp_auroc": ("subgroup positives", "background negatives"),
        **dict.fromkeys(RATES, ("subgroup negatives", "background negatives")),
    }
    alone = "" if apart == sizes else " (one per group)"
    reasons = {
        name: f"{' and '.join(f'{apart[cell]} {cell}' for cell in cells_of)}{alone}; it needs {min_support} of each"
        for name, cells_of in needs.items()
        if min(apart[cell] for cell in cells_of) < min_support
    }
    values = {name: np.full(weights.shape[1], np.nan) for name in needs}
    for name in AUROCS:
        if name not in reasons:
            rows = np.logical_or(*(cells[cell] for cell in needs[name]))
            strata = np.zeros(int(rows.sum()), np.int64)
            values[name] = auroc_of_scores(scores[rows], true[rows], strata, weights[rows])
    if "fpr_gap" not in reasons:
        rates = [
            share_of_draws(scores[rows] >= threshold, weights[rows]) for rows in (cells[c] for c in needs["fpr_gap"])
        ]
        values |= dict(zip(RATES, (*rates, rates[0] - rates[1]), strict=True))
    return Audit._make((*sizes.values(), values, reasons))


def share_of_draws(
    flagged: Bool[np.ndarray, " n"], weights: Real[np.ndarray, "n draws"]
) -> Float64[np.ndarray, " draws"]:
    size = weights.sum(axis=0, dtype=np.float64)
    drawn = weights[flagged].sum(axis=0, dtype=np.float64)
    return np.divide(drawn, size, out=np.full(len(size), np.nan), where=size > 0)


class GapTest(NamedTuple):
    """Of each subgroup; NaN where it cannot be done."""

    log_p: Float[np.ndarray, " subgroups"]
    """Natural log of the two-sided p: twice the smaller of the two exact one-sided ones."""
    within: Float[np.ndarray, " subgroups"]
    """The gap within strata, with Mantel and Haenszel's weights."""


def gap_log_p(
    flagged: Bool[np.ndarray, " n"],
    members: UInt8[np.ndarray, "n subgroups"],
    strata: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
) -> GapTest:
    """Exact test, within strata, of whether being flagged goes with the subgroup; of negatives it tests the gap.

    Args:
        members: codes: in the subgroup, in the background, or not known.
        groups: memes of one are not independent evidence: one of each is tested.
    """
    active = sparse.csr_matrix(np.stack([flagged, ~flagged], axis=1).astype(np.float32))
    counter = Counter(active, members, strata)
    log_p = greater_one_a_group(counter.count, one_a_group(groups))
    return GapTest(np.minimum(np.log(2) + np.minimum(*log_p), 0.0), firing_rate_difference(counter.count())[0])


NEAREST = 20
"""A matched latent is one of that many with the nearest firing rates."""


def carried(
    latents: Any, gain: Float64[np.ndarray, " d_sae"], first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " d_sae"]:
    """Of each latent the mean contribution to the logit over the first memes, minus that over the second; exact.

    Args:
        latents: CSR [n, d_sae].
        gain: direction of each latent . weights of the probe: what one unit of it adds to the logit.
    """
    weights = first / max(first.sum(), 1) - second / max(second.sum(), 1)
    return gain * sum_by_column(latents, weights)


class Ablated(NamedTuple):
    """One set of latents set to zero in the embedding, the SAE's error kept."""

    gap: Float64[np.ndarray, " draws"]
    auroc: float
    """Of the classifier, on all memes that measure it."""


def ablated(
    logits: Float64[np.ndarray, " n"],
    removed: Float64[np.ndarray, " n"],
    threshold: float,
    threshold_rows: Int[np.ndarray, " t"],
    test: Int[np.ndarray, " h"],
    true: Bool[np.ndarray, " n"],
    subgroup: Int[np.ndarray, " a"],
    background: Int[np.ndarray, " b"],
    weights: tuple[Real[np.ndarray, "a draws"], Real[np.ndarray, "b draws"]] | None = None,
) -> Ablated:
    """The gap in false positives and the AUROC after `removed` is taken from the logits.

    The threshold moves so that as many of the memes that chose it are flagged as before: without that, whatever lowers all
    logits would close every gap.

    Args:
        threshold: from which a meme was flagged before.
        subgroup, background: the negatives of each that measure the gap.
    """
    after = logits - removed
    kept = int((logits[threshold_rows] >= threshold).sum())
    moved = np.partition(after[threshold_rows], -kept)[-kept] if kept else np.inf
    draws = weights or (np.ones((len(subgroup), 1)), np.ones((len(background), 1)))
    rates = [share_of_draws(after[rows] >= moved, w) for rows, w in zip((subgroup, background), draws, strict=True)]
    auroc = auroc_of_scores(after[test], true[test], np.zeros(len(test), np.int64))
    return Ablated(rates[0] - rates[1], float(auroc[0]))


def matched_draws(
    chosen: Sequence[int] | np.ndarray,
    n_active: Int[np.ndarray, " d_sae"],
    draws: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "draws chosen"] | None:
    """For each chosen latent another one of similar firing rate, in each draw a different one for each; None where too few fire.

    Args:
        n_active: how often each latent fires.
    """
    order = np.argsort(n_active, kind="stable")
    order = order[n_active[order] > 0]
    others = order[~np.isin(order, chosen)]
    if len(others) < len(chosen):
        return None
    distance = np.abs(n_active[others][None, :] - n_active[np.asarray(chosen)][:, None])
    nearest = others[np.argsort(distance, axis=1, kind="stable")[:, : max(NEAREST, len(chosen))]]
    found = np.empty((draws, len(chosen)), np.int64)
    for draw in range(draws):
        taken: set[int] = set()
        for i in rng.permutation(len(chosen)):
            free = [int(latent) for latent in nearest[i] if int(latent) not in taken]
            found[draw, i] = free[rng.integers(len(free))]
            taken.add(int(found[draw, i]))
    return found
