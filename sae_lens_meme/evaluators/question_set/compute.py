"""The 2x2 design: four cells of latents in; effects, variance shares, classes and their intervals out.

It knows nothing of memes: cells may be fused memes with swapped captions, or a captioner's latents under two prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

TERMS = ("image", "text", "interaction")
CLASSES = ("visual", "textual", "cross-modal")
UNDECIDED = len(CLASSES)
"""The code of a latent without a class."""
MAJORITY = 0.5
SIGNS = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
"""Contrasts of the cells aa, ab, ba, bb. The half makes a main effect a difference of two means of two cells, and
the three contrasts orthonormal: their squares are the sums of squares of the 2x2 analysis of variance."""


class Cells(NamedTuple):
    """Latents of the same items in the same order; the first letter is the picture, the second the text."""

    aa: Latents
    ab: Latents
    ba: Latents
    bb: Latents


@dataclass(frozen=True, eq=False)
class TwoByTwo:
    """What `effects` found; columns are `latents`, rows of three are (image, text, interaction)."""

    n_items: int
    n_fired: int  # latents that fire in any cell of any item
    latents: Int[np.ndarray, " m"]
    n_active: Int[np.ndarray, " m"]  # items in which the latent fires in any cell
    means: Float64[np.ndarray, "4 m"]
    effects: Float64[np.ndarray, "3 m"]
    squares: Float64[np.ndarray, "3 m"]
    shares: Float64[np.ndarray, "3 m"]
    effects_interval: Float64[np.ndarray, "2 3 m"] | None
    shares_interval: Float64[np.ndarray, "2 3 m"] | None
    classes: Int[np.ndarray, " m"]  # codes of `class_codes`
    counts: Int[np.ndarray, " 4"]  # latents of each class, undecided last
    counts_interval: Float64[np.ndarray, "2 4"] | None


def effects(
    cells: Cells,
    *,
    drawn: Collection[str] = TERMS[:2],
    min_items: int = 10,
    n_bootstrap: int = 200,
    strata: Int[np.ndarray, " items"] | None = None,
    groups: Int[np.ndarray, " items"] | None = None,
    seed: int = 0,
    block: int = 4096,
) -> TwoByTwo:
    """Main effect of picture, of text and interaction for every latent, signed and sign-free, with 95 % intervals.

    Signed, as means over items of the activations z: image = (aa + ab - ba - bb) / 2, text = (aa - ab + ba - bb) / 2,
    interaction = (aa - ab - ba + bb) / 2. Sign-free: the means of their squares, which do not vanish where A and B
    are exchangeable, and their `variance_shares`. Classes: `class_codes` of the intervals of the shares.

    Args:
        cells: four Latents of the same items.
        drawn: the sides of which A and B are two random draws; the others are two fixed conditions. For a captioner
            under two prompts ("image",); for items that set pictures of a concept against others ("text",).
        min_items: latents that fire in fewer items (in any cell) are left out.
        n_bootstrap: resamples of the items; 0 gives no intervals, and classes of the shares as they are.
        strata: items are resampled within these.
        groups: items of one group are drawn together; default items are independent of each other.
        block: latents whose resamples are in memory at once.

    Raises:
        DataError: the cells do not hold the same items of one SAE, or fewer than two.
        ConfigError: `drawn` names another side, or `n_bootstrap` or `min_items` is negative.
    """
    n_items = _require(cells, drawn, min_items, n_bootstrap)
    z = [cell.csc().astype(np.float64) for cell in cells]
    total: Any = sum(z[1:], z[0])
    n_active = np.diff(total.indptr)  # activations are not negative: none of these sums cancels to 0
    latents = np.flatnonzero(n_active >= min_items)
    weights = _weights(np.zeros(n_items, np.int64) if strata is None else strata, n_bootstrap, seed, groups)
    starts = range(0, max(len(latents), 1), block)
    *columns, resampled = zip(*[_block(z, latents[s : s + block], weights, drawn) for s in starts], strict=True)
    means, signed, squares, shares, signed_ends, share_ends, classes = (np.concatenate(c, axis=-1) for c in columns)
    counts, resampled_counts = class_counts(classes), np.sum(resampled, axis=0)
    some = n_bootstrap > 0
    return TwoByTwo(
        n_items,
        int(np.count_nonzero(n_active)),
        latents,
        n_active[latents],
        means,
        signed,
        squares,
        shares,
        signed_ends if some else None,
        share_ends if some else None,
        classes,
        counts,
        _count_interval(counts, resampled_counts, len(latents)) if some else None,
    )


def variance_shares(
    squares: Float64[np.ndarray, "3 *latents"], drawn: Collection[str] = TERMS[:2]
) -> Float64[np.ndarray, "3 *latents"]:
    """Shares of image, text and interaction in the variance of an activation over all pictures x texts.

    They are Sobol' indices of order one and two (Sobol' 1993): the image share is the largest R^2 that any
    prediction from the picture alone can reach where texts are dealt out to pictures at random. Estimated by
    the method of moments (ANOVA estimators; Searle, Casella and McCulloch 1992, chapter 4): with two pictures
    and two texts drawn for each item, E[image^2] = 2 V_image + V_interaction and E[interaction^2] = V_interaction,
    because two texts do not average an interaction out. The mean squares themselves would therefore give a pure
    interaction (z = a XOR b of random pairs) one third to each term, and interaction never more than a third.
    Texts that are not drawn but are two fixed conditions (two prompts) are all the texts there are: an interaction does
    average out over them, so that nothing is subtracted from the image's square. Negative estimates are taken for 0.

    Args:
        squares: mean over items of each squared contrast, in the order of TERMS.
        drawn: the sides, "image" and "text", of which A and B are two draws from one population.

    Returns:
        Shares that add up to 1; NaN where the activation does not differ between cells.
    """
    image, text, interaction = squares
    of_image, of_text = (1.0 if side in drawn else 0.5 for side in TERMS[:2])
    variances = np.stack(
        [
            of_image / 2 * np.maximum(image - (interaction if "text" in drawn else 0), 0),
            of_text / 2 * np.maximum(text - (interaction if "image" in drawn else 0), 0),
            of_image * of_text * interaction,
        ]
    )
    total = variances.sum(axis=0)
    return np.divide(variances, total, out=np.full_like(variances, np.nan), where=total > 0)


def class_codes(
    low: Float64[np.ndarray, "sides *latents"], high: Float64[np.ndarray, "sides *latents"]
) -> Int[np.ndarray, " *latents"]:
    """Index into CLASSES, or UNDECIDED, from the interval of the image share and of the text share.

    visual: the image share lies above one half: the picture alone tells more of the activation than all that needs the
    text. textual: the text share does. cross-modal: both lie below one half: neither alone tells as much
    as it leaves open. Undecided: an interval holds one half, or the shares are undefined. One half is not a tuned bar:
    two shares cannot both be above it, and without an interaction one of them is not below it. So a sum of a visual
    and a textual part is never cross-modal (it has the class of its larger part, and none where they are equal), while
    z = a AND b of fair independent a, b (a third each) and z = a XOR b (all interaction) are. In general a AND b with
    odds o_a, o_b has the image share o_b / (1 + o_a + o_b): visual only where b is nearly always true.

    Where the embedding is a product of both sides, almost any direction of it is cross-modal in this sense, also of
    noise: read it beside random directions, and with `binding.concentration`.
    """
    alone = low > MAJORITY
    neither = (high < MAJORITY).all(axis=0)
    return np.select([alone[0], alone[1], neither], range(len(CLASSES)), UNDECIDED)


def class_counts(codes: Int[np.ndarray, "latents *resamples"]) -> Int[np.ndarray, "classes *resamples"]:
    """How many latents are of each class, and the undecided ones last."""
    return np.stack([(codes == code).sum(axis=0) for code in range(UNDECIDED + 1)])


def _block(
    z: Sequence[Any], latents: np.ndarray, weights: Float64[np.ndarray, "items replicates_1"], drawn: Collection[str]
) -> tuple[np.ndarray, ...]:
    """The columns of `TwoByTwo` for these latents, then how many are of each class in each resample."""
    part = [cell[:, latents] for cell in z]
    aa, ab, ba, bb = part
    contrasts = [a * aa + b * ab + c * ba + d * bb for a, b, c, d in SIGNS]
    means = np.stack([np.asarray(cell.sum(axis=0)).ravel() / len(weights) for cell in part])
    sizes = weights.sum(axis=0)  # groups are drawn whole: not as many items in each resample
    signed = np.stack([c.T @ weights for c in contrasts]) / sizes  # [3, latents, 1 + replicates]
    squares = np.stack([c.power(2).T @ weights for c in contrasts]) / sizes
    shares = variance_shares(squares, drawn)
    # A resample without an item in which the latent differs says nothing of its shares: the estimate stands in.
    shares = np.where(np.isnan(shares), shares[..., :1], shares)
    share_ends = _interval(shares)
    sides = share_ends[:, :2]
    moved = (shares - shares[..., :1])[:2, :, 1:]
    resampled = class_counts(class_codes(sides[0][..., None] + moved, sides[1][..., None] + moved))
    estimate = (means, signed[..., 0], squares[..., 0], shares[..., 0])
    return *estimate, _interval(signed), share_ends, class_codes(*sides), resampled


def _interval(values: Float64[np.ndarray, "3 latents replicates_1"]) -> Float64[np.ndarray, "2 3 latents"]:
    """Percentiles of the resamples; without any, the estimate (first on the last axis) twice."""
    resampled = values[..., 1:] if values.shape[-1] > 1 else values
    return percentile_interval(np.moveaxis(resampled, -1, 0))


def _count_interval(counts: np.ndarray, resampled: Int[np.ndarray, "4 replicates"], m: int) -> np.ndarray:
    """The spread of the counts when each latent's interval moves with its resampled share, laid around the counts."""
    spread = resampled - np.median(resampled, axis=1, keepdims=True)
    return np.clip(counts + percentile_interval(spread.T), 0, m)


def _weights(
    strata: np.ndarray, replicates: int, seed: int, groups: np.ndarray | None = None
) -> Float64[np.ndarray, "items replicates_1"]:
    """Ones (the estimate), then how often each item is drawn in each resample."""
    drawn = bootstrap_weights(strata, replicates, seed, groups)
    return np.stack([np.ones(len(strata)), *drawn], axis=1).astype(np.float64)


def _require(cells: Cells, drawn: Collection[str], min_items: int, n_bootstrap: int) -> int:
    shapes = {f"{name} [{cell.n_samples}, {cell.d_sae}]" for name, cell in cells._asdict().items()}
    if len({(cell.n_samples, cell.d_sae) for cell in cells}) > 1:
        raise DataError(f"question set: the cells {', '.join(sorted(shapes))} must be one [items, d_sae]")
    if cells.aa.n_samples < 2:
        raise DataError(f"question set: {cells.aa.n_samples} items; effects and intervals need two or more")
    if unknown := sorted(set(drawn) - set(TERMS[:2])):
        raise ConfigError(f"question set: drawn={unknown[0]!r}; give a selection of 'image' and 'text'")
    if min(min_items, n_bootstrap) < 0:
        raise ConfigError(f"question set: min_items {min_items} and n_bootstrap {n_bootstrap} must be 0 or more")
    return cells.aa.n_samples
