"""The figures by name, in the order in which they are drawn."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from sae_lens_meme.options import check_keys

NAMES = (
    "contest", "f1", "heatmap", "top_latents", "protocols", "winners_curse", "influence", "stability", "density",
    "training", "memes_map", "decoder_map", "decoder_clusters", "modalities", "tokens", "top_memes",
    "corpus",
)  # fmt: skip


def find(name: str) -> ModuleType:
    """The module of a figure.

    Raises:
        ConfigError: there is none of that name; the nearest known one is named.
    """
    check_keys("figures", [name], NAMES)
    return import_module(f"sae_lens_meme.figures.{name}")
