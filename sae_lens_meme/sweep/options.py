"""The options of `sweep`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from sae_lens_meme.engines import EngineOptions
from sae_lens_meme.options import Count, File, Positive


class SweepOptions(EngineOptions):
    """Which SAEs are trained, and how they are compared."""

    section: ClassVar[str] = "sweep"

    grid: Annotated[list[str], Field(min_length=1)]
    """KEY=VALUE,VALUE,... of the section train, e.g. sae.k=16,32,64; repeatable. Every combination is trained."""
    seeds: Positive = 3
    """SAEs of each setting; their seeds follow that of the recipe."""
    answer_key: File | None = None
    """Folder with the factors of planted memes: settings are then compared by recovery of these, else by probes on labels."""
    bootstrap: Count = 200
    """Resamples of the memes for intervals; 0 leaves the intervals out."""
