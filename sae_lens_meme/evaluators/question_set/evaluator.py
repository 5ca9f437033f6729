"""The Standard Question Set on fused memes: pairs of memes with swapped captions, every latent classed.

A latent is visual, textual or cross-modal by what decides its activation when pictures and captions are dealt anew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.controls import directions
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.question_set.contrasts import Cells, Effects, effects
from sae_lens_meme.evaluators.question_set.fusion import Fuse, fused_items, fusion_of
from sae_lens_meme.evaluators.question_set.items import Items, Rows, random_items, require_items
from sae_lens_meme.evaluators.question_set.numbers import (
    class_numbers,
    explain,
    number_names,
    numbers_of,
    table_of,
)
from sae_lens_meme.evaluators.question_set.shares import TERMS
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.rows import measured_rows, require_which
from sae_lens_meme.hooks.names import FUSED


class QuestionSet(Evaluator):
    """Effects of picture, text and interaction on every latent, from captions swapped between pairs of memes.

    Cells aa and bb are the memes as they are, ab and ba have the other's caption. Where captions of memes hang on
    their pictures, the interaction therefore also holds what a latent says of a caption that fits its picture;
    a latent that is a sum of a function of the picture and one of the caption has none.

    Args:
        n_items: pairs at most; a meme is in one pair only, so that there are at most half as many as memes.
        items: rows of memes A and rows of memes B in place of random pairs (see `concept_items`).
        drawn: the sides of which A and B are exchangeable draws (see `effects`). Of the others no interaction is
            subtracted; leave out a side only where A and B are two fixed conditions of it.
        fuse: (image embeddings, text embeddings) to fused vectors, where the fusion is not clip's; see `fuse_through`.
        rows: "held_out" (test rows, else validation rows, else all) or "all", for random pairs.
        within_source: random pairs of one source, so that the source is not the contrast.
        min_items: a latent that fires in fewer items is neither classed nor in the table.
        n_bootstrap: resamples of the items for the 95 % intervals; 0 for none.
    """

    name = "question_set"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        n_items: int = 1000,
        items: tuple[Rows, Rows] | None = None,
        drawn: Collection[str] = TERMS[:2],
        fuse: Fuse | None = None,
        rows: str = "held_out",
        within_source: bool = True,
        min_items: int = 10,
        n_bootstrap: int = 200,
        seed: int = 0,
    ):
        super().__init__(embeddings, hook=hook)
        require_which(rows)
        if n_items < 2:
            raise ConfigError(f"question set: n_items is {n_items}; give 2 or more")
        self.n_items, self.items, self.fuse = n_items, items, fuse
        self.rows, self.within_source = rows, within_source
        self.drawn = tuple(drawn)
        self.min_items, self.n_bootstrap, self.seed = min_items, n_bootstrap, seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        fuse = fusion_of(embeddings, hook_of(sae, embeddings, self.hook), self.fuse)
        if isinstance(fuse, str):
            return self._undefined(fuse)
        items, which = self._items(embeddings)
        if len(items[0]) < 2:
            return self._undefined(f"there are {len(items[0])} pairs of {which}; two are needed")
        fused = fused_items(embeddings, items, fuse)
        strata = self._strata(embeddings, items)
        recombined = self._encode(sae, fused, latents, items)
        found = self._effects(recombined, strata)
        numbers = numbers_of(found)
        for control, cells in (
            ("permuted", permuted_within_items(recombined, self.seed)),
            ("neurons", directions(fused, FUSED, recombined.l0)),
        ):
            numbers |= class_numbers(self._effects(cells, strata), f"{control}/", intervals=False)
        reason = f"no unit fires in at least {self.min_items} items, or all of its cells are equal"
        reasons = {key: reason for key, value in numbers.items() if value is None}
        return Result(self.name, numbers, reasons, table_of(found), self._explain(which))

    def _items(self, embeddings: Embeddings) -> tuple[Items, str]:
        if self.items is not None:
            return require_items(self.items, len(embeddings)), "the pairs that were given"
        rows, which = measured_rows(embeddings, self.rows)
        items = random_items(embeddings, rows, self.n_items, within_source=self.within_source, seed=self.seed)
        return items, f"{which}, {'paired at random within source' if self.within_source else 'paired at random'}"

    def _encode(self, sae: Any, fused: Embeddings, latents: Latents, items: Items) -> Latents:
        """Cell by cell; those of the memes as they are have been encoded before."""
        swapped = encode(sae, fused, FUSED, rows=np.arange(len(items[0]), 3 * len(items[0])))
        return Latents.concatenate([latents.rows(items[0]), swapped, latents.rows(items[1])])

    def _strata(self, embeddings: Embeddings, items: Items) -> np.ndarray:
        """Items of the same two sources."""
        sources = np.stack([embeddings.sources[rows] for rows in items], axis=1)
        return np.unique(sources, axis=0, return_inverse=True)[1].ravel()

    def _effects(self, recombined: Latents, strata: np.ndarray) -> Effects:
        return effects(
            cells_of(recombined),
            drawn=self.drawn,
            min_items=self.min_items,
            n_bootstrap=self.n_bootstrap,
            strata=strata,
            seed=self.seed,
        )

    def _undefined(self, reason: str) -> Result:
        names = number_names(self.n_bootstrap > 0)
        return Result(self.name, dict.fromkeys(names), dict.fromkeys(names, reason), None, self._explain("none"))

    def _explain(self, which: str) -> dict[str, str]:
        return explain(which, self.drawn, self.min_items, self.n_bootstrap)


def cells_of(recombined: Latents) -> Cells:
    """The cells of latents that come cell by cell (aa, ab, ba, bb)."""
    return Cells(*(recombined.rows(rows) for rows in np.split(np.arange(recombined.n_samples), len(Cells._fields))))


def permuted_within_items(recombined: Latents, seed: int) -> Latents:
    """Each item's four cells in a random order, the same for all latents."""
    rows = np.arange(recombined.n_samples).reshape(len(Cells._fields), -1)
    return recombined.rows(np.random.default_rng(seed).permuted(rows, axis=0).ravel())
