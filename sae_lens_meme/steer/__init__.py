"""Steering: a latent of an SAE is set while a chat model or captioner answers, and its answers are compared with controls."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.steer.latents import latent_set
    from sae_lens_meme.steer.options import SteerOptions
    from sae_lens_meme.steer.run import SteeredAnswers, steer_pictures
    from sae_lens_meme.steer.step import steer

_HOME = {
    "SteerOptions": "options",
    "SteeredAnswers": "run",
    "latent_set": "latents",
    "steer": "step",
    "steer_pictures": "run",
}
__all__ = ["SteerOptions", "SteeredAnswers", "latent_set", "steer", "steer_pictures"]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
