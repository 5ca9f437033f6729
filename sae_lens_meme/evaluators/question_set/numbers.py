"""The question set's numbers, its table of latents, and what each of them means."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.question_set.contrasts import Effects
from sae_lens_meme.evaluators.question_set.shares import CLASSES, MAJORITY, TERMS
from sae_lens_meme.evaluators.result import Number, defined, nullable

COUNTED = ("visual", "textual", "cross_modal", "undecided")
CELLS = ("aa", "ab", "ba", "bb")
CONTROLS = ("permuted", "neurons")


def numbers_of(effects: Effects) -> dict[str, Number]:
    """Of the SAE's latents, without controls; None where undefined."""
    numbers: dict[str, Number] = {"n_items": effects.n_items, "n_latents_fired": effects.n_fired}
    numbers |= {"n_latents": len(effects.latents)}
    numbers |= class_numbers(effects)
    for term, shares in zip(TERMS, effects.shares, strict=True):
        known = shares[~np.isnan(shares)]
        numbers[f"median_{term}_share"] = float(np.median(known)) if len(known) else None
    return numbers


def class_numbers(effects: Effects, group: str = "", *, intervals: bool = True) -> dict[str, Number]:
    """Counts and shares of the classes; with intervals where `effects` has them."""
    m, ends = len(effects.latents), effects.counts_interval if intervals else None
    numbers: dict[str, Number] = {}
    for code, name in enumerate(COUNTED):
        found = {"": effects.counts[code]}
        if ends is not None:
            found |= {"_low": ends[0, code], "_high": ends[1, code]}
        for end, count in found.items():
            numbers[f"{group}n_{name}{end}"] = defined(count)
            numbers[f"{group}share_{name}{end}"] = float(count) / m if m else None
    return numbers


def number_names(intervals: bool) -> list[str]:
    """Every key of the result, for the case that none of them is defined."""
    ends = ("", "_low", "_high") if intervals else ("",)
    classes = [f"{kind}_{name}{end}" for name in COUNTED for end in ends for kind in ("n", "share")]
    controls = [f"{control}/{kind}_{name}" for control in CONTROLS for name in COUNTED for kind in ("n", "share")]
    medians = [f"median_{term}_share" for term in TERMS]
    return ["n_items", "n_latents_fired", "n_latents", *classes, *medians, *controls]


def table_of(effects: Effects) -> pd.DataFrame:
    """One row a latent that fires in enough items; null where undefined."""
    columns: dict[str, Any] = {"latent": effects.latents, "n_active": effects.n_active}
    columns |= {f"mean_{cell}": mean for cell, mean in zip(CELLS, effects.means, strict=True)}
    for i, term in enumerate(TERMS):
        columns |= _with_ends(f"{term}_effect", effects.effects, effects.effects_interval, i)
    columns |= {f"{term}_square": effects.squares[i] for i, term in enumerate(TERMS)}
    for i, term in enumerate(TERMS):
        columns |= _with_ends(f"{term}_share", effects.shares, effects.shares_interval, i)
    columns["class"] = pd.array([CLASSES[c] if c < len(CLASSES) else None for c in effects.classes], dtype="string")
    columns["reason"] = pd.array([_reason(effects, row) for row in range(len(effects.latents))], dtype="string")
    return pd.DataFrame(columns)


def _with_ends(name: str, values: np.ndarray, ends: np.ndarray | None, i: int) -> dict[str, Any]:
    found = {name: values[i]}
    if ends is not None:
        found |= {f"{name}_low": ends[0, i], f"{name}_high": ends[1, i]}
    return {key: nullable(column) for key, column in found.items()}


def _reason(effects: Effects, row: int) -> str | None:
    """Why a latent has no class."""
    if effects.classes[row] < len(CLASSES):
        return None
    if not effects.n_active[row]:
        return "fires in no item"
    if np.isnan(effects.shares[0, row]):
        return "is equally active in all four cells of every item"
    ends = np.stack([effects.shares, effects.shares]) if effects.shares_interval is None else effects.shares_interval
    low, high = ends[:, :2, row]
    side = int(np.flatnonzero((low <= MAJORITY) & (high >= MAJORITY))[0])
    return f"the {TERMS[side]} share, {low[side]:.2f} to {high[side]:.2f}, is not clearly above or below one half"


def explain(items: str, drawn: Collection[str], min_items: int, n_bootstrap: int) -> dict[str, str]:
    """A line for every number and column.

    Args:
        items: which memes were paired, and how.
        drawn: the sides of which A and B are exchangeable.
    """
    ends = f"95 % percentile bootstrap over items within source, {n_bootstrap} resamples"
    draws = f"A and B as draws of {' and '.join(drawn)}" if drawn else "A and B as two fixed conditions"
    return {
        "*": f"items: {items}; each is two pictures x two texts (cells aa, ab, ba, bb: picture, text; aa and bb are the memes)",
        "n_items": "pairs of memes",
        "n_latents*": f"latents that fire in any cell of any item (_fired), and of at least {min_items} items: these are classed",
        "*visual*": "image share above one half (whole interval): the picture alone tells most of the activation; "
        "control: permuted",
        "*textual*": "text share above one half (whole interval); control: permuted",
        "*cross_modal*": "image share and text share below one half (whole intervals): neither alone tells as much as it leaves "
        "open; so does an activation that hangs on nothing systematic, so that the control is not permuted but neurons",
        "*undecided*": "an interval holds one half, or all cells are equal; the table's reason says which",
        "share_*": "of n_latents",
        **dict.fromkeys(
            ("n_*_low", "n_*_high", "share_*_low", "share_*_high"),
            f"{ends}: the spread of the count as each latent's interval moves with its resampled share, laid around the count",
        ),
        "median_*": "over classed and undecided latents",
        "*_share": f"of the variance of the activation over pictures x texts (Sobol' indices, from the mean squares; {draws})",
        "*_effect": "mean over items of (aa + ab - ba - bb) / 2 for the image, (aa - ab + ba - bb) / 2 for the text, "
        "(aa - ab - ba + bb) / 2 for the interaction"
        "; about 0 for a side of which A and B are draws",
        **dict.fromkeys(("*_effect_low", "*_effect_high", "*_share_low", "*_share_high"), ends),
        "*_square": "mean over items of the squared contrast: the item's sum of squares in the 2x2 analysis of variance",
        "mean_*": "mean activation in the cell",
        "n_active": "items in which the latent fires in any cell",
        "class": "of the intervals of the shares",
        "permuted/*": "control: the cells of each item permuted at random, the same classes: what comes out where nothing "
        "tells picture from caption. Then all is interaction, so that it guards visual and textual",
        "*/share_*": "of the units that fire in as many items",
        "neurons/*": "control: the dimensions of the fused vector, both signs, as many active as the SAE has latents: what "
        "comes out of a fused space without a dictionary",
    }
