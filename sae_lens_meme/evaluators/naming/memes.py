"""What may be said of the memes, on the rows that choose and on the rows that measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import sparse

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.paired import Statements
from sae_lens_meme.evaluators.naming.words import read_words
from sae_lens_meme.metrics.contingency import TRUE, UNKNOWN
from sae_lens_meme.metrics.permutation import permutation_within


@dataclass(frozen=True, eq=False)
class Family:
    """All words, or all concepts."""

    names: np.ndarray
    """str [statements]"""
    selection: Statements
    held_out: Statements


@dataclass(frozen=True, eq=False)
class Memes:
    """Both families, each None where there is none; `reasons` says why."""

    selection: Int[np.ndarray, " s"]
    """All rows that are not held out."""
    held_out: Int[np.ndarray, " h"]
    """The test rows, else the validation rows, else none."""
    split: str | None
    sources: Int[np.ndarray, " n"]
    families: dict[str, Family]
    """Under `word` and `concept`."""
    reasons: dict[str, str]

    @classmethod
    def of(
        cls, embeddings: Embeddings, concepts: Iterable[str | Concept] | None, min_df: int, stop_words: Any
    ) -> Memes:
        split, held_out = embeddings.held_out()
        selection = np.setdiff1d(np.arange(len(embeddings)), held_out)
        if len(selection) == 0:
            raise DataError(f"naming: all memes are {split} rows; it needs train rows to choose names on")
        families: dict[str, Family] = {}
        reasons: dict[str, str] = {}
        sources = np.unique(embeddings.sources, return_inverse=True)[1]
        try:
            families["word"] = _words(embeddings, selection, held_out, sources, min_df, stop_words)
        except DataError as error:
            reasons["word"] = str(error)
        try:
            families["concept"] = _concepts(embeddings, selection, held_out, concepts_of(embeddings, concepts))
        except ConfigError as error:
            if concepts is not None:
                raise
            reasons["concept"] = str(error)
        return cls(selection, held_out, split, sources, families, reasons)


def permuted_within_source(latents: Latents, embeddings: Embeddings, seed: int) -> Latents:
    """The latents of each meme handed to another one of its source and split; the order of the memes does not matter."""
    groups = np.char.add(np.char.add(embeddings.sources, "\n"), embeddings.splits)
    order = permutation_within(groups, np.random.default_rng(seed), np.argsort(embeddings.ids, kind="stable"))
    return latents.rows(order)


def _words(
    embeddings: Embeddings,
    selection: np.ndarray,
    held_out: np.ndarray,
    sources: np.ndarray,
    min_df: int,
    stop_words: Any,
) -> Family:
    words = read_words(embeddings.texts, selection, held_out, min_df=min_df, stop_words=stop_words)
    sides = ((words.selection_rows, words.selection), (words.held_out_rows, words.held_out))
    statements = (Statements(rows, sparse.csc_matrix(occurs), None, sources[rows]) for rows, occurs in sides)
    return Family(words.vocabulary, *statements)


def _concepts(
    embeddings: Embeddings, selection: np.ndarray, held_out: np.ndarray, concepts: tuple[Concept, ...]
) -> Family:
    targets = ConceptLabels.of(embeddings, concepts)

    def side(rows: np.ndarray) -> Statements:
        codes = targets.known[rows]
        true, known = sparse.csc_matrix(codes == TRUE), sparse.csc_matrix(codes != UNKNOWN)
        return Statements(rows, true, known, targets.sources[rows])

    return Family(np.array(targets.names), side(selection), side(held_out))
