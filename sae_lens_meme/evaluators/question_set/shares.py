"""How much of a latent's variance picture, text and their interaction carry, and the class that follows from it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jaxtyping import Float64, Int

TERMS = ("image", "text", "interaction")
CLASSES = ("visual", "textual", "cross-modal")
UNDECIDED = len(CLASSES)
"""The code of a latent without a class."""
MAJORITY = 0.5


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
    as it leaves open. Undecided: an interval holds one half, or the shares are undefined. One half is no tuned bar:
    two shares cannot both be above it, and without an interaction one of them is not below it. So a sum of a visual
    and a textual part is never cross-modal (it has the class of its larger part, and none where they are equal), while
    z = a AND b of fair independent a, b (a third each) and z = a XOR b (all interaction) are. In general a AND b with
    odds o_a, o_b has the image share o_b / (1 + o_a + o_b): visual only where b is nearly always true.
    """
    alone = low > MAJORITY
    neither = (high < MAJORITY).all(axis=0)
    return np.select([alone[0], alone[1], neither], range(len(CLASSES)), UNDECIDED)


def class_counts(codes: Int[np.ndarray, "latents *resamples"]) -> Int[np.ndarray, "classes *resamples"]:
    """How many latents are of each class, and the undecided ones last."""
    return np.stack([(codes == code).sum(axis=0) for code in range(UNDECIDED + 1)])
