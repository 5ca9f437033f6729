"""A planted corpus: harmless drawn memes whose labels have known causes, and a small encoder for them."""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.planted.answer_key import AnswerKey, read_answer_key
from sae_lens_meme.planted.write import PlantedPaths, planted_paths, write_planted

DEMO_ENCODER = Path(__file__).parent / "encoder"
"""Folder of the demo encoder: config.json, merges.txt.gz, weights.safetensors."""

__all__ = ["DEMO_ENCODER", "AnswerKey", "PlantedPaths", "planted_paths", "read_answer_key", "write_planted"]
