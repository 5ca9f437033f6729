"""The columns of embeddings: one fixed-width vector per row and hook, in the layout of SAELens' cached activations.

A row is a meme, or a token of a picture (`row_kind`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Array2D, Dataset, Features, Value

from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.labels import LABELS, NOT_LABELS, TOKEN_COLUMNS


def token_features() -> dict[str, Any]:
    """The types of `labels.TOKEN_COLUMNS`."""
    return {
        name: [Value(kind.strip("[]"))] if kind.startswith("[") else Value(kind) for name, kind in TOKEN_COLUMNS.items()
    }


def distinct(column: pa.ChunkedArray) -> tuple[list[Any], np.ndarray]:
    """The distinct cells of a column, and for each row the place of its own among them, int64 [rows]."""
    try:
        cells = column.unique()
        place = pc.index_in(column, cells)  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowNotImplementedError:  # lists and structs
        return [None if cell is None else str(cell) for cell in column.to_pylist()], np.arange(len(column))
    return cells.to_pylist(), np.asarray(place, dtype=np.int64)


def embedding_features(described: dict[str, Any], widths: dict[str, int]) -> Features:
    """The columns of embeddings on disk: what describes the memes, then one `Array2D((1, d), "float32")` a hook.

    The shape is the one that SAELens' cached-activations reader asks for, with a context of one.
    """
    return Features({**described, **{hook: Array2D((1, d), "float32") for hook, d in widths.items()}})


def require_finite(x: np.ndarray, hook: str, ids: Sequence[str] | np.ndarray, rows: np.ndarray | None = None) -> None:
    """As `Embeddings.require_finite`, for vectors in memory; `rows` are their numbers, default 0, 1, ..."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(x.sum()):  # one pass without a copy; only a suspicious sum is looked at again
            return
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        row = int(bad[0] if rows is None else rows[bad[0]])
        value = x[bad[0]][~np.isfinite(x[bad[0]])][0]
        raise NonFiniteError(
            f"{hook}, row {row} (id {str(ids[row])!r}): holds {value} ({bad.size} such rows here, counted from 0); "
            "remove the meme or embed it again"
        )


def require_text(where: str, name: str) -> None:
    """A column of bytes is left out, and so may not be called as one that describes a meme, nor as one of the eight labels.

    Raises:
        DataError: it is.
    """
    if name in (*NOT_LABELS, *LABELS) and name != "image":
        raise DataError(f"{where}: column {name!r} holds bytes; write text, or leave it out")


def is_bytes(kind: Any) -> bool:
    """Whether a column of a dataset holds bytes."""
    return isinstance(kind, Value) and kind.dtype in ("binary", "large_binary")


def require_layout(dataset: Dataset, where: str) -> None:
    """Raises DataError where vectors are not one per meme (one meme's positions would be read as several memes), or text is bytes."""
    for name, kind in dataset.features.items():
        if is_bytes(kind):
            require_text(where, name)
        if isinstance(kind, Array2D):
            shape, width = list(kind.shape), kind.shape[-1] if len(kind.shape) else None
            if (
                shape != [1, width]
                or not isinstance(width, int)
                or width < 1
                or not str(kind.dtype).startswith("float")
            ):
                raise DataError(f"{where}: {name} has shape {shape} and type {kind.dtype}, not (1, d) and float32")


def matrix_of(chunk: Any, d: int) -> np.ndarray:
    """A zero-copy float32 [rows, d] view of one Arrow chunk of an Array2D((1, d)) column."""
    storage = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
    numbers = storage.flatten().flatten().to_numpy(zero_copy_only=True)
    if len(numbers) != len(chunk) * d:
        raise DataError(f"embeddings: {len(numbers):,} numbers for {len(chunk):,} vectors of width {d}; embed again")
    return numbers.reshape(-1, d)
