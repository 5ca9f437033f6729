"""The question set's numbers and its table: what each of them is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.question_set.binding import MIN_MEMES, Binding
from sae_lens_meme.evaluators.question_set.compute import CLASSES, MAJORITY, TERMS, TwoByTwo
from sae_lens_meme.evaluators.result import Quantity, nullable

CELLS = ("aa", "ab", "ba", "bb")
CLASS_WHAT = {
    "visual": "image share above one half (whole interval): the picture alone determines most of the activation",
    "textual": "text share above one half (whole interval): the text alone determines most of the activation",
    "cross_modal": "image share and text share below one half (whole intervals): neither alone determines half of "
    "the activation; this holds for nearly every direction of a product, noise included: compare random/, and see n_binding",
    "undecided": "an interval of a share holds one half, or all cells are equal; the table's reason says which",
}
BINDING_WHAT = {
    "binding": "cross-modal, concentration above one half (whole interval), and no copy of one dimension: a feature of the "
    "picture bound to a feature of the text makes most of the interaction",
    "copying": "cross-modal and concentrated, but one dimension of the fused vector has more than half of the direction "
    "that they read: the fusion itself multiplies its two numbers, also where they are noise",
}
LABELS = {
    "visual": "visual",
    "textual": "textual",
    "cross_modal": "cross-modal",
    "binding": "cross-modal, binding a feature of each",
    "undecided": "undecided",
}
HEADINGS = {"random": "random", "neurons": "neurons", "permuted": "swaps permuted"}
"""Of the printed rows, and of the controls beside them."""
CONTROLS = {
    "permuted": "control: the cells of each item permuted at random: nothing distinguishes picture from text, so that "
    "all is interaction; it guards visual and textual",
    "neurons": "control: the dimensions of the fused vector, both signs, as many active as the SAE has latents: a space "
    "without a dictionary, in which the fusion itself multiplies one number of the picture by one of the text",
    "random": "control, the noise floor: random directions of the fused vector, each active as often as a latent is on "
    "average: what a product of both sides gives where nothing was found",
}
SIZES = (
    Quantity("n_items", "pairs of memes"),
    Quantity("n_latents_fired", "latents that fire in any cell of any item"),
    Quantity("n_latents", "latents that fire in enough items: these are classed"),
)
RARE = 50
"""Items: in simulations of a AND b, intervals of the shares hold the truth in .90 to .94 of cases from here on, in .82 to .92
with 25 items and in about one half with 12."""
N_RARE, SHARE_RARE = (
    Quantity(
        key,
        f"{what} that fire in fewer than {RARE} items: the 95 % intervals of their variance shares are too short (they hold the "
        "truth in .82 to .92 of simulated cases with 25 items, less often with fewer), and so their classes too sure",
    )
    for key, what in (("n_rare", "latents"), ("share_rare", "share of n_latents"))
)
_NOT_CROSSED = (
    f"no unit fires on {MIN_MEMES} pictures and {MIN_MEMES} texts where all pictures meet all texts (n_crossed cells)"
)
COUNTS = {
    name: (
        Quantity(f"n_{name}", f"latents: {what}", _NOT_CROSSED),
        Quantity(f"share_{name}", f"share of n_latents: {what}", _NOT_CROSSED),
    )
    for name, what in {**CLASS_WHAT, **BINDING_WHAT}.items()
}
_SHARE = "share of the variance of the activation over pictures x texts (Sobol' index, from the mean squares)"
_EQUAL = "no latent fires in enough items, or all of their cells are equal"
MEDIANS = {term: Quantity(f"median_{term}_share", f"{term} {_SHARE}; median over latents", _EQUAL) for term in TERMS}
CONCENTRATION = (
    "of the interaction on products of one function of the picture and one of the text, 1 where it is a single product "
    f"(all pictures x all texts of some items, within source; fires on {MIN_MEMES} pictures and {MIN_MEMES} texts or more)"
)
MEDIAN_CONCENTRATION = Quantity(
    "median_concentration", f"concentration {CONCENTRATION}; median over latents", _NOT_CROSSED
)

_EFFECTS = {
    "image": "(aa + ab - ba - bb) / 2",
    "text": "(aa - ab + ba - bb) / 2",
    "interaction": "(aa - ab - ba + bb) / 2",
}
COLUMNS = {
    "latent": "number of the latent in the SAE",
    "n_active": "items in which the latent fires in any cell",
    **{f"mean_{cell}": f"mean activation with picture {cell[0].upper()} and text {cell[1].upper()}" for cell in CELLS},
    **{
        f"{t}_effect": f"mean over items of {_EFFECTS[t]}; about 0 for a side of which A and B are draws" for t in TERMS
    },
    **{f"{t}_square": f"mean over items of ({_EFFECTS[t]})^2: the item's sum of squares" for t in TERMS},
    **{f"{t}_share": f"{t} {_SHARE}" for t in TERMS},
    "concentration": CONCENTRATION,
    "rare": f"whether it fires in fewer than {RARE} items, so that intervals of its shares are too short",
    "class": "visual, textual or cross-modal, by the intervals of the shares",
    "dimension_share": "largest share of one dimension of the fused vector in the direction that the latent reads (squared "
    "least-squares weights on z-scored dimensions, in the cells of concentration)",
    "binds": "whether the latent is cross-modal, its concentration above one half (whole interval), dimension_share not",
    "reason": "why the latent has no class",
}


def explained(columns: list[str], interval: str) -> dict[str, str]:
    """What these columns of the table are; the ends of intervals, made as `interval` says, follow from their value."""
    jackknife = "95 % jackknife over pictures plus jackknife over texts"
    found = {}
    for name in columns:
        value, _, end = name.rpartition("_")
        if end in ("low", "high") and value in COLUMNS:
            found[name] = f"{end} end: {jackknife if value == 'concentration' else interval}"
        else:
            found[name] = COLUMNS[name]
    return found


def table_of(e: TwoByTwo, binding: Binding | None = None) -> pd.DataFrame:
    """One row per latent that fires in enough items; null where undefined."""
    table: dict[str, Any] = {"latent": e.latents, "n_active": e.n_active}
    table |= {f"mean_{cell}": mean for cell, mean in zip(CELLS, e.means, strict=True)}
    table |= _of_terms("effect", e.effects, e.effects_interval)
    table |= {f"{term}_square": squares for term, squares in zip(TERMS, e.squares, strict=True)}
    table |= _of_terms("share", e.shares, e.shares_interval)
    if binding is not None:
        value, low, high = map(nullable, binding.concentration)
        table |= {"concentration": value, "concentration_low": low, "concentration_high": high}
        table |= {"dimension_share": nullable(binding.copied), "binds": binding.binds}
    table["rare"] = e.n_active < RARE
    table["class"] = pd.array([(*CLASSES, None)[code] for code in e.classes], dtype="string")
    table["reason"] = pd.array([_reason(e, row) for row in range(len(e.latents))], dtype="string")
    return pd.DataFrame(table)


def _of_terms(name: str, values: np.ndarray, ends: np.ndarray | None) -> dict[str, Any]:
    columns = {}
    for i, term in enumerate(TERMS):
        columns[f"{term}_{name}"] = nullable(values[i])
        if ends is not None:
            columns |= {f"{term}_{name}_low": nullable(ends[0, i]), f"{term}_{name}_high": nullable(ends[1, i])}
    return columns


def _reason(effects: TwoByTwo, row: int) -> str | None:
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
