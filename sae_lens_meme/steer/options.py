"""The options of `steer`, and those that it shares with the studies of chat models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sae_lens_meme.options import Count, File, Flag, Options, Positive

PROMPT = "What is shown in this image? Use exactly one word!"
"""sae-for-vlm's."""


class AskOptions(Options):
    """Which model is shown which pictures, and how it answers."""

    model: str
    """A chat model of transformers: OWNER/NAME or a folder; 'steer' also takes a captioner."""
    pictures: File
    """A folder of pictures."""
    max_new_tokens: Positive = 5
    """Length of an answer."""
    bootstrap: Count = 1000
    """Resamples of the pictures for 95 % intervals."""
    seed: Count = 0
    """Seed of all random draws."""
    batch_size: Positive = 8
    """Pictures in one pass."""
    device: str = "auto"
    """auto (CUDA, then MPS, then the CPU), cpu, cuda, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; auto is bfloat16 on CUDA and float32 elsewhere."""


class SteerOptions(AskOptions):
    """Which latents are set to what, and what the model is asked meanwhile."""

    section = "steer"

    references: File | None = None
    """Pictures that say what a latent is about and how often it fires; default a random half of --pictures, which is then not asked about."""
    latents: list[int]
    """A latent to set (repeat it)."""
    values: Annotated[list[float], Flag("--value")] = [100.0]  # noqa: RUF012  pydantic copies it
    """A strength (repeat it): the activation that the latent is set to; the first is concluded from, the others are a sweep.
    sae-for-vlm takes 100 for scores, 0 to 50 for figures."""
    relative: bool = False
    """Strengths are multiples of the latent's largest activation on the reference pictures."""
    mode: Literal["set", "add", "scale"] = "set"
    """What a strength is: the new activation, what is added to it, what it is multiplied by."""
    where: list[str] | None = None
    """The positions (repeat it): image, text, special, generated; default all."""
    error_term: bool = True
    """Add what the SAE does not reconstruct, so that nothing but the latent changes; sae-for-vlm does not."""
    pre_zero: bool = False
    """Set all other latents to 0."""
    prompt: str = PROMPT
    """What a chat model is asked; a captioner is asked nothing. The first word of the answer is scored."""
    scorer: str | None = None
    """A CLIP of open_clip, such as ViT-B-32/openai, that compares words with the latent's pictures; without one there is no score."""
    top: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Pictures of a latent: those that activate it most."""
    others: Positive = 32
    """Latents whose pictures the same words are compared with: the chance level, and what p ranks the score among (20 or more)."""
