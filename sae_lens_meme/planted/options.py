"""Which planted memes are drawn."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from sae_lens_meme.options import Count, Options


class PlantedOptions(Options):
    """The section `corpus.planted` of a recipe."""

    section: ClassVar[str] = "corpus.planted"

    seed: Count = 0
    """Another seed draws other memes."""
    scale: Annotated[float, Field(gt=0, le=4)] = 1.0  # beyond it streams would share file names
    """1.0: 6,035 memes, about a quarter of the three real data sets."""
