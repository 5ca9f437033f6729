"""The options of `question-set` and `patch-filter`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sae_lens_meme.options import File, Flag, Positive, Share
from sae_lens_meme.steer.options import PROMPT, AskOptions


class QuestionSetOptions(AskOptions):
    """Which questions are asked about every picture, and which latents are ablated."""

    section = "question-set"

    questions: File | None = None
    """A YAML file with a list `questions`; default: the eight that come with the package."""
    latents: list[int] = []  # noqa: RUF012  pydantic copies it
    """A latent to ablate while the model answers; repeatable. Without one nothing is generated."""
    min_items: Positive = 10
    """Latents that fire in fewer items are not classified."""


class PatchFilterOptions(AskOptions):
    """Which patches are kept, and how they are judged."""

    section = "patch-filter"

    references: File | None = None
    """Pictures from which the latents' weights are computed; default: a random half of --pictures, which is then not filtered."""
    prompt: str = PROMPT
    """What the model is asked; the first word of its answer is compared."""
    scorer: str | None = None
    """A CLIP of open_clip, such as ViT-B-32/openai, whose patches are compared with the answer; without one there is no CLIP score."""
    shares: Annotated[list[Share], Flag("--share")] = [0.25, 0.5, 0.75]  # noqa: RUF012  pydantic copies it
    """A share of the patches to keep; repeatable."""
    grid: Positive = 24
    """Cells per side of the grid."""
    rule: Literal["code", "paper"] = "code"
    """How a latent's weight is computed: as in SAE-V's released code, or as in its paper."""
    delta: Annotated[float, Field(ge=0)] = 0.0
    """A latent is active above this value."""
    draws: Positive = 8
    """Random selections that every filter is compared with."""
