"""F1 on the memes that chose a latent against F1 on others, and how much of the loss is the cost of choosing."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.evaluators.concept_alignment.quantities import CURSE
from sae_lens_meme.figures.f1 import best_latents
from sae_lens_meme.figures.inputs import Inputs, alignment
from sae_lens_meme.figures.style import BLUE, PALE, RED, titled

TITLE = "The winner's curse"


def draw(axes: Any, inputs: Inputs) -> None:
    """A point per latent and concept; below the line, the chosen latent does worse on memes not used to choose it."""
    table = alignment(inputs)
    table = table[table["f1_validation"].notna() & table["f1_test"].notna()]
    best = best_latents(inputs)
    axes.plot(
        table["f1_validation"],
        table["f1_test"],
        ".",
        color=PALE,
        ms=3,
        ls="",
        label="every latent and concept",
        rasterized=True,
    )
    axes.plot(best["f1_validation"], best["f1_test"], "o", color=BLUE, ls="", label="the best latent of each concept")
    axes.axline((0, 0), slope=1, color=RED, lw=1)
    lost = (best["f1_validation"] - best["f1_test"]).mean()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    titled(
        axes,
        f"The chosen latents lose {lost:.3f} of F1 on average{_parts(inputs, best['concept'])}",
        f"F1 on {' and '.join(table['threshold_split'].unique())} memes, which chose",
        "F1 on test memes",
    )
    axes.legend(loc="upper left")


def _parts(inputs: Inputs, concepts: Any) -> str:
    """What of it is the cost of choosing, and what the difference between the two splits as they are."""
    numbers = inputs.content["results"]["concept_alignment"]["numbers"]
    found = {name: [numbers.get(f"corrected/{concept}/{q.key}") for concept in concepts] for name, q in CURSE.items()}
    if any(value is None for part in found.values() for value in part):
        return ""
    selection, shift = (np.mean(found[name]) for name in ("selection", "shift"))
    return f": {selection:.3f} by selection, {shift:.3f} by the shift between the splits"
