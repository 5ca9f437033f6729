"""What is in a corpus: rows, what is missing where, labels that go together, captions, pictures."""

from __future__ import annotations

from sae_lens_meme.describe.description import Description, DescriptionTable, describe_corpus

__all__ = ["Description", "DescriptionTable", "describe_corpus"]
