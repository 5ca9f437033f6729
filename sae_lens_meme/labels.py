"""The eight label dimensions of the merged meme corpus, and their levels.

Missing is null, never a number. Nothing outside the corpus readers depends on these eight:
any other label column is used as it is.
"""

from __future__ import annotations

LEVELS: dict[str, dict[int, str]] = {
    "hate": {0: "no", 1: "yes"},
    "target": {0: "undirected", 1: "individual", 2: "community", 3: "organization"},
    "stance": {0: "neutral", 1: "support", 2: "oppose"},
    "humor": {0: "not_funny", 1: "funny", 2: "very_funny", 3: "hilarious"},
    "offensive": {0: "not_offensive", 1: "slight", 2: "very_offensive", 3: "hateful_offensive"},
    "sentiment": {-2: "very_negative", -1: "negative", 0: "neutral", 1: "positive", 2: "very_positive"},
    "motivational": {0: "not_motivational", 1: "motivational"},
    "sarcasm": {0: "not_sarcastic", 1: "general", 2: "twisted_meaning", 3: "very_twisted"},
}
LABELS = tuple(LEVELS)

SPLITS = ("train", "validation", "test")
NOT_LABELS = ("id", "source", "split", "text", "text_origin", "image", "image_sha256")
"""Columns of a corpus or of embeddings that describe a meme and are never labels."""


def level(label: str, name: str) -> int | None:
    """The value of the level called `name`, or None if the label has no such level."""
    return next((value for value, known in LEVELS.get(label, {}).items() if known == name), None)
