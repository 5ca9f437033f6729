"""The memes of a corpus that a reader can pick."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import NamedTuple

from datasets import Image

from sae_lens_meme.corpus import caption_of, load_rows
from sae_lens_meme.labels import SPLITS
from sae_lens_meme.report.blocks import visible

MOST_FOUND = 50


class Picked(NamedTuple):
    """The bytes of a picture, and its caption, "" where it has none."""

    picture: bytes
    caption: str


class Memes:
    """A finished corpus, held-out memes first: an SAE was not trained on them.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """

    def __init__(self, folder: Path):
        self._rows = load_rows(folder).cast_column("image", Image(decode=False))
        columns = self._rows.select_columns(["id", "split", "text"])[:]
        self._ids, self._splits = columns["id"], columns["split"]
        self._searched = [
            f"{name} {text or ''}".casefold() for name, text in zip(columns["id"], columns["text"], strict=True)
        ]
        self._order = sorted(range(len(self._rows)), key=lambda row: -SPLITS.index(self._splits[row]))

    def find(self, text: str) -> list[tuple[str, int]]:
        """Name and row of the first memes that have every word of the text in their id or caption."""
        words = text.casefold().split()
        found = (row for row in self._order if all(word in self._searched[row] for word in words))
        return [(visible(f"{self._ids[row]} ({self._splits[row]})"), row) for row in islice(found, MOST_FOUND)]

    def pick(self, row: int) -> Picked:
        meme = self._rows[row]
        return Picked(meme["image"]["bytes"], caption_of(meme) or "")
