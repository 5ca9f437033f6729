"""The worlds that planted memes come from: a world is what is drawn, what the labels say about it, and the encoder that knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_lens_meme.planted.causes import PLAIN_LABELS, Labelling
from sae_lens_meme.planted.crowded import CROWDED_LABELS, draw_crowded
from sae_lens_meme.planted.crowded import KINDS as CROWDED_KINDS
from sae_lens_meme.planted.factors import KINDS, Factors, draw_factors
from sae_lens_meme.planted.options import PLAIN

DEMO_ENCODER = Path(__file__).parent / "encoder"
"""Folder of the demo encoder: config.json, merges.txt.gz, weights.safetensors."""


@dataclass(frozen=True)
class World:
    draw: Callable[[np.random.Generator, str, float], Factors]
    """The factors of a meme of this source, whose mood and expression clash with this probability."""
    kinds: Mapping[str, str]
    """Of every factor: visual, textual, cross-modal."""
    labelling: Labelling
    note: str
    """Said in the answer key."""


WORLDS: Mapping[str, World] = {
    PLAIN: World(
        draw_factors,
        KINDS,
        PLAIN_LABELS,
        "No meme is hateful: 'hate' is the name of a column, true where the caption's mood and the faces clash.",
    ),
    "crowded": World(
        draw_crowded,
        CROWDED_KINDS,
        CROWDED_LABELS,
        "No meme is hateful: 'hate' is the name of a column, true where a certain sticker and a certain saying meet.",
    ),
}
