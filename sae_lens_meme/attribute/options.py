"""The options of `attribute`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sae_lens_meme.engines import NOT_RECORDED, EngineOptions
from sae_lens_meme.options import Count, Flag, Positive


class AttributeOptions(EngineOptions):
    """Which latents and memes are attributed."""

    section: ClassVar[str] = "attribute"

    latents: Annotated[list[Count] | None, Flag("--latent")] = None
    """A latent to attribute; repeatable. Default: every latent that is active on a meme."""
    n_latents: Positive | None = None
    """How many latents to attribute, drawn at random from those that are active."""
    rows: Literal["all", "held_out"] = "all"
    """Take the memes from all splits, or from the held-out ones alone."""
    top: Count = 20
    """Memes with the largest activation for each latent, at most one of each group."""
    intervals: Annotated[int, Field(ge=1, le=100)] = 5
    """Equally wide parts of the range of a latent's activations."""
    per_interval: Count = 5
    """Memes drawn from each of these parts."""
    pairs: Count = 3
    """How many of the highest-scoring words, and of the patches, to pair for word x patch interactions."""
    hook: str | None = None
    """The hook to read, if the SAE's metadata names none."""
    batch_size: Positive = 128
    """Pictures or captions per forward pass; it changes the last bit of the numbers, so another value gives another result."""
    device: str = "auto"
    """auto (CUDA, then MPS, then the CPU), cpu, cuda, mps."""
    seed: Count = 0
    """Seed of the draws of memes and latents."""

    def recorded(self) -> dict[str, Any]:
        """What the result depends on."""
        return self.model_dump(exclude={"device", "hook", *NOT_RECORDED})
