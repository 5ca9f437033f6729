"""The memes that a latent's page shows: those of an attribution, or without one, memes chosen by the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from sae_lens_meme.attribute.choose import choose_memes
from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.attributions import GRID, TOP, Attributions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.rows import measured_rows

MOST_WORDS = 256
"""Of a caption; with the patches they stay far below the 1,024 tokens of an upload."""
PATCHES = GRID**2


class Example(NamedTuple):
    """A latent on a meme. Scores are empty where nothing is known of words or of patches."""

    latent: int
    meme: str
    kind: str
    rank: int
    interval: tuple[float, float, float] | None
    """Its ends and its share of the active memes; None of a top meme."""
    activation: float
    words: list[str]
    word_scores: list[float]
    patch_scores: list[float]
    interactions: list[tuple[int, int, float]]
    """Word, patch and value."""


class Examples:
    """By latent. An attribution of some latents is completed by memes without scores for the others."""

    def __init__(self, latents: Latents, memes: Embeddings, attributions: Attributions | None, seed: int):
        self._latents, self._memes, self._attributions = latents, memes, attributions
        self._rule = AttributeOptions(seed=seed)
        self._last: tuple[list[int], dict[int, list[Example]]] = [], {}

    def of(self, latents: Iterable[int]) -> Iterator[Example]:
        """Of each of these latents in turn: top memes by rank, then those of each interval from the highest down."""
        asked = list(latents)
        chosen = self._chosen([latent for latent in asked if latent not in self._attributed])
        for latent in asked:
            rows = self._read(latent) if latent in self._attributed else chosen.get(latent, [])
            yield from sorted(rows, key=_place)

    def memes(self, latents: Iterable[int]) -> set[str]:
        """The ids of all memes that are shown for these latents."""
        return {example.meme for example in self.of(latents)}

    @cached_property
    def _attributed(self) -> dict[int, np.ndarray]:
        """The rows of each latent of the attribution."""
        if self._attributions is None:
            return {}
        column = self._attributions.dataset.data.column("latent").to_numpy()
        order = np.argsort(column, kind="stable")
        wanted = np.asarray(self._attributions.latents)
        starts, ends = (np.searchsorted(column[order], wanted, side) for side in ("left", "right"))
        return {int(w): order[s:e] for w, s, e in zip(wanted, starts, ends, strict=True)}

    def _read(self, latent: int) -> list[Example]:
        assert self._attributions is not None
        columns = self._attributions.dataset[self._attributed[latent].tolist()]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [self._seen(row) for row in rows]

    def _seen(self, row: dict[str, Any]) -> Example:
        words = row["words"][:MOST_WORDS]
        ends = tuple(row[f"interval_{end}"] for end in ("low", "high", "share"))
        return Example(
            *(row["latent"], row["id"], row["kind"], row["rank"]),
            None if row["kind"] == TOP else ends,  # type: ignore[arg-type]
            row["activation"],
            words or self._caption(row["id"]),  # the latent may see no captions, the reader does
            row["word_scores"][:MOST_WORDS],
            row["patch_scores"] or [],
            [(pair["word"], pair["patch"], pair["value"]) for pair in row["interactions"] if pair["word"] < len(words)],
        )

    def _chosen(self, latents: list[int]) -> dict[int, list[Example]]:
        if latents != self._last[0]:  # a batch is asked for once a kind of file
            self._last = latents, self._choose(latents)
        return self._last[1]

    def _choose(self, latents: list[int]) -> dict[int, list[Example]]:
        found: dict[int, list[Example]] = {}
        active = [latent for latent in latents if self._fires[latent]]
        if not active:
            return found
        rows, _ = measured_rows(self._memes, "all")
        for row in choose_memes(self._latents, self._memes, active, rows, self._rule).itertuples():
            example = self._unseen(row)
            found.setdefault(example.latent, []).append(example)
        return found

    def _unseen(self, row: Any) -> Example:
        meme = str(self._memes.ids[row.row])
        ends = None if row.kind == TOP else (row.interval_low, row.interval_high, row.interval_share)
        head = int(row.latent), meme, str(row.kind), int(row.rank)
        return Example(*head, ends, float(row.activation), self._caption(meme), [], [], [])

    def _caption(self, meme: str) -> list[str]:
        caption = None if self._memes.texts is None else self._memes.texts[self._row_of[meme]]
        return [] if caption is None else str(caption).split(maxsplit=MOST_WORDS)[:MOST_WORDS]

    @cached_property
    def _fires(self) -> np.ndarray:
        return np.diff(self._latents.csc().indptr) > 0

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {str(identity): row for row, identity in enumerate(self._memes.ids)}


def _place(example: Example) -> tuple[bool, float, int]:
    return example.kind != TOP, -(example.interval or (0.0,))[0], example.rank
