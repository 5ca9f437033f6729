"""The options of `read`."""

from __future__ import annotations

from typing import ClassVar

from sae_lens_meme.options import Count, Options, Positive, Share


class ReadOptions(Options):
    """How much is said about a meme, and with how many draws."""

    section: ClassVar[str] = "read"

    n_latents: Count = 10
    """How many of the active latents to show, the strongest first."""
    n_attributed: Count = 5
    """For how many of these to measure words and regions."""
    n_neighbours: Count = 5
    """How many train memes with the most similar latents to show."""
    n_swaps: Positive = 256
    """How many train memes lend their captions, and their pictures, to this meme to see which side decides a latent."""
    decides: Share = 0.8
    """A side decides a latent if the latent stays active with at least this share of the exchanged other sides."""
    n_carriers: Positive = 3
    """How many latents that carry a probe's decision to ablate together."""
    n_random: Positive = 50
    """Control: draws of as many other active latents of similar activation."""
    hook: str | None = None
    """The hook to read, if the SAE's metadata names none."""
    device: str = "auto"
    """auto (CUDA, then MPS, then the CPU), cpu, cuda, mps. The latents are those of the batch pipeline on the same device."""
    seed: Count = 0
    """Seed of the draws."""
