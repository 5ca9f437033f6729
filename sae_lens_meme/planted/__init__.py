"""What is planted and therefore known: harmless drawn memes and a small encoder for them, or vectors in superposition."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.planted.answer_key import AnswerKey, read_answer_key
    from sae_lens_meme.planted.dictionary import true_dictionary, true_matching_pursuit
    from sae_lens_meme.planted.options import PlantedOptions, VectorOptions
    from sae_lens_meme.planted.vectors import PlantedVectors, answer_key_of, planted_vectors, write_planted_vectors
    from sae_lens_meme.planted.write import PlantedPaths, planted_paths, write_planted

DEMO_ENCODER = Path(__file__).parent / "encoder"
"""Folder of the demo encoder: config.json, merges.txt.gz, weights.safetensors."""

_HOME = {
    **dict.fromkeys(("AnswerKey", "read_answer_key"), "answer_key"),
    **dict.fromkeys(("true_dictionary", "true_matching_pursuit"), "dictionary"),
    **dict.fromkeys(("PlantedOptions", "VectorOptions"), "options"),
    **dict.fromkeys(("PlantedVectors", "answer_key_of", "planted_vectors", "write_planted_vectors"), "vectors"),
    **dict.fromkeys(("PlantedPaths", "planted_paths", "write_planted"), "write"),
}
__all__ = [
    "DEMO_ENCODER",
    "AnswerKey",
    "PlantedOptions",
    "PlantedPaths",
    "PlantedVectors",
    "VectorOptions",
    "answer_key_of",
    "planted_paths",
    "planted_vectors",
    "read_answer_key",
    "true_dictionary",
    "true_matching_pursuit",
    "write_planted",
    "write_planted_vectors",
]


def __getattr__(name: str) -> Any:
    """The options import no pandas: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
