"""The formats that are read, and the options for what their files do not say."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sae_lens_meme.options import Flag, Options, Positive

STEP, AUTO = "import", "auto"
FORMATS = (
    "intervlm",
    "dictionary_learning",
    "sparsify",
    "abstopk",
    "saelens-checkpoint",
    "saelens-v",
    "vit-gpt2",
    "saev",
    "patchsae",
    "vit-prisma",
)
"""By the project that trained the SAE, in the order in which they are tried on unknown files; one module of this folder each."""


class ImportOptions(Options):
    """What the files of other projects do not say."""

    section: ClassVar[str] = STEP

    hook: str | None = None
    """The hook whose activations it takes, for example hook_fused; default: what its files say."""
    k: Positive | None = None
    """Active latents of a TopK SAE, where its files do not say."""
    kind: str | None = None
    """Its class in dictionary_learning, for example BatchTopKSAE, where no config.json says it."""
    state: Literal["final", "checkpoint", "as_is"] | None = None
    """Of SAELens-V: final, checkpoint or as_is; default: what its folder's name says."""
    norm_scaling_factor: Annotated[Annotated[float, Field(gt=0)] | None, Flag("--norm-factor")] = None
    """Of SAELens-V: the factor by which it scaled activations, sqrt(d_in) over their mean norm, which it does not record."""
    b_dec_at_input: Annotated[bool | None, Flag("--b-dec/--no-b-dec")] = None
    """Of saev's schema 2: whether its encoder subtracts b_dec."""
