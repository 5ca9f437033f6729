"""Items of the question set: pairs of distinct memes, at random or of one concept against its opposite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.concepts import Concept
from sae_lens_meme.evaluators.rows import measured_rows

Rows = Sequence[int] | np.ndarray
Items = tuple[Int[np.ndarray, " items"], Int[np.ndarray, " items"]]
"""Row numbers of the memes A and of the memes B."""


def random_items(
    embeddings: Embeddings, rows: np.ndarray, n_items: int, *, within_source: bool = True, seed: int = 0
) -> Items:
    """Pairs of memes of `rows`, each meme in at most one: items that share no meme are independent of each other.

    Args:
        n_items: at most so many; there are no more than half as many as memes.
        within_source: both memes of one source, so that the source is not the contrast.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for group in _groups(embeddings, rows, within_source):
        mixed, half = rng.permutation(group), len(group) // 2
        pairs.append((mixed[:half], mixed[half : 2 * half]))
    return _some(pairs, n_items, rng)


def concept_items(
    embeddings: Embeddings,
    concept: Concept | str,
    n_items: int = 1000,
    *,
    rows: np.ndarray | None = None,
    within_source: bool = True,
    seed: int = 0,
) -> Items:
    """A: memes of which the concept is true; B: memes of the same source of which it is false; each meme in one item.

    Memes whose label is missing are neither. With such items the signed effects mean something: which way, and
    by how much, picture or caption of the concept move a latent.

    Args:
        rows: choose among these, default the held-out rows (all where there are none).

    Raises:
        ConfigError: the concept does not fit its label.
        DataError: no source has both true and false memes, or there is no such label.
    """
    concept = concept if isinstance(concept, Concept) else Concept.parse(concept)
    known, true = concept.truth(embeddings.label(concept.label))
    rows = measured_rows(embeddings)[0] if rows is None else np.asarray(rows)
    rng = np.random.default_rng(seed)
    pairs = []
    for group in _groups(embeddings, rows[known[rows]], within_source):
        a, b = rng.permutation(group[true[group]]), rng.permutation(group[~true[group]])
        half = min(len(a), len(b))
        pairs.append((a[:half], b[:half]))
    items = _some(pairs, n_items, rng)
    if not len(items[0]):
        raise DataError(
            f"concept {concept.name!r}: no source has both true and false memes among these {len(rows)} rows; "
            "give other rows or within_source=False"
        )
    return items


def require_items(items: tuple[Rows, Rows], n: int) -> Items:
    """As int64 arrays.

    Raises:
        DataError: A and B differ in number, a row is outside `0..n-1`, or a meme is set against itself.
    """
    a, b = (np.asarray(side, dtype=np.int64).ravel() for side in items)
    if len(a) != len(b):
        raise DataError(f"question set: {len(a)} memes A and {len(b)} memes B; an item is one of each")
    outside = [int(row) for row in np.concatenate([a, b]) if not 0 <= row < n]
    if outside:
        raise DataError(f"question set: row {outside[0]} is not one of the {n} memes; items are row numbers from 0")
    if (a == b).any():
        raise DataError(f"question set: row {int(a[a == b][0])} is set against itself; give pairs of distinct memes")
    return a, b


def _groups(embeddings: Embeddings, rows: np.ndarray, within_source: bool) -> list[np.ndarray]:
    """Rows by source, in the order of ids: what is drawn does not depend on the order of the memes."""
    rows = rows[np.argsort(embeddings.ids[rows], kind="stable")]
    sources = embeddings.sources[rows]
    return [rows[sources == source] for source in np.unique(sources)] if within_source else [rows]


def _some(pairs: list[tuple[np.ndarray, np.ndarray]], n_items: int, rng: np.random.Generator) -> Items:
    a, b = (np.concatenate([pair[side] for pair in pairs] or [np.empty(0, np.int64)]) for side in (0, 1))
    chosen = np.sort(rng.permutation(len(a))[:n_items])
    return a[chosen], b[chosen]
