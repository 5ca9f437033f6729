"""The pictures of a corpus, opened on access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, Image

from sae_lens_meme.images import open_image


class Pictures(Sequence[Any]):
    """The pictures of a corpus by row number, opened by `open_image`."""

    def __init__(self, rows: Dataset):
        self._rows = rows.select_columns(["id", "image"]).cast_column("image", Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        meme = self._rows[row]
        return open_image(meme["image"]["bytes"], name=meme["id"])
