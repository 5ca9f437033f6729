"""Items of the question set: pairs of distinct memes, and their pictures and captions fused in new combinations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import isqrt

import numpy as np
from datasets import Array2D, Dataset, Features, Value
from jaxtyping import Float, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.concepts import Concept
from sae_lens_meme.evaluators.rows import measured_rows
from sae_lens_meme.hooks.memeclip import fuse
from sae_lens_meme.hooks.names import EMBEDDING_HOOKS, FUSED, IMAGE_EMBED, TEXT_EMBED

Rows = Sequence[int] | np.ndarray
Items = tuple[Int[np.ndarray, " items"], Int[np.ndarray, " items"]]
"""Row numbers of the memes A and of the memes B."""
Fuse = Callable[[Float[np.ndarray, "n d_image"], Float[np.ndarray, "n d_text"]], Float[np.ndarray, "n d"]]

TOLERANCE = 1e-4
"""Of the largest stored number: far above what precision and batch size change, far below another fusion."""


def random_items(
    embeddings: Embeddings, rows: np.ndarray, n_items: int, *, within_source: bool = True, seed: int = 0
) -> Items:
    """Pairs of memes of `rows`, of each group one meme, in at most one pair: items are independent of each other.

    Args:
        n_items: at most this many; there are no more than half as many as memes.
        within_source: both memes of one source, so that the source is not the contrast.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for mine in _by_source(embeddings, rows, within_source, rng):
        mixed, half = rng.permutation(mine), len(mine) // 2
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
    """A: memes of which the concept is true; B: memes of the same source of which it is false; of each group one meme.

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
    for mine in _by_source(embeddings, rows[known[rows]], within_source, rng):
        a, b = rng.permutation(mine[true[mine]]), rng.permutation(mine[~true[mine]])
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
        raise DataError(f"question set: row {int(a[a == b][0])} is paired with itself; give pairs of distinct memes")
    return a, b


def fusion_of(embeddings: Embeddings, hook: str, given: Fuse | None) -> Fuse:
    """How these embeddings were fused.

    Raises:
        Unavailable: captions cannot be swapped.
    """
    if hook != FUSED:
        raise Unavailable(f"the SAE reads {hook}: only at {FUSED} can a picture be given another caption")
    if missing := [name for name in EMBEDDING_HOOKS if name not in embeddings.hooks]:
        raise Unavailable(
            f"the embeddings have no {', '.join(missing)}; embed the corpus with image and text embeddings"
        )
    fusion = embeddings.facts.get("fusion", "clip")
    if given is None and fusion != "clip":
        raise Unavailable(f"fusion {fusion} needs its heads; give fuse=partial(fuse, heads=heads)")
    return given or fuse


def fused_items(embeddings: Embeddings, items: Items, fuse: Fuse) -> Embeddings:
    """One row per cell and item: all items with picture A and text A, then AB, BA, BB.

    Raises:
        DataError: `fuse` does not reproduce the stored fused vectors of the items' memes.
        NonFiniteError: an embedding of an item is NaN, infinite or a zero vector; the message names the meme.
    """
    _require_directions(embeddings, np.concatenate(items))
    pictures, texts = (np.concatenate(side) for side in zip(*product(items, items), strict=True))
    fused = recombined(embeddings, pictures, texts, fuse)
    n = len(items[0])
    vectors = fused.take(FUSED, np.arange(len(fused)))
    for rows, found in ((items[0], vectors[:n]), (items[1], vectors[3 * n :])):
        _require_stored(embeddings, rows, found)
    return fused


def crossed_tables(items: Items, strata: np.ndarray, n_cells: int) -> tuple[Items, list[tuple[int, int]]]:
    """Every picture A with every text B of its stratum: rows of the pictures and of the texts, and the tables' shapes.

    Args:
        n_cells: at most this many in all; large strata are cut to the same number of items.
    """
    sizes = np.bincount(strata)
    side = max(isqrt(n_cells // len(sizes)), 1)
    places = [np.flatnonzero(strata == stratum)[:side] for stratum in range(len(sizes))]
    pictures, texts = (
        np.concatenate([along(rows[mine], len(mine)) for mine in places])
        for along, rows in ((np.repeat, items[0]), (np.tile, items[1]))
    )
    return (pictures, texts), [(len(mine), len(mine)) for mine in places if len(mine)]


def recombined(embeddings: Embeddings, pictures: np.ndarray, texts: np.ndarray, fuse: Fuse) -> Embeddings:
    """One row `hook_fused` for each picture with its text; the ids name the memes they are of."""
    fused = fuse(embeddings.take(IMAGE_EMBED, pictures), embeddings.take(TEXT_EMBED, texts))
    ids = [f"picture of {p}, text of {t}" for p, t in zip(embeddings.ids[pictures], embeddings.ids[texts], strict=True)]
    features = Features({"id": Value("string"), FUSED: Array2D((1, fused.shape[1]), "float32")})
    dataset = Dataset.from_dict({"id": ids, FUSED: fused[:, None]}, features=features)
    return Embeddings.from_dataset(dataset, **embeddings.facts)


def _require_directions(embeddings: Embeddings, rows: np.ndarray) -> None:
    for hook in (IMAGE_EMBED, TEXT_EMBED):
        embeddings.require_finite(hook, rows)
        for part, batch in embeddings.batches(hook, rows):
            if len(zero := part[~batch.any(axis=1)]):
                raise NonFiniteError(
                    f"{hook}, row {zero[0]} (id {str(embeddings.ids[zero[0]])!r}): the vector has norm 0 and cannot be fused; "
                    "remove the meme or embed it again"
                )


def _require_stored(embeddings: Embeddings, rows: np.ndarray, found: np.ndarray) -> None:
    stored = embeddings.take(FUSED, rows)
    if stored.shape != found.shape:
        raise DataError(f"question set: fuse gives {found.shape[1]} dimensions, the stored {FUSED} {stored.shape[1]}")
    difference = np.abs(found - stored).max(axis=1)
    worst = int(difference.argmax())
    if not difference[worst] <= TOLERANCE * np.abs(stored).max():
        raise DataError(
            f"question set: fusing image and text embeddings does not give the stored {FUSED}: they differ by up to "
            f"{difference[worst]:.3g} (id {str(embeddings.ids[rows[worst]])!r}); embed again, or give the fuse= that made them"
        )


def _by_source(
    embeddings: Embeddings, rows: np.ndarray, within_source: bool, rng: np.random.Generator
) -> list[np.ndarray]:
    """One meme per group by source, in the order of ids: what is drawn does not depend on the order of the memes."""
    rows = rows[np.argsort(embeddings.ids[rows], kind="stable")]
    groups = embeddings.groups[rows]
    if len(np.unique(groups)) < len(groups):
        drawn = rng.permutation(len(rows))
        rows = rows[np.sort(drawn[np.unique(groups[drawn], return_index=True)[1]])]
    strata = embeddings.strata[rows]
    return [rows[strata == stratum] for stratum in np.unique(strata)] if within_source else [rows]


def _some(pairs: list[tuple[np.ndarray, np.ndarray]], n_items: int, rng: np.random.Generator) -> Items:
    a, b = (np.concatenate([pair[side] for pair in pairs] or [np.empty(0, np.int64)]) for side in (0, 1))
    chosen = np.sort(rng.permutation(len(a))[:n_items])
    return a[chosen], b[chosen]
