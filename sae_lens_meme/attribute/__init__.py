"""The `attribute` step: the memes of each latent, and which words and regions of them drive it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.attribute.options import AttributeOptions
    from sae_lens_meme.attribute.step import attribute

_HOME = {"AttributeOptions": "options", "attribute": "step"}
__all__ = ["AttributeOptions", "attribute"]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
