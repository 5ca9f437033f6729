"""Concepts of all memes as small codes, with the sources and splits that the tests need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int, UInt8

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.concept_alignment.concepts import Concept
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.permutation import permutation_within

Codes = UInt8[np.ndarray, "n concepts"]


@dataclass(frozen=True, eq=False)
class Targets:
    """What each concept says of each meme, under both protocols."""

    names: tuple[str, ...]
    known: Codes
    """UNKNOWN where the label is missing."""
    published: Codes
    """FALSE or TRUE for every meme, as InterVLM's code counts them."""
    sources: Int[np.ndarray, " n"]
    splits: np.ndarray

    @classmethod
    def of(cls, embeddings: Embeddings, concepts: tuple[Concept, ...]) -> Targets:
        known = np.empty((len(embeddings), len(concepts)), np.uint8)
        published = np.empty_like(known)
        for c, concept in enumerate(concepts):
            label = embeddings.label(concept.label)
            is_known, is_true = concept.truth(label)
            known[:, c] = np.where(is_known, np.where(is_true, TRUE, FALSE), UNKNOWN)
            published[:, c] = np.where(concept.published_truth(label), TRUE, FALSE)
        if len(embeddings) == 0:
            raise DataError("these embeddings have no memes")
        sources = np.unique(embeddings.sources, return_inverse=True)[1]
        return cls(tuple(c.name for c in concepts), known, published, sources, embeddings.splits)

    def codes(self, protocol: str) -> Codes:
        return self.published if protocol == "published" else self.known

    def strata(self, protocol: str) -> Int[np.ndarray, " n"]:
        """One stratum a source; the published protocol knows no sources."""
        return np.zeros_like(self.sources) if protocol == "published" else self.sources

    def permuted(self, generator: np.random.Generator) -> Targets:
        """All labels of a meme handed to another meme of the same source: what association is left is the source's."""
        order = permutation_within(self.sources, generator)
        return replace(self, known=self.known[order], published=self.published[order])

    def test_codes(self) -> Codes:
        """UNKNOWN outside the test rows."""
        return _only(self.known, self.splits == "test")

    def threshold_codes(self) -> tuple[Codes, list[str | None]]:
        """UNKNOWN outside the rows that choose a threshold, and the split of these rows for each concept.

        They are the validation rows; the train rows for a concept of which validation has no true meme.
        """
        codes, splits = np.zeros_like(self.known), []
        for c in range(len(self.names)):
            usable = (s for s in ("validation", "train") if (self.known[self.splits == s, c] == TRUE).any())
            splits.append(next(usable, None))
            if splits[-1] is not None:
                codes[:, c] = _only(self.known[:, c], self.splits == splits[-1])
        return codes, splits


def _only(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows if codes.ndim == 1 else rows[:, None], codes, np.uint8(UNKNOWN))
