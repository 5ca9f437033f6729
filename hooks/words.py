"""The words of a sequence of token ids as text, and where each lies in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_lens_meme.hooks.positions import SPECIAL, TEXT

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
