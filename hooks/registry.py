"""The hooked models by name: a class under `@register`, which `find` then knows."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from sae_lens_meme.errors import ModelError

if TYPE_CHECKING:
    from sae_lens_meme.hooks.base import HookedModel

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
    if name not in _models:
        near = get_close_matches(name, _models, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_models)}"
        raise ModelError(f"{name!r} is not a hooked model; {hint}")
    if isinstance(_models[name], str):
        import_module(f"sae_lens_meme.hooks.{_models[name]}")
    return _models[name]
