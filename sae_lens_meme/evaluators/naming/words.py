"""Which words a caption holds: each word once a caption, letters and marks of any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from sae_lens_meme.errors import DataError

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'"})


@dataclass(frozen=True, eq=False)
class Words:
    """The words of the captions of the selection rows and of the held-out rows; memes without a caption are in neither."""

    vocabulary: np.ndarray
    """str [n_words], sorted; of the selection rows."""
    selection_rows: Int[np.ndarray, " selection"]
    selection: sparse.csr_matrix
    """1 where the caption holds the word, [selection, n_words]."""
    held_out_rows: Int[np.ndarray, " held_out"]
    held_out: sparse.csr_matrix


def read_words(
    texts: np.ndarray | None,
    selection: Int[np.ndarray, " s"],
    held_out: Int[np.ndarray, " h"],
    *,
    min_df: int = 5,
    stop_words: str | Collection[str] | None = None,
) -> Words:
    """The words of the captions `texts` (None where a meme has none); an empty caption holds no word.

    Args:
        min_df: a word must be in as many captions of the selection rows.
        stop_words: left out: "english" for scikit-learn's list, or words.

    Raises:
        DataError: no selection row has a caption, or no word is in `min_df` of them.
    """
    if texts is None:
        raise DataError("these embeddings have no captions (no column 'text')")
    selection, held_out = _captioned(texts, selection), _captioned(texts, held_out)
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
        chosen = vectorizer.fit_transform(texts[selection])
    except ValueError as error:  # an empty vocabulary, or fewer captions than min_df
        raise DataError(f"no word is in {min_df} captions of the selection rows ({error})") from None
    other = vectorizer.transform(texts[held_out]) if len(held_out) else chosen[:0]
    vocabulary = np.array(vectorizer.get_feature_names_out(), dtype=np.str_)
    return Words(vocabulary, selection, _sorted(chosen), held_out, _sorted(other))


def normalise(text: str) -> str:
    """Compatibility forms, case and apostrophes made one: styled letters are letters."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)


@cache
def token_pattern() -> str:
    r"""A letter, then letters, marks and inner apostrophes. `\w` knows no marks: it would cut words of Indic scripts."""
    marks = "".join(chr(c) for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M")
    return rf"[^\W\d_](?:[^\W\d_]|[{marks}]|'(?=[^\W\d_]))*"


def _captioned(texts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[[text is not None for text in texts[rows]]]


def _sorted(counts: Any) -> sparse.csr_matrix:
    counts = sparse.csr_matrix(counts)
    counts.sort_indices()
    return counts
