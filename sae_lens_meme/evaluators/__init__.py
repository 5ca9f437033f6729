"""Evaluators: each takes an SAE and embeddings, offline or as SAELens' evaluator callable.

`register` adds one of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sae_lens_meme.evaluators.registry import find, names, register, unregister

_SHARED = {
    "Evaluator": "base",
    "Unavailable": "base",
    "Control": "result",
    "Interval": "result",
    "Measure": "result",
    "Quantity": "result",
    "Result": "result",
    "Section": "result",
    "EvaluateOptions": "options",
    "Latents": "latents",
    "encode": "latents",
    "evaluate": "run",
    "hook_of": "opened",
    "load_sae": "opened",
    "memes_of": "opened",
    "sae_of": "opened",
    "measure": "measure",
}
__all__ = ["find", "names", "register", "unregister", *_SHARED]


def __getattr__(name: str) -> Any:
    """numba and scikit-learn take seconds to import: nothing does so before it is needed."""
    if name in _SHARED:
        return getattr(import_module(f"{__name__}.{_SHARED[name]}"), name)
    for evaluator in names() if name[:1].isupper() else ():
        if (cls := find(evaluator)).__name__ == name:
            return cls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
