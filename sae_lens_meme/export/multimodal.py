"""`multimodal/`: what Neuronpedia has no field for, keyed by the ids of `activations/`.

Pictures are re-encoded, small and without metadata; signed attributions; and where the patches lie in the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_lens_meme.attributions import GRID, covered
from sae_lens_meme.corpus import load_rows
from sae_lens_meme.corpus.build import Pictures, require_memes
from sae_lens_meme.export.activations import as_dict, row_id
from sae_lens_meme.export.examples import Example
from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.text import clean
from sae_lens_meme.export.write import Row
from sae_lens_meme.images import small_webp

FOLDER = "multimodal"
SIDE = 192
"""Pixels of the longer side of a picture."""
PICTURES = 512
"""Pictures a file."""


class Shown:
    """The pictures of the memes that are shown, in files of 512.

    Raises:
        DataError: a meme is not in the corpus.
    """

    def __init__(self, corpus: Path, memes: set[str]):
        self._corpus = corpus
        rows = load_rows(corpus)
        self._hashes = dict(zip(rows["id"], rows["image_sha256"], strict=True))
        require_memes(corpus, sorted(memes), self._hashes)
        one_each = {self._hashes[meme]: meme for meme in sorted(memes, reverse=True)}
        self._memes = [one_each[sha256] for sha256 in sorted(one_each)]
        self._place = {self._hashes[meme]: i for i, meme in enumerate(self._memes)}

    @property
    def files(self) -> dict[str, list[str]]:
        """File name -> memes."""
        n = range(0, len(self._memes), PICTURES)
        return {_file(start): self._memes[start : start + PICTURES] for start in n}

    def content(self, memes: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for meme in memes:
            yield f"{self._hashes[meme]}.webp", small_webp(self._pictures[self._rows[meme]], SIDE)[0]

    def sha256(self, meme: str) -> str:
        """Of the original file."""
        return self._hashes[meme]

    def path(self, meme: str) -> str:
        """Archive and member."""
        sha256 = self._hashes[meme]
        return f"{_file(self._place[sha256])}/{sha256}.webp"

    def size(self, meme: str) -> tuple[int, int]:
        """Width and height of the original."""
        if meme not in self._known:
            self._known[meme] = self._pictures[self._rows[meme]].size
        return self._known[meme]

    @cached_property
    def _known(self) -> dict[str, tuple[int, int]]:
        return {}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {meme: row for row, meme in enumerate(self._hashes)}

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(load_rows(self._corpus))


def multimodal_rows(
    examples: Iterable[Example], names: ExportNames, shown: Shown | None, view: str | None
) -> Iterator[Row]:
    """Args:
    view: which part of a picture the patches cover, see `Attributions.facts`; None without an attribution.
    """
    for example in examples:
        yield {
            "id": row_id(example, names),
            "index": example.latent,
            "meme": clean(example.meme),
            "picture": shown.path(example.meme) if shown else None,
            **_places(example, shown, view),
            **as_dict(example),
        }


def _places(example: Example, shown: Shown | None, view: str | None) -> dict[str, Any]:
    """The grid, and the box that it covers: left, top, right and bottom as shares of the picture."""
    if not example.patch_scores or view is None:
        return {"grid": None, "box": None}
    return {"grid": GRID, "box": box_of(view, shown.size(example.meme)) if shown else None}


def box_of(view: str, size: tuple[int, int]) -> list[float]:
    left, top, width, height = covered(view, size)
    edges = (left / size[0], top / size[1], (left + width) / size[0], (top + height) / size[1])
    return [round(edge, 4) for edge in edges]


def _file(place: int) -> str:
    return f"pictures-{place // PICTURES}.zip"
