"""Removing a word from a meme's caption or a patch from its picture. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from sae_lens_meme.attributions import GRID


class CaptionWords(NamedTuple):
    """The words of a caption that the text tower can read, and the caption without each of them."""

    words: list[str]
    without: list[str]


def without_words(caption: str | None, context_length: int) -> CaptionWords:
    """A word is what stands between white space; each takes one token or more, so that later ones are never read."""
    words = [] if caption is None else caption.split(maxsplit=2 * context_length)[: 2 * context_length]
    read = words[:context_length]
    return CaptionWords(read, [" ".join(words[:i] + words[i + 1 :]) for i in range(len(read))])


def patches(height: int, width: int) -> Bool[torch.Tensor, "patches height width"]:
    """The pixels of each patch, row by row from the top left; the patches cover the picture."""
    rows, columns = (torch.div(torch.arange(n) * GRID, n, rounding_mode="floor") for n in (height, width))
    return (rows[:, None] * GRID + columns[None, :])[None] == torch.arange(GRID**2)[:, None, None]


def without_patches(pixels: Float[torch.Tensor, "3 h w"]) -> Float[torch.Tensor, "variants 3 h w"]:
    """The picture, then the picture without each patch: its mean colour takes the place."""
    holes = patches(*pixels.shape[1:]).to(pixels.device)
    mean = pixels.mean(dim=(1, 2))[:, None, None]
    return torch.cat([pixels[None], torch.where(holes[:, None], mean, pixels)])


def strongest(scores: Float[np.ndarray, " n"], most: int) -> np.ndarray:
    """The places of the largest absolute scores, the largest first; of equal ones the first."""
    return np.argsort(-np.abs(scores), kind="stable")[:most]
