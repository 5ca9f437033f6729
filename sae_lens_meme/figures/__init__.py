"""Figures for papers: PNG and SVG, safe for colour-blind readers. One file per figure.

A figure is a module with `TITLE`, `draw(axes, inputs, ...)` and, where it has several panels, `panels(inputs)`, which
gives the arguments of each.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sae_lens_meme.options import check_keys

NAMES = (
    "contest", "f1", "heatmap", "top_latents", "protocols", "winners_curse", "influence", "stability", "density",
    "training", "memes_map", "decoder_map", "decoder_clusters", "modalities", "tokens", "top_memes",
    "corpus",
)  # fmt: skip
"""In the order in which they are drawn."""

_HOME = {"Inputs": "inputs", "write_figures": "write"}
__all__ = ["NAMES", "find", *_HOME]


def find(name: str) -> Any:
    """The module of a figure.

    Raises:
        ConfigError: there is none of that name; the nearest known one is named.
    """
    check_keys("figures", [name], NAMES)
    return import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    """matplotlib and the evaluators take seconds to import: nothing does so before it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
