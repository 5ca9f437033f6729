"""Where in a picture each word stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sae_lens_meme.ocr.engines import Box, Line, Piece


class Word(NamedTuple):
    """A word between spaces and its box in pixels of the upright picture."""

    word: str
    confidence: float
    x0: float
    y0: float
    x1: float
    y1: float


def words_of(lines: Sequence[Line], width: int, height: int) -> list[Word]:
    """The words of a picture in reading order, cut at its edges.

    An engine may place half a word, or only the whole line: a letter has its equal share of what it was placed in, and a
    word the box of its letters.
    """
    return [word for line in lines for word in _of_line(line, width, height)]


def _of_line(line: Line, width: int, height: int) -> Iterator[Word]:
    words = line.text.split()
    letters = [letter for piece in line.pieces for letter in _letters(piece)]
    if "".join(letter.text for letter in letters) != "".join(words):
        letters = list(_letters(Piece(line.text, line.confidence, _around([piece.box for piece in line.pieces]))))
    start = 0
    for word in words:
        mine = letters[start : start + len(word)]
        start += len(word)
        x0, y0, x1, y1 = _around([letter.box for letter in mine])
        across, down = np.clip([x0, x1], 0, width).tolist(), np.clip([y0, y1], 0, height).tolist()
        confidence = sum(letter.confidence for letter in mine) / len(mine)
        yield Word(word, confidence, across[0], down[0], across[1], down[1])


def _letters(piece: Piece) -> Iterator[Piece]:
    """Each letter with its share of the width; spaces take their share too."""
    x0, y0, x1, y1 = piece.box
    step = (x1 - x0) / max(1, len(piece.text))
    for i, letter in enumerate(piece.text):
        if not letter.isspace():
            yield Piece(letter, piece.confidence, (x0 + i * step, y0, x0 + (i + 1) * step, y1))


def _around(boxes: Sequence[Box]) -> Box:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
