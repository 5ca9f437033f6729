"""The `sweep` step: one SAE for every setting of a grid and every seed, compared on equal terms."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.sweep.options import SweepOptions
    from sae_lens_meme.sweep.step import Sweep, sweep

_HOME = {"Sweep": "step", "SweepOptions": "options", "sweep": "step"}
__all__ = ["Sweep", "SweepOptions", "sweep"]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
