"""What a model sees in one meme: `read_meme`, or a `MemeReader` for many."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.read.options import ReadOptions
    from sae_lens_meme.read.reader import MemeReader, read_meme
    from sae_lens_meme.read.reading import Reading

_HOME = {"MemeReader": "reader", "ReadOptions": "options", "Reading": "reading", "read_meme": "reader"}
__all__ = ["MemeReader", "ReadOptions", "Reading", "read_meme"]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
