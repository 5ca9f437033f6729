"""Planted memes as tensors, for the training of planted encoders."""

from __future__ import annotations

from typing import NamedTuple

import open_clip
import torch
from torch import Tensor

SIZE = 72
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Data(NamedTuple):
    """Training memes: a meme has several texts."""

    pixels: Tensor  # uint8 [n, 3, 72, 72]
    tokens: Tensor  # int16 [n, texts, context]: captions, then descriptions
    codes: Tensor  # int64 [n, factors]: the number of each factor's value


def encode_image(model: open_clip.CLIP, pixels: Tensor) -> Tensor:
    """Unit embeddings of uint8 pictures."""
    normal = (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return model.encode_image(normal, normalize=True)


def encode_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Unit embeddings of token rows."""
    return model.encode_text(tokens.long(), normalize=True)


def top_1(image: Tensor, text: Tensor, among: int = 64) -> float:
    """The share of pictures whose own text is the nearest of `among`."""
    logits = image.view(-1, among, image.shape[-1]) @ text.view(-1, among, text.shape[-1]).transpose(1, 2)
    return (logits.argmax(-1) == torch.arange(among)).float().mean().item()
