"""The text on pictures: `read_text` of one, `read_captions` of a corpus, with the box of every word."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.ocr.engines import ENGINES, Engine, Line, Piece, read_text
    from sae_lens_meme.ocr.options import OcrOptions
    from sae_lens_meme.ocr.step import Captions, read_captions
    from sae_lens_meme.ocr.words import Word, words_of

_HOME = {
    **dict.fromkeys(("ENGINES", "Engine", "Line", "Piece", "read_text"), "engines"),
    **dict.fromkeys(("Captions", "read_captions"), "step"),
    **dict.fromkeys(("Word", "words_of"), "words"),
    "OcrOptions": "options",
}
__all__ = [
    "ENGINES",
    "Captions",
    "Engine",
    "Line",
    "OcrOptions",
    "Piece",
    "Word",
    "read_captions",
    "read_text",
    "words_of",
]


def __getattr__(name: str) -> Any:
    """The options of the command line are read here, and it must not wait for `datasets`."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
