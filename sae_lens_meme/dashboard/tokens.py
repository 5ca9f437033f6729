"""Rows that are tokens: what stands on their cards, and what cannot be shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Features

from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.numbers import clean, short
from sae_lens_meme.hook_columns import token_features
from sae_lens_meme.row_kind import TOKEN, RowKind

_NUMBERS = ("token_start", "token_end", "token_box")
"""Not read where a table has brought columns of these names as text."""
AGAIN = "these rows were embedded without them; embed them again"


class Tokens:
    """The columns of token rows, where they are there."""

    def __init__(self, inputs: ReportInputs):
        self._inputs, self._dataset = inputs, inputs.memes.dataset.with_format(None)
        own, columns = Features(token_features()), self._dataset.features
        self._names = {name for name, kind in columns.items() if name not in _NUMBERS or kind == own[name]}

    def cards(self, rows: np.ndarray) -> list[list[Any]]:
        """Of each row: position, modality, word, where it begins and ends in the caption, its patch."""
        names = ("position", "modality", "token", "token_start", "token_end", "token_box")
        taken = self._dataset.select(rows).select_columns([name for name in names if name in self._names])[:]
        columns = [taken.get(name, [None] * len(rows)) for name in names]
        captions = self._inputs.captions
        return [_card(captions[row], *cells) for row, *cells in zip(rows.tolist(), *columns, strict=True)]

    @property
    def view(self) -> str:
        """How the boxes of patches lie on the pictures."""
        return self._inputs.memes.facts.get("view") or "whole"

    def missing(self) -> Iterator[tuple[str, str]]:
        """What cannot be marked, and why."""
        kinds = set(self._dataset["modality"][:])
        if "image" in kinds and not self._any("token_box"):
            why = "it is not known how this model lays patches over a picture" if "token_box" in self._names else AGAIN
            yield "patches", f"Patches are not marked on the pictures: {why}."
        if "text" in kinds and not self._any("token"):
            why = "the model has no tokenizer" if "token" in self._names else AGAIN
            yield "words", f"Words are not marked in the captions: {why}."

    def _any(self, name: str) -> bool:
        return name in self._names and any(cell is not None for cell in self._dataset[name][:])


def _card(
    caption: str | None, position: Any, modality: Any, word: Any, start: Any, end: Any, box: Sequence[float] | None
) -> list[Any]:
    """Characters are counted as the browser does it: one beyond the basic plane counts twice."""
    span: list[int | None] = [None, None]
    if caption is not None and start is not None:
        span = [len(caption[:place].encode("utf-16-le", "replace")) // 2 for place in (start, end)]
    shown = None if word is None else clean(str(word))
    corners = None if box is None else [short(corner) for corner in box]
    return [short(position), clean(str(modality)), shown, *span, corners]


def spoken(kind: RowKind) -> dict[str, str]:
    """What the page calls a row, and what it shows of it."""
    return {"one": kind.one, "many": kind.many, "shown": kind.shown, "all_shown": kind.all_shown}


def told(kind: RowKind, missing: dict[str, str]) -> str | None:
    """The line above the pictures of a latent whose rows are tokens."""
    if kind != TOKEN:
        return None
    said = (
        "Each picture is shown once: those that fire it most with their strongest token, those of the lower parts of the range "
        "with one that was drawn. A frame marks a patch, a colour a word."
    )
    return " ".join(
        [said, *(missing[name] for name in ("pictures", "captions", "patches", "words") if name in missing)]
    )
