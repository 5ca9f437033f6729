"""The engines that read pictures, in one table, and the one function that calls them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import check_keys

ENOUGH = 0.5
"""Lines that are read with less confidence are left out."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


class Piece(NamedTuple):
    """Letters that an engine has placed: a word, a part of one, or a whole line."""

    text: str
    confidence: float
    box: Box


class Line(NamedTuple):
    """One line of text, and where its letters are."""

    text: str
    confidence: float
    pieces: tuple[Piece, ...]


Reader = Callable[[np.ndarray], list[Line]]
"""From RGB pixels [height, width, 3] to lines in reading order."""


class Engine(NamedTuple):
    """A way to read text."""

    load: Callable[[], Reader]
    """Raises ImportError where its library is not there."""
    package: str
    """Its distribution, whose version is recorded."""
    install: str
    """What to do where it is missing."""

    @property
    def version(self) -> str:
        try:
            return version(self.package)
        except PackageNotFoundError:
            return "unknown"


def read_text(picture: Any, engine: str = "rapidocr") -> str | None:
    """The text on a picture (PIL, RGB) as one line; None where there is none.

    Raises:
        ConfigError: there is no such engine, or its library cannot be imported.
    """
    return text_of(read_lines(picture, engine))


def read_lines(picture: Any, engine: str = "rapidocr") -> list[Line]:
    """The lines on a picture in reading order, without those that the engine is not sure of. Errors as of `read_text`."""
    lines = _reader(find(engine))(np.asarray(picture))
    return [line for line in lines if line.confidence >= ENOUGH and line.text.strip()]


def text_of(lines: list[Line]) -> str | None:
    """Lines as one, with single spaces; None without any."""
    return " ".join(" ".join(line.text for line in lines).split()) or None


def find(name: str) -> Engine:
    """An engine by its name.

    Raises:
        ConfigError: there is none of that name; the nearest known one is named.
    """
    check_keys("ocr engine", [name], ENGINES)
    return ENGINES[name]


@lru_cache(maxsize=1)
def _reader(engine: Engine) -> Reader:
    try:
        return engine.load()
    except ImportError as error:  # also a system library that OpenCV lacks
        reason = str(error).splitlines()[0]
        raise ConfigError(f"ocr engine {engine.package} cannot be used ({reason}); {engine.install}") from None


def _rapidocr() -> Reader:
    from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports]

    # its models are in its wheel; it would log each of them in colour
    engine = RapidOCR(params={"Global.log_level": "critical"})
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)

    def read(pixels: np.ndarray) -> list[Line]:
        found: Any = engine(pixels[:, :, ::-1], return_word_box=True)  # BGR
        if found.txts is None:
            return []
        placed = found.word_results if len(found.word_results) == len(found.txts) else [()] * len(found.txts)
        return [
            Line(text, float(confidence), _pieces(words) or (Piece(text, float(confidence), box_of(corners)),))
            for text, confidence, corners, words in zip(found.txts, found.scores, found.boxes, placed, strict=True)
        ]

    return read


def _pieces(words: Any) -> tuple[Piece, ...]:
    return tuple(
        Piece(text, float(confidence), box_of(corners)) for text, confidence, corners in words if corners is not None
    )


def _easyocr() -> Reader:
    import easyocr  # pyright: ignore[reportMissingImports]

    engine = easyocr.Reader(["en"], verbose=False)

    def read(pixels: np.ndarray) -> list[Line]:
        found = [(text, float(sure), box_of(corners)) for corners, text, sure in engine.readtext(pixels)]
        return [Line(text, sure, (Piece(text, sure, box),)) for text, sure, box in found]

    return read


def box_of(corners: Any) -> Box:
    """The upright box around corners (x, y)."""
    (x0, y0), (x1, y1) = np.min(corners, axis=0), np.max(corners, axis=0)
    return float(x0), float(y0), float(x1), float(y1)


ENGINES = {
    "rapidocr": Engine(_rapidocr, "rapidocr", "pip install rapidocr onnxruntime"),
    "easyocr": Engine(_easyocr, "easyocr", "pip install 'sae-lens-meme[ocr]'; it downloads its models at first use"),
}
"""By name; another is one line here."""
