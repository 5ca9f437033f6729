"""The options of `question-set` and `patch-filter`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sae_lens_meme.options import Count, File, Flag, Options, Positive, Share
from sae_lens_meme.steer.options import PROMPT


class StudyOptions(Options):
    """What is asked of which model."""

    model: str
    """A chat model of transformers: OWNER/NAME or a folder."""
    pictures: File
    """A folder of pictures."""
    max_new_tokens: Positive = 5
    """Length of an answer."""
    bootstrap: Count = 1000
    """Resamples of the pictures for 95 % intervals."""
    seed: Count = 0
    """Draws pairs, halves, controls and resamples."""
    batch_size: Positive = 8
    """Pictures in one pass."""
    device: str = "auto"
    """auto (CUDA, then MPS, then the CPU), cpu, cuda, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the model; auto is bfloat16 on CUDA and float32 elsewhere."""


class QuestionSetOptions(StudyOptions):
    """Which questions are asked about every picture, and which latents are ablated meanwhile."""

    section = "question-set"

    questions: File | None = None
    """A YAML file with a list `questions`; default the eight that come with the package."""
    latents: list[int] = []  # noqa: RUF012  pydantic copies it
    """A latent to ablate while the model answers (repeat it); without one nothing is generated."""
    min_items: Positive = 10
    """Latents that fire in fewer items are not classed."""


class PatchFilterOptions(StudyOptions):
    """Which patches are kept, and what says that they are the right ones."""

    section = "patch-filter"

    references: File | None = None
    """Pictures that the weights of latents are made of; default a random half of --pictures, which is then not filtered."""
    prompt: str = PROMPT
    """What the model is asked; the first word of its answer is compared."""
    scorer: str | None = None
    """A CLIP of open_clip, such as ViT-B-32/openai, whose patches are compared with the answer; without one there is no CLIP score."""
    shares: Annotated[list[Share], Flag("--share")] = [0.25, 0.5, 0.75]  # noqa: RUF012  pydantic copies it
    """A share of the patches to keep (repeat it)."""
    grid: Positive = 24
    """Cells a side."""
    rule: Literal["code", "paper"] = "code"
    """Which tokens a latent's weight is made of: SAE-V's released code, or its paper."""
    delta: Annotated[float, Field(ge=0)] = 0.0
    """A latent is active above it."""
    draws: Positive = 8
    """Random selections that every filter is compared with."""
