"""Which memes belong together: they share a picture, a near picture, a caption, or a value of the user's column `group`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.survey import PictureHashes, near_pairs

CAPTION_SHARED_BY = 50
"""A caption that more memes than this have does not group them: "lol" or "me irl" is on memes that have nothing else in
common, and through a few such captions most of a corpus would become one group."""

PICTURE, NEAR, CAPTION, GROUP = "picture", "near picture", "caption", "group"
KINDS = (PICTURE, NEAR, CAPTION, GROUP)
"""What two memes may share, the surest first."""

Key = tuple[str, Any]
"""One of `KINDS`, and the value that is shared."""


@dataclass(frozen=True)
class Links:
    """What each row has that another may have too."""

    keys: Mapping[Row, Sequence[Key]]

    @cached_property
    def times(self) -> Counter[Key]:
        """How many rows have a key."""
        return Counter(chain.from_iterable(self.keys.values()))

    def unites(self, key: Key) -> bool:
        """The memes that have it are not independent evidence."""
        return self.times[key] > 1 and (key[0] != CAPTION or self.times[key] <= CAPTION_SHARED_BY)

    def uniting(self, row: Row) -> list[Key]:
        return [key for key in self.keys[row] if self.unites(key)]

    @cached_property
    def groups(self) -> dict[Row, str]:
        """Of each row the smallest id of its group, its own where it is alone; a chain of links makes one group."""
        rows = list(self.keys)
        shared = [(i, key) for i, row in enumerate(rows) for key in self.uniting(row)]
        node = {key: len(rows) + i for i, key in enumerate(dict.fromkeys(key for _, key in shared))}
        edges = [i for i, _ in shared], [node[key] for _, key in shared]
        size = len(rows) + len(node)
        graph = csr_matrix((np.ones(len(shared)), edges), shape=(size, size))
        codes = connected_components(graph, directed=False)[1][: len(rows)].tolist()
        name: dict[int, str] = {}
        for row, code in zip(rows, codes, strict=True):
            name[code] = min(row.id, name.get(code, row.id))
        return {row: name[code] for row, code in zip(rows, codes, strict=True)}


def find_links(rows: Sequence[Row], looks: Mapping[Row, PictureHashes], near: int = 0) -> Links:
    """What rows have in common.

    Args:
        looks: what was seen of their pictures; a row without a look is compared by its caption and group alone.
        near: pictures are near duplicates if their perceptual hashes differ in at most this many bits (`survey.near_pairs`).
    """
    keys: defaultdict[Row, list[Key]] = defaultdict(list, {row: [] for row in rows})
    for row in rows:
        look = looks.get(row)
        if look is not None and look.sha256 is not None:
            keys[row].append((PICTURE, look.sha256))
        if caption := " ".join((row.text or "").casefold().split()):
            keys[row].append((CAPTION, caption))
        if row.group:
            keys[row].append((GROUP, row.group))
    for row, key in _near(rows, looks, near):
        keys[row].append(key)
    return Links(dict(keys))


def _near(rows: Sequence[Row], looks: Mapping[Row, PictureHashes], near: int) -> Iterator[tuple[Row, Key]]:
    """Equal hashes are compared once, however many pictures have them; a pair that is close is a key of its own."""
    alike: defaultdict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        if (look := looks.get(row)) is not None and look.hashes is not None:
            alike[look.hashes].append(row)
    hashes = list(alike)
    for code in hashes:
        yield from ((row, (NEAR, code)) for row in alike[code])
    for one, other in near_pairs(hashes, near).tolist():
        pair = (NEAR, (one, other))
        yield from ((row, pair) for row in chain(alike[hashes[one]], alike[hashes[other]]))
