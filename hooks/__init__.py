"""The instrumented models, imported as `sae_lens_meme.hooks`; names load on first use, so importing is free.

A new model is one file with one class under `@register`; `find` then knows it by name, and so does
`train.model_class_name` of a recipe.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if __name__ == "hooks":
    raise ImportError("this folder is the package sae_lens_meme.hooks; write `from sae_lens_meme.hooks import ...`")

if TYPE_CHECKING:
    from sae_lens_meme.hooks.base import Hook, HookedModel
    from sae_lens_meme.hooks.checkpoint import read_memeclip_checkpoint, save_memeclip_heads
    from sae_lens_meme.hooks.fit import train_memeclip_head
    from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, fuse
    from sae_lens_meme.hooks.model import HookedMemeCLIP
    from sae_lens_meme.hooks.positions import PositionRows, PositionSource, position_tokens
    from sae_lens_meme.hooks.sources import EmbeddingSource, MemeSource
    from sae_lens_meme.hooks.towers import Towers, load_local_towers, load_towers
    from sae_lens_meme.hooks.vlm import HookedVLM

_HOME = {
    "EmbeddingSource": "sources",
    "Hook": "base",
    "HookedMemeCLIP": "model",
    "HookedModel": "base",
    "HookedVLM": "vlm",
    "MemeCLIPHeads": "memeclip",
    "MemeSource": "sources",
    "PositionRows": "positions",
    "PositionSource": "positions",
    "Towers": "towers",
    "fuse": "memeclip",
    "load_local_towers": "towers",
    "load_towers": "towers",
    "position_tokens": "positions",
    "read_memeclip_checkpoint": "checkpoint",
    "save_memeclip_heads": "checkpoint",
    "train_memeclip_head": "fit",
}

__all__ = [
    "EmbeddingSource",
    "Hook",
    "HookedMemeCLIP",
    "HookedModel",
    "HookedVLM",
    "MemeCLIPHeads",
    "MemeSource",
    "PositionRows",
    "PositionSource",
    "Towers",
    "find",
    "fuse",
    "load_local_towers",
    "load_towers",
    "position_tokens",
    "read_memeclip_checkpoint",
    "register",
    "registered",
    "save_memeclip_heads",
    "train_memeclip_head",
    "unregister",
]

_models: dict[str, Any] = {
    "HookedMemeCLIP": "model",
    "HookedVLM": "vlm",
}  # a class, or the module that registers it when it is imported
Model = TypeVar("Model", bound=type)


def register(model: Model) -> Model:
    """Add a hooked model (a decorator), by the name of its class; SAELens' `load_model` has it by that name too."""
    from sae_lens_meme.hooks.saelens import teach_load_model

    teach_load_model()
    _models[model.__name__] = model
    return model


def unregister(name: str) -> None:
    """Take out what `register` added."""
    del _models[name]


def registered() -> list[str]:
    """The names of all hooked models."""
    return list(_models)


def find(name: str) -> type[HookedModel]:
    """The hooked model of that name.

    Raises:
        ModelError: there is none; the nearest known name is given.
    """
    from sae_lens_meme.errors import ModelError

    if name not in _models:
        near = get_close_matches(name, _models, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_models)}"
        raise ModelError(f"{name!r} is no hooked model; {hint}")
    if isinstance(_models[name], str):
        import_module(f"{__name__}.{_models[name]}")
    return _models[name]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
