"""Subgroups of memes: the values of a label, the sources, or the memes whose caption holds one of some words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, UInt8

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.concepts import MAX_CLASSES
from sae_lens_meme.evaluators.naming.statements import normalise, token_pattern
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN

SOURCE, CAPTION = "source", "caption"


@dataclass(frozen=True, eq=False)
class Subgroup:
    """Some memes, the others, and those of which it is not known."""

    name: str
    column: str
    """A label, `source`, or `caption`."""
    codes: UInt8[np.ndarray, " n"]


def subgroups_of(
    embeddings: Embeddings, columns: Sequence[str] | None = None, words: Mapping[str, Sequence[str]] | None = None
) -> list[Subgroup]:
    """One subgroup per value of each column, then one per list of words.

    Args:
        columns: labels, or `source`; default `source` and every label with 2 to 10 values.
        words: name -> words or phrases; a caption that holds one of them is in the subgroup.

    Raises:
        DataError: there is no such label, or there are no captions.
        ConfigError: a subgroup without words.
    """
    found: list[Subgroup] = []
    for column in dict.fromkeys([*embeddings.label_names, SOURCE] if columns is None else columns):
        values = list(_values(embeddings, column))
        if columns is not None or 2 <= len(values) <= MAX_CLASSES:
            found += values
    for name, listed in (words or {}).items():
        if embeddings.texts is None:
            raise DataError("subgroups.words: these embeddings have no captions (no column 'text')")
        found.append(Subgroup(f"{CAPTION}={name}", CAPTION, caption_holds(embeddings.texts, name, listed)))
    times = Counter(subgroup.name for subgroup in found)
    return [s if times[s.name] == 1 else replace(s, name=f"{s.column!r}: {s.name}") for s in found]


def _values(embeddings: Embeddings, column: str) -> Iterator[Subgroup]:
    if column == SOURCE:
        known, values = np.ones(len(embeddings), dtype=bool), embeddings.sources
        classes = np.unique(values).tolist()
    else:
        label = embeddings.label(column)
        known, values, classes = label.known, label.values, label.classes
    for value in classes:
        yield Subgroup(f"{column}={value}", column, _codes(known, values == value))


def caption_holds(texts: np.ndarray, name: str, words: Sequence[str]) -> UInt8[np.ndarray, " n"]:
    """TRUE where a caption holds one of the words (whole words, whatever their case), UNKNOWN where there is no caption.

    Raises:
        ConfigError: no word is given, or one has no letter.
    """
    pattern = re.compile(token_pattern())
    wanted = [_tokens(word, pattern) for word in words]
    if not wanted or any(not word.strip() for word in wanted):
        raise ConfigError(f"subgroups.words.{name} is {list(words)!r}; give words that have a letter")
    known = np.array([text is not None for text in texts], dtype=bool)
    captions = ["" if text is None else _tokens(text, pattern) for text in texts]
    holds = np.array([any(word in caption for word in wanted) for caption in captions], dtype=bool)
    return _codes(known, holds)


def _tokens(text: str, pattern: re.Pattern[str]) -> str:
    """The words of a text between single spaces, one also at either end."""
    return f" {' '.join(pattern.findall(normalise(text)))} "


def _codes(known: Bool[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    return np.where(known, np.where(true, TRUE, FALSE), UNKNOWN).astype(np.uint8)
