"""What a row number stands for: cached embeddings, or a picture with its caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_meme.errors import DataError
from sae_lens_meme.hooks.memeclip import unit_product
from sae_lens_meme.hooks.names import EMBEDDING_HOOKS

PIXELS, TOKENS = "pixels", "tokens"


@runtime_checkable
class CachedEmbeddings(Protocol):
    """What is used of `sae_lens_meme.embeddings.Embeddings`."""

    @property
    def hooks(self) -> Any: ...  # tuple[str, ...]; a cached_property is no such property to a type checker
    @property
    def label_names(self) -> Any: ...
    def __len__(self) -> int: ...
    def d_in(self, hook: str) -> int: ...
    def take(self, hook: str, rows: Any) -> Float[np.ndarray, "batch d_in"]: ...
    def rows(self, split: str) -> Int[np.ndarray, " n"]: ...
    def label(self, name: str) -> Any: ...


@runtime_checkable
class RowSource(Protocol):
    """Resolves row numbers into inputs of a model, and knows the rows' splits and labels."""

    def __len__(self) -> int: ...
    def take(self, rows: Int[np.ndarray, " batch"]) -> dict[str, Tensor]: ...
    def rows(self, split: str) -> Int[np.ndarray, " n"]: ...
    def label(self, name: str) -> tuple[Bool[np.ndarray, " n"], np.ndarray]: ...


class EmbeddingSource:
    """Rows of cached embeddings; `take` returns `{hook: float32 [batch, 1, d]}`."""

    def __init__(self, embeddings: CachedEmbeddings):
        if not (hasattr(embeddings, "take") and hasattr(embeddings, "hooks")):
            raise DataError(
                f"a {type(embeddings).__name__} is not embeddings; wrap a datasets.Dataset with Embeddings.from_dataset(dataset)"
            )
        self.embeddings = embeddings
        self.hooks = tuple(hook for hook in EMBEDDING_HOOKS if hook in embeddings.hooks)

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: Int[np.ndarray, " batch"]) -> dict[str, Tensor]:
        return {hook: torch.from_numpy(self.embeddings.take(hook, rows))[:, None] for hook in self.hooks}

    def is_product(self) -> bool:
        """Whether `hook_fused`, where both sides lie beside it, is what fusion clip makes of them, judged by eight rows."""
        if len(self.hooks) < len(EMBEDDING_HOOKS) or not len(self):
            return True
        rows = np.linspace(0, len(self) - 1, 8).astype(int)
        image, text, stored = (torch.from_numpy(self.embeddings.take(hook, rows)) for hook in EMBEDDING_HOOKS)
        if not image.shape == text.shape == stored.shape:
            return False
        return torch.allclose(unit_product(image, text), stored, rtol=0, atol=1e-2 * float(stored.abs().max()))

    def rows(self, split: str) -> Int[np.ndarray, " n"]:
        return self.embeddings.rows(split)

    def label(self, name: str) -> tuple[Bool[np.ndarray, " n"], np.ndarray]:
        label = self.embeddings.label(name)
        return label.known, label.values


class MemeSource:
    """Rows of pictures and captions; `take` returns `{"pixels": [batch, 3, h, w], "tokens": [batch, n_ctx]}`.

    Args:
        images: PIL images by row number (a list, or an image column of a dataset).
        texts: captions by row number, None where a meme has none.
        preprocess: that of the model's image tower.
        tokenize: that of its text tower.
        labels: `{name: values by row number}`, None where unknown.
        splits: the split of each row; without it every row is in each split.
    """

    def __init__(
        self,
        images: Sequence[Any],
        texts: Sequence[str | None],
        preprocess: Callable[[Any], Tensor],
        tokenize: Callable[[Sequence[str | None]], Tensor],
        labels: dict[str, Sequence[Any]] | None = None,
        splits: Sequence[str] | None = None,
    ):
        columns: dict[str, Any] = {"texts": texts, **({} if splits is None else {"splits": splits}), **(labels or {})}
        for name, column in columns.items():
            if column is None or len(column) != len(images):
                given = "no" if column is None else len(column)
                raise DataError(f"{len(images)} images but {given} {name}; give one per meme")
        self._images, self._texts = by_place(images), by_place(texts)
        self._preprocess, self._tokenize = preprocess, tokenize
        self._labels, self._splits = labels or {}, splits

    def __len__(self) -> int:
        return len(self._images)

    def take(self, rows: Int[np.ndarray, " batch"]) -> dict[str, Tensor]:
        pixels = torch.stack([self._preprocess(picture_at(self._images, int(row))) for row in rows])
        return {PIXELS: pixels, TOKENS: self.tokens(rows)}

    def tokens(self, rows: Int[np.ndarray, " batch"]) -> Int[Tensor, "batch n_ctx"]:
        """The captions alone; no picture is opened."""
        return self._tokenize([caption_at(self._texts, int(row)) for row in rows])

    def rows(self, split: str) -> Int[np.ndarray, " n"]:
        if self._splits is None:
            return np.arange(len(self))
        return np.flatnonzero(np.asarray(self._splits) == split)

    def label(self, name: str) -> tuple[Bool[np.ndarray, " n"], np.ndarray]:
        if name not in self._labels:
            raise DataError(
                f"label {name!r} is not among the labels of these memes: {', '.join(self._labels) or 'none'}"
            )
        values = np.array(list(self._labels[name]), dtype=object)
        return np.array([value is not None for value in values], dtype=bool), values


def by_place(column: Any) -> Any:
    """A column whose rows are counted from 0; a pandas Series would be read by its index."""
    return column.tolist() if hasattr(column, "iloc") else column


def picture_at(images: Sequence[Any], row: int) -> Any:
    """The picture of a row.

    Raises:
        DataError: it has none.
    """
    image = images[row]
    if image is None:
        raise DataError(f"row {row}: has no picture; drop the row or give its picture")
    if isinstance(image, (str, Path)):
        raise DataError(f"row {row}: the picture is {str(image)!r}; give it as a PIL image, PIL.Image.open makes one")
    return image


def caption_at(texts: Sequence[Any], row: int) -> str | None:
    """The caption of a row; None, or pandas' missing value, where it has none.

    Raises:
        DataError: it is no text.
    """
    text = texts[row]
    if text is None or isinstance(text, str):
        return text
    if pd.isna(text) is True:
        return None
    raise DataError(f"row {row}: the caption is {text!r}; give a text, None where there is none")


def require_rows(source: RowSource, rows: Int[np.ndarray, " batch"]) -> None:
    """Raise DataError on the first number that is not a row of the source."""
    outside = rows[(rows < 0) | (rows >= len(source))]
    if len(outside):
        raise DataError(f"row {int(outside[0])} is not one of the {len(source)} rows; the ids are row numbers from 0")


def class_indices(
    source: RowSource, task: str, classes: Sequence[Any], rows: Int[np.ndarray, " batch"]
) -> Int[Tensor, " batch"]:
    """Index into `classes` of each row's label.

    Raises:
        DataError: a row's label is unknown (missing is not negative) or none of the classes.
    """
    known, values = source.label(task)
    place = {value: index for index, value in enumerate(classes)}
    for row in rows:
        if not known[row]:
            raise DataError(
                f"row {row}: has no {task} label, so it has no loss; take rows of token_dataset(labelled=True)"
            )
        if values[row] not in place:
            raise DataError(
                f"row {row}: {task} is {values[row]!r}, which is not one of the head's classes {list(classes)}"
            )
    return torch.tensor([place[values[row]] for row in rows], dtype=torch.long)
