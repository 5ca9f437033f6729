"""SAELens' `load_model` with the hooked models in it: what an SAE's metadata names can then be loaded.

SAELens has a registry of architectures and none of models: its one function is wrapped where its own modules hold it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import find, names, registered

_HOLDERS = ("load_model", "llm_sae_training_runner", "multi_sae_training_runner", "cache_activations_runner")


def teach_load_model() -> None:
    """Have `sae_lens.load_model.load_model` know every registered model; doing it again does nothing."""
    holders: list[Any] = [import_module(f"sae_lens.{name}") for name in _HOLDERS]
    original = holders[0].load_model
    if not hasattr(original, "knows_memes"):
        taught = _with_hooked_models(original)
        for module in holders:
            module.load_model = taught


def _with_hooked_models(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_model(
        model_class_name: str,
        model_name: str,
        device: Any = None,
        model_from_pretrained_kwargs: dict[str, Any] | None = None,
        hook_names: list[str] | None = None,
    ) -> Any:
        if model_class_name not in registered():
            return original(model_class_name, model_name, device, model_from_pretrained_kwargs, hook_names)
        if model_name in names.NO_MODEL:
            raise ModelError(
                f"model_name is {model_name!r}: vectors were given, so no model is known; "
                f"{model_class_name}.from_embeddings(Embeddings.load(FOLDER)) is a model over them"
            )
        model = find(model_class_name).from_pretrained(model_name, **(model_from_pretrained_kwargs or {}))
        placed = device is None or (model_from_pretrained_kwargs or {}).get("device_map") is not None
        return model if placed else model.to(device)

    load_model.knows_memes = True  # type: ignore[attr-defined]
    return load_model
