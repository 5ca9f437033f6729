"""The text on a picture, where nobody gives a caption."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import numpy as np

from sae_lens_meme.errors import ConfigError

ENOUGH = 0.5
"""Lines that are read with less confidence are left out."""


def read_text(picture: Any) -> str | None:
    """The lines on a picture (PIL, RGB) from top to bottom, as one line; None where there are none.

    Raises:
        ConfigError: no OCR library can be imported.
    """
    lines = [text for text, confidence in _reader()(np.asarray(picture)) if confidence >= ENOUGH]
    return " ".join(" ".join(lines).split()) or None


@lru_cache(maxsize=1)
def _reader() -> Any:
    """A function from pixels to lines with their confidence."""
    problems = []
    for make in (_rapidocr, _easyocr):
        try:
            return make()
        except ImportError as error:  # also a system library that OpenCV lacks
            problems.append(str(error).splitlines()[0])
    raise ConfigError(
        f"no caption was given and none can be read from the picture ({'; '.join(problems)}); "
        "pass --caption TEXT, or install rapidocr and onnxruntime"
    )


def _rapidocr() -> Any:
    from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports]

    # its models are in its wheel; it would log each of them in colour
    engine = RapidOCR(params={"Global.log_level": "critical"})
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)

    def read(pixels: np.ndarray) -> list[tuple[str, float]]:
        found: Any = engine(pixels[:, :, ::-1])  # BGR
        return list(zip(found.txts or (), found.scores or (), strict=True))

    return read


def _easyocr() -> Any:
    import easyocr  # pyright: ignore[reportMissingImports]

    engine = easyocr.Reader(["en"], verbose=False)
    return lambda pixels: [(text, confidence) for _, text, confidence in engine.readtext(pixels)]
