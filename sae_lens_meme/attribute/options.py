"""The options of `attribute`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sae_lens_meme.options import Count, Flag, Options, Positive


class AttributeOptions(Options):
    """Which latents and memes are looked into."""

    section: ClassVar[str] = "attribute"

    latents: Annotated[list[Count] | None, Flag("--latent")] = None
    """A latent to look into; repeat. Default: every latent that is active on a meme."""
    n_latents: Positive | None = None
    """Look into so many latents, drawn at random from those that are active."""
    rows: Literal["all", "held_out"] = "all"
    """Take the memes from all splits, or from the held-out ones alone."""
    top: Count = 20
    """Memes with the largest activation, for each latent; of memes of one group only the first."""
    intervals: Annotated[int, Field(ge=1, le=100)] = 5
    """Equally wide parts of the range of a latent's activations."""
    per_interval: Count = 5
    """Memes drawn from each of these parts."""
    pairs: Count = 3
    """So many words and so many patches with the largest scores are paired for word x patch interactions."""
    hook: str | None = None
    """The hook to read, for an SAE whose metadata name none."""
    batch_size: Positive = 128
    """Pictures or captions a forward pass; the numbers depend on it in the last bit, so it is part of the result's key."""
    device: str = "auto"
    """auto (CUDA, then MPS, then the CPU), cpu, cuda, mps."""
    seed: Count = 0
    """Seed of the draws of memes and latents."""

    def recorded(self) -> dict[str, Any]:
        """What the result depends on."""
        return self.model_dump(exclude={"device", "hook"})
