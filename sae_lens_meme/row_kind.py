"""What a row of embeddings is, a meme or a token of a picture, and how sentences speak of it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

_MEME = re.compile(r"(?<![-\w“\"'/.=])([Mm])eme(s?)(?![-\w”\"'/=]|\.\w)")


class RowKind(NamedTuple):
    """What a row is, in words."""

    one: str
    shown: str
    """What it is a part of, and what is shown of it."""

    @property
    def many(self) -> str:
        return f"{self.one}s"

    @property
    def all_shown(self) -> str:
        return f"{self.shown}s"

    def said(self, text: str) -> str:
        """A sentence about memes as one about these rows; names, quoted words and levels of labels stay as they are."""
        if self == MEME:
            return text
        return _MEME.sub(lambda found: (self.one if found[1] == "m" else self.one.capitalize()) + found[2], text)


MEME, TOKEN = RowKind("meme", "meme"), RowKind("token", "picture")


def kind_of_rows(columns: Collection[str]) -> RowKind:
    """By the columns: a token has a picture (`item`) that it is of, and a `modality`."""
    return TOKEN if {"item", "modality"} <= set(columns) else MEME
