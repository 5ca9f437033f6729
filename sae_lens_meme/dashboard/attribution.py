"""The result of `attribute`: which words and regions drive a latent on each of its memes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.dashboard.numbers import clean, short, shorts, signed_bytes
from sae_lens_meme.dashboard.selection import Picks
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import StorageError
from sae_lens_meme.storage import open_dataset, read_finished

PARTS = ("caption_local", "image_local", "meme_global")
MOST_INTERACTIONS = 12


@dataclass(frozen=True)
class Attribution:
    """One row a latent and meme."""

    dataset: Any
    rows: np.ndarray
    """Of each row of the dataset, the row of its meme in the embeddings."""

    @classmethod
    def load(cls, folder: str | Path, memes: Embeddings) -> Attribution:
        """Open the folder that `attribute` wrote.

        Raises:
            StorageError: it is none, or it holds a meme that the embeddings do not.
        """
        read_finished(folder, "attribute")
        dataset = open_dataset(folder)
        place = {str(name): row for row, name in enumerate(memes.ids)}
        ids = dataset["id"][:]
        if (stranger := next((name for name in ids if name not in place), None)) is not None:
            raise StorageError(f"{folder}: meme {stranger!r} is not in these embeddings; attribute these memes")
        return cls(dataset, np.array([place[name] for name in ids], dtype=np.int64))

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        latents = np.asarray(self.dataset.with_format("numpy")["latent"][:], dtype=np.int64)
        order = np.argsort(latents, kind="stable")
        return latents[order], order

    def of(self, latent: int) -> list[int]:
        """The rows of the dataset that are of this latent, in their order."""
        latents, order = self._places
        return order[np.searchsorted(latents, latent) : np.searchsorted(latents, latent, side="right")].tolist()

    def picks(self, latent: int) -> Picks:
        """The memes that `attribute` has chosen for a latent."""
        places = self.of(latent)
        found = self.dataset.select_columns(["kind", "interval", "activation"])[places] if places else {}
        intervals = [-1 if i is None else int(i) for i in found.get("interval", [])]
        return Picks(
            self.rows[places],
            list(found.get("kind", [])),
            np.array(intervals, dtype=np.int64),
            np.array(found.get("activation", []), dtype=np.float32),
        )

    def details(self, latent: int) -> dict[str, Any]:
        """Words, regions and parts of the memes of a latent, a list entry a meme."""
        places = self.of(latent)
        if not places:
            return {}
        found = self.dataset[places]
        return {
            "words": [[clean(word) for word in words or []] for words in found["words"]],
            "word_scores": [signed_bytes(np.array(scores or [])) for scores in found["word_scores"]],
            "word_scale": [_largest(scores) for scores in found["word_scores"]],
            "patches": [None if scores is None else signed_bytes(np.array(scores)) for scores in found["patch_scores"]],
            "patch_scale": [_largest(scores) for scores in found["patch_scores"]],
            "together": [_strongest(pairs) for pairs in found["interactions"]],
            **{part: shorts(found[part]) for part in PARTS},
        }


def _largest(scores: list[float] | None) -> Any:
    return short(np.abs(np.nan_to_num(np.array(scores or [0.0], dtype=np.float64))).max(initial=0.0))


def _strongest(pairs: Any) -> list[list[Any]]:
    """Triples of word, patch and interaction, the strongest first."""
    if isinstance(pairs, dict):  # how `datasets` gives a list of structs in some releases
        pairs = [dict(zip(pairs, values, strict=True)) for values in zip(*pairs.values(), strict=True)]
    ranked = sorted(pairs or [], key=lambda pair: -abs(pair["value"]))[:MOST_INTERACTIONS]
    return [[int(pair["word"]), int(pair["patch"]), short(pair["value"])] for pair in ranked]
