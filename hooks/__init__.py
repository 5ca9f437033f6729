"""The instrumented models, imported as `sae_lens_meme.hooks`; names load on first use, so importing is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ == "hooks":
    raise ImportError("this folder is the package sae_lens_meme.hooks; write `from sae_lens_meme.hooks import ...`")

if TYPE_CHECKING:
    from sae_lens_meme.hooks.checkpoint import read_memeclip_checkpoint, save_memeclip_heads
    from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
    from sae_lens_meme.hooks.model import HookedMemeCLIP
    from sae_lens_meme.hooks.sources import EmbeddingSource, MemeSource
    from sae_lens_meme.hooks.towers import Towers, load_local_towers, load_towers
    from sae_lens_meme.hooks.train_head import train_memeclip_head

_HOME = {
    "EmbeddingSource": "sources",
    "HookedMemeCLIP": "model",
    "MemeCLIPHeads": "memeclip",
    "MemeSource": "sources",
    "Towers": "towers",
    "load_local_towers": "towers",
    "load_towers": "towers",
    "read_memeclip_checkpoint": "checkpoint",
    "save_memeclip_heads": "checkpoint",
    "train_memeclip_head": "train_head",
}

__all__ = [
    "EmbeddingSource",
    "HookedMemeCLIP",
    "MemeCLIPHeads",
    "MemeSource",
    "Towers",
    "load_local_towers",
    "load_towers",
    "read_memeclip_checkpoint",
    "save_memeclip_heads",
    "train_memeclip_head",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
