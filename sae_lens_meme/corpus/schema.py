"""The one schema of a corpus: a row a meme, missing labels null."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Features, Image, Value

from sae_lens_meme.labels import LABELS


def corpus_features(extra_labels: Sequence[str] = ()) -> Features:
    """The columns of a corpus: what a meme is, the eight labels, then labels that only this corpus has."""
    strings = {name: Value("string") for name in ("id", "source", "split", "text", "text_origin", "image_sha256")}
    labels = {name: Value("int64") for name in (*LABELS, *extra_labels)}
    order = ("id", "source", "split", "image", "text", "text_origin", "image_sha256")
    return Features({name: Image() if name == "image" else strings[name] for name in order} | labels)
