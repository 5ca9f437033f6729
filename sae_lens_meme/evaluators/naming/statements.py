"""Statements about the memes (a caption's word, a concept), on the rows that choose names and on those that measure."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.fisher import one_a_group
from sae_lens_meme.metrics.resampling import permutation_within

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'"})


@dataclass(frozen=True, eq=False)
class Statements:
    """Things that are true or false of some memes: `the caption holds this word`, `this concept holds`."""

    rows: Int[np.ndarray, " n"]
    """Which memes."""
    true: sparse.csc_matrix
    """[n, statements]"""
    known: sparse.csc_matrix | None
    """[n, statements]; None where all are known."""
    sources: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"] | None = None
    """As `Embeddings.groups`; None: every meme its own."""

    @cached_property
    def one_a_group(self) -> list[Int[np.ndarray, " n"] | None]:
        """Weights of draws of one meme per group."""
        return one_a_group(self.groups)

    def codes(self, statement: int) -> UInt8[np.ndarray, "n 1"]:
        """UNKNOWN, FALSE or TRUE of each meme."""
        codes = np.full((len(self.rows), 1), FALSE if self.known is None else UNKNOWN, dtype=np.uint8)
        if self.known is not None:
            codes[_rows_of(self.known, statement)] = FALSE
        codes[_rows_of(self.true, statement)] = TRUE
        return codes


def _rows_of(flags: Any, column: int) -> np.ndarray:
    return flags.indices[flags.indptr[column] : flags.indptr[column + 1]]


@dataclass(frozen=True, eq=False)
class Family:
    """All words, or all concepts."""

    names: np.ndarray
    """[statements]"""
    selection: Statements
    held_out: Statements


@dataclass(frozen=True, eq=False)
class NamingMemes:
    """Both families, each missing where there is none; `reasons` says why."""

    selection: Int[np.ndarray, " s"]
    """All rows that are not held out."""
    held_out: Int[np.ndarray, " h"]
    """The test rows, else the validation rows, else none."""
    split: str | None
    sources: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    families: dict[str, Family]
    """Under `word` and `concept`."""
    reasons: dict[str, str]

    @classmethod
    def of(
        cls, embeddings: Embeddings, concepts: Iterable[str | Concept] | None, min_df: int, stop_words: Any
    ) -> NamingMemes:
        split, held_out = embeddings.held_out()
        selection = np.setdiff1d(np.arange(len(embeddings)), held_out)
        if len(selection) == 0:
            raise DataError(f"naming: all memes are {split} rows; it needs train rows to choose names on")
        families: dict[str, Family] = {}
        reasons: dict[str, str] = {}
        try:
            families["word"] = words_of(
                *(embeddings.texts, selection, held_out, embeddings.strata, embeddings.groups),
                min_df=min_df,
                stop_words=stop_words,
            )
        except DataError as error:
            reasons["word"] = str(error)
        try:
            families["concept"] = _concepts(embeddings, selection, held_out, concepts_of(embeddings, concepts))
        except ConfigError as error:
            if concepts is not None:
                raise
            reasons["concept"] = str(error)
        return cls(selection, held_out, split, embeddings.strata, embeddings.groups, families, reasons)


def permuted_within_source(latents: Latents, embeddings: Embeddings, seed: int) -> Latents:
    """The latents of each meme given to another one of its source and split; the order of the memes does not matter."""
    splits, split = np.unique(embeddings.splits, return_inverse=True)
    strata = embeddings.strata * len(splits) + split
    return latents.rows(permutation_within(strata, np.random.default_rng(seed), embeddings.by_id, embeddings.groups))


def _concepts(
    embeddings: Embeddings, selection: np.ndarray, held_out: np.ndarray, concepts: tuple[Concept, ...]
) -> Family:
    targets = ConceptLabels.of(embeddings, concepts)

    def side(rows: np.ndarray) -> Statements:
        codes = targets.known[rows]
        true, known = sparse.csc_matrix(codes == TRUE), sparse.csc_matrix(codes != UNKNOWN)
        return Statements(rows, true, known, targets.sources[rows], embeddings.groups[rows])

    return Family(np.array(targets.names, dtype=object), side(selection), side(held_out))


def words_of(
    texts: np.ndarray | None,
    selection: Int[np.ndarray, " s"],
    held_out: Int[np.ndarray, " h"],
    strata: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
    *,
    min_df: int = 5,
    stop_words: str | Collection[str] | None = None,
) -> Family:
    """The words of the captions `texts` (None where a meme has none, which leaves it out); an empty one holds no word.

    Args:
        min_df: a word must be in as many captions of the selection rows.
        stop_words: left out: "english" for scikit-learn's list, or words.

    Raises:
        DataError: no selection row has a caption, or no word is in `min_df` of them.
    """
    if texts is None:
        raise DataError("these embeddings have no captions (no column 'text')")
    captioned = np.array([text is not None for text in texts], dtype=bool)
    selection, held_out = selection[captioned[selection]], held_out[captioned[held_out]]
    if len(selection) == 0:
        raise DataError("no meme of the selection rows has a caption")
    options: dict[str, Any] = {"dtype": np.int8}  # its stubs know int64 only
    vectorizer: Any = CountVectorizer(
        binary=True,
        preprocessor=normalise,
        token_pattern=token_pattern(),
        stop_words=stop_words if stop_words is None or isinstance(stop_words, str) else sorted(stop_words),
        min_df=min_df,
        **options,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of stop words that its own tokenizer would cut
            occurs = vectorizer.fit_transform(texts[selection])
    except ValueError as error:  # an empty vocabulary, or fewer captions than min_df
        raise DataError(f"no word is in {min_df} captions of the selection rows ({error})") from None
    other = vectorizer.transform(texts[held_out]) if len(held_out) else occurs[:0]
    sides = ((selection, occurs), (held_out, other))
    groups = np.arange(len(texts)) if groups is None else groups
    statements = (Statements(rows, sparse.csc_matrix(x), None, strata[rows], groups[rows]) for rows, x in sides)
    return Family(np.array(vectorizer.get_feature_names_out(), dtype=object), *statements)


def normalise(text: str) -> str:
    """One form for compatibility characters, case and apostrophes: styled letters are letters."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)


@cache
def token_pattern() -> str:
    r"""A letter, then letters, marks and inner apostrophes. `\w` has no marks: it would cut words of Indic scripts."""
    marks = "".join(chr(c) for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M")
    return rf"[^\W\d_](?:[^\W\d_]|[{marks}]|'(?=[^\W\d_]))*"
