"""Families of memes: what shares a picture, a caption, or a value of the column that the user calls `group`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from sae_lens_meme.corpus.pictures import picture_size, read_picture
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.errors import BadImageError

CAPTION_SHARED_BY = 50
"""A caption of more memes than these does not unite them: "lol" or "me irl" is on memes that have nothing else in
common, and through a few such captions most of a corpus would become one group."""


def group_names(rows: Sequence[Row]) -> dict[Row, str]:
    """Of each row the smallest id of its group, its own where it is alone.

    Two rows are of one group if they have the same picture byte for byte, the same caption (case and spaces apart), or the
    same value in the column for groups; also if a chain of such rows joins them.
    """
    shared = _shared(rows)
    node = {key: len(rows) + i for i, key in enumerate(dict.fromkeys(key for _, key in shared))}
    edges = [i for i, _ in shared], [node[key] for _, key in shared]
    size = len(rows) + len(node)
    graph = csr_matrix((np.ones(len(shared)), edges), shape=(size, size))
    group = connected_components(graph, directed=False)[1][: len(rows)].tolist()
    name: dict[int, str] = {}
    for row, code in zip(rows, group, strict=True):
        name[code] = min(row.id, name.get(code, row.id))
    return {row: name[code] for row, code in zip(rows, group, strict=True)}


def picture_hash(row: Row) -> str | None:
    """None where the picture cannot be read: that is said when it is written."""
    with suppress(BadImageError):
        return hashlib.sha256(read_picture(row.picture, row.image)).hexdigest()


def _shared(rows: Sequence[Row]) -> list[tuple[int, tuple[str, str]]]:
    """Numbers of rows, and what they may have in common with others."""
    return [*_pictures(rows), *_captions(rows), *((i, ("group", row.group)) for i, row in enumerate(rows) if row.group)]


def _pictures(rows: Sequence[Row]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Only pictures of one size are read: others are not alike."""
    sizes = [picture_size(row.picture) for row in rows]
    times = Counter(sizes)
    alike = [i for i, size in enumerate(sizes) if size and times[size] > 1]
    with ThreadPoolExecutor() as pool:
        for i, content in zip(alike, pool.map(picture_hash, [rows[i] for i in alike]), strict=True):
            if content is not None:
                yield i, ("picture", content)


def _captions(rows: Sequence[Row]) -> Iterator[tuple[int, tuple[str, str]]]:
    captions = [" ".join((row.text or "").casefold().split()) for row in rows]
    times = Counter(captions)
    yield from ((i, ("text", text)) for i, text in enumerate(captions) if text and times[text] <= CAPTION_SHARED_BY)
