"""The result of `attribute`: for each latent its memes, and what each word and each patch of them does to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Features, Value

from sae_lens_meme.errors import DataError, StorageError
from sae_lens_meme.storage import open_dataset, read_finished

STEP = "attribute"
GRID = 7
"""Patches a side."""
TOP, QUANTILE = "top", "quantile"
_NUMBER = Value("float32")
FEATURES = Features(
    {
        "latent": Value("int32"),
        "id": Value("string"),
        "kind": Value("string"),  # top or quantile
        "rank": Value("int32"),  # 0, 1, ... within the kind, of quantile memes within the interval
        "interval": Value("int32"),  # 0 is the lowest of equally wide parts of (0, largest activation]; null for top
        "interval_low": _NUMBER,
        "interval_high": _NUMBER,
        "interval_share": _NUMBER,  # of the memes on which the latent is active
        "activation": _NUMBER,  # of the batch pipeline
        "pre_activation": _NUMBER,
        "words": [Value("string")],
        "word_scores": [_NUMBER],  # f(meme) - f(meme without the word), f the pre-activation
        "patch_scores": [_NUMBER],  # row by row from the top left; null where the latent sees no picture
        "interactions": [{"word": Value("int32"), "patch": Value("int32"), "value": _NUMBER}],
        "caption_local": _NUMBER,  # activation with the mean image embedding; null where the latent sees no caption
        "image_local": _NUMBER,  # activation with the mean text embedding; null where the latent sees no picture
        "meme_global": _NUMBER,
    }
)


def covered(view: str, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, width and height, in pixels of a picture of this size, of what its patches divide.

    Args:
        view: `whole`, `centre` (a square inside the picture) or `padded` (a square around it, so that it begins below 0).
    """
    width, height = size
    if view == "whole":
        return 0, 0, width, height
    side = max(size) if view == "padded" else min(size)
    return (width - side) / 2, (height - side) / 2, side, side


@dataclass(frozen=True)
class Attributions:
    """A finished result of `attribute`, memory-mapped. Captions and ids in it are foreign text."""

    dataset: Dataset
    facts: dict[str, Any]
    """`latents`, `grid`, and `view`: the grid covers the "whole" picture, its "centre" square, or the "padded" square
    around it, see `covered`."""

    @classmethod
    def load(cls, folder: str | Path) -> Attributions:
        """Open a folder.

        Raises:
            StorageError: it is not a finished result of `attribute`, or its columns are not `FEATURES`.
        """
        manifest = read_finished(folder, STEP)
        dataset = open_dataset(folder)
        if not isinstance(dataset, Dataset) or dataset.column_names != list(FEATURES):
            raise StorageError(f"{folder}: does not have the columns that attribute writes; run attribute again")
        return cls(dataset, manifest["facts"])

    @cached_property
    def latents(self) -> list[int]:
        """The latents that were attributed, ascending; one without active memes has no rows."""
        return sorted(self.facts["latents"])

    def rows_of(self, latent: int) -> list[dict[str, Any]]:
        """The rows of a latent: top memes by rank, then quantile memes from the highest interval down.

        Raises:
            DataError: the latent was not attributed.
        """
        if latent not in self.latents:
            raise DataError(f"latent {latent} is not in these attributions; attribute with --latent {latent}")
        rows = self.dataset.select(np.flatnonzero(self._column("latent") == latent)).to_list()
        return sorted(rows, key=lambda row: (row["kind"] != TOP, -(row["interval"] or 0), row["rank"]))

    def of_meme(self, identity: str) -> list[dict[str, Any]]:
        """The rows of a meme, the latents ascending."""
        return self.dataset.select(np.flatnonzero(self._column("id") == identity)).to_list()

    def scores(self, ids: np.ndarray) -> pd.DataFrame:
        """Of the rows of these memes: `latent`, `id`, `n_word`, `n_patch`, and the place of the largest score of
        either, -1 where there is none."""
        rows = np.flatnonzero(np.isin(self._column("id"), ids))
        columns = self.dataset.select(rows).select_columns(["latent", "id", "word_scores", "patch_scores"])[:]
        found: dict[str, Any] = {"latent": columns["latent"], "id": columns["id"]}
        for part in ("word", "patch"):
            scores = [values or [] for values in columns[f"{part}_scores"]]
            found[f"n_{part}"] = [len(values) for values in scores]
            found[f"strongest_{part}"] = [int(np.argmax(values)) if values else -1 for values in scores]
        return pd.DataFrame(found)

    def _column(self, name: str) -> np.ndarray:
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(self.dataset.data.column(name).to_pylist()) for name in ("latent", "id")}
