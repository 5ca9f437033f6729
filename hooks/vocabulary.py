"""Which token ids are not words, what each position of a model's text input therefore is, and the words as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae_lens_meme.errors import DataError
from sae_lens_meme.hooks.positions import SPECIAL, TEXT, Tags, tags_of_ids, with_pictures_before

_SPECIAL = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "sep_token_id", "cls_token_id"),
    *("boi_token_id", "eoi_token_id", "vision_start_token_id", "vision_end_token_id"),
)


class Vocabulary(NamedTuple):
    """Ids that a model's configuration and its tokenizer name. Start, end and padding may be one id."""

    image: int | None
    """The placeholder of a picture's positions; None in a captioner and in a tower."""
    special: frozenset[int]
    start: int
    end: int
    pad: int

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> Vocabulary:
        config = model.config
        image = next((i for i in (_named(config, "image_token_id"), _named(config, "image_token_index")) if i), None)
        holders = (getattr(model, "generation_config", None), config, config.get_text_config(decoder=True))
        special = {i for holder in holders for key in _SPECIAL for i in _ids(holder, key)}
        special |= set(getattr(tokenizer, "all_special_ids", ())) - {getattr(tokenizer, "unk_token_id", None)}

        def first(*keys: str) -> int:
            return next((i for key in keys for holder in holders for i in _ids(holder, key)), 0)

        ends = first("decoder_start_token_id", "bos_token_id"), first("eos_token_id", "sep_token_id")
        return cls(image, frozenset(special - {image}), *ends, first("pad_token_id", "eos_token_id"))


def ids_of(model: Any, inputs: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """The ids of the text and where they are not padding."""
    ids, mask = _names(model)
    return inputs.get(ids), inputs.get(mask)


def without_text(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of the picture alone."""
    return {name: value for name, value in inputs.items() if name not in (*_names(model), "tags")}


def text_tags(model: Any, vocabulary: Vocabulary, inputs: dict[str, Any], start: bool = False) -> Tags:
    """The tags of the positions of the text side.

    Args:
        start: of the prompt that `generate` begins with, which may be the start token alone.

    Raises:
        DataError: there is no text.
    """
    ids, mask = ids_of(model, inputs)
    if (tags := inputs.get("tags")) is not None and ids is not None:
        return tags
    pixels = inputs.get("pixel_values")
    if ids is not None:
        tags = tags_of_ids(ids, mask, vocabulary.image, vocabulary.special)
    elif start and pixels is not None:
        tags = torch.full((len(pixels), 1), SPECIAL, dtype=torch.uint8, device=pixels.device)
    else:
        raise DataError(f"the inputs are {', '.join(inputs)} and no text; give one, or call generate")
    if model.config.model_type == "git" and (patches := patches_of(model, pixels)) is not None:
        tags = with_pictures_before(tags, 1, patches)
    return tags


def patches_of(model: Any, pixels: Tensor | None) -> int | None:
    """Patches of each picture, where the tower cuts pictures of one size."""
    if pixels is None or pixels.ndim < 4:
        return None
    config = model.config
    for part in (config, getattr(config, "vision_config", None), getattr(config, "encoder", None)):
        if (size := getattr(part, "patch_size", None)) is not None:
            height, width = (size, size) if isinstance(size, int) else size
            return (pixels.shape[-2] // height) * (pixels.shape[-1] // width)
    return None


def _names(model: Any) -> tuple[str, str]:
    before = "decoder_" if model.config.is_encoder_decoder else ""
    return f"{before}input_ids", f"{before}attention_mask"


def _named(holder: Any, key: str) -> Any:
    return getattr(holder, key, None)


def _ids(holder: Any, key: str) -> list[int]:
    found = _named(holder, key)
    return [i for i in (found if isinstance(found, (list, tuple)) else [found]) if i is not None]


HALF = "\ufffd"
"""What stands for a character of which a token has a part."""


class Spelled(NamedTuple):
    """What a model reads beside the picture."""

    text: str
    """Without special tokens."""
    words: list[str | None]
    """By position; None of a picture's and of padding."""
    starts: list[int | None]
    """Where each word begins in the text; None where it is not in it."""
    ends: list[int | None]


def spelled(tokenizer: Any, ids: Sequence[int], tags: np.ndarray, special: Collection[int]) -> Spelled:
    """The text of one row, decoded token by token, as a piece of a word may change how those before it are written.

    Args:
        ids: one a position; those of a picture's positions and of padding are not looked at.
        tags: what each position is.
        special: ids that are not words.
    """
    n, read, before = len(ids), [], ""
    words: list[str | None] = [None] * n
    starts: list[int | None] = [None] * n
    ends: list[int | None] = [None] * n
    for position, (token, tag) in enumerate(zip(ids, tags.tolist(), strict=True)):
        if tag == SPECIAL and token in special:
            words[position] = _decoded(tokenizer, [token])
        elif tag in (TEXT, SPECIAL):  # the last word of a caption that was cut is special, and a word
            read.append(token)
            now = _decoded(tokenizer, read)
            start = _shared(before.rstrip(HALF), now)
            start += len(now[start:]) - len(now[start:].lstrip())
            starts[position], ends[position], before = start, len(now), now
    for position, start in enumerate(starts):
        if start is not None:
            # a token may be no character at all: half of one, or a space
            words[position] = before[start : ends[position]].strip() or tokenizer.convert_ids_to_tokens(ids[position])
    return Spelled(before, words, starts, ends)


def _shared(before: str, now: str) -> int:
    """Characters that both begin with."""
    places = enumerate(zip(before, now, strict=False))
    return next((i for i, (one, other) in places if one != other), min(len(before), len(now)))


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
