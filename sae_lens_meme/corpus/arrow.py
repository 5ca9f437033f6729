"""Parquet and Arrow files: cells as Python values, pictures left where they are until they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from sae_lens_meme.corpus.pictures import Embedded
from sae_lens_meme.corpus.tables import NoClass, NotText
from sae_lens_meme.errors import BadTableError

Chunk = Callable[[int, Sequence[str]], pa.Table]
"""Some columns of the i-th part of a file."""


def read_arrow(path: Path) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """Columns, rows without the pictures, and `pictures` and `classes` of a `Table`.

    Raises:
        BadTableError: the file is damaged.
    """
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
    try:
        return _content(*(_parquet(path) if kind == "Parquet" else _arrow(path)))
    except Exception as error:  # whatever the bytes of a stranger make of Arrow
        reason = " ".join(str(error).split())[:200]
        raise BadTableError(f"{path.name}: cannot be read as {kind} ({reason}); write it again") from None


def arrow_in_memory(data: Any) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """The same of a pandas or polars DataFrame, a pyarrow Table, a `datasets.Dataset`, columns by name, or a list of rows.

    Raises:
        BadTableError: it is none of these, or a column holds values of several kinds.
    """
    table = as_arrow(data)
    return _content(table.schema, 1, lambda _, columns: table.select(list(columns)))


def as_arrow(data: Any) -> pa.Table:
    """A pyarrow Table of what is in memory, see `arrow_in_memory`."""
    try:
        if isinstance(data, pa.Table):
            return data
        if hasattr(data, "to_arrow"):  # polars
            return data.to_arrow()
        if hasattr(data, "with_format"):  # datasets
            return data.with_format("arrow")[:]
        if isinstance(data, Mapping):
            return pa.table({name: _cells(values) for name, values in data.items()})
        if hasattr(data, "iloc"):  # pandas
            named = [name for name in data.index.names if name is not None and name not in data.columns]
            return pa.Table.from_pandas(data.reset_index(level=named) if named else data, preserve_index=False)
        if isinstance(data, Sequence) and not isinstance(data, str) and all(isinstance(row, Mapping) for row in data):
            return pa.Table.from_pylist(list(data))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadTableError(f"table: cannot be read ({reason}); give each column values of one kind") from None
    raise BadTableError(
        f"table: is a {type(data).__name__}; give a DataFrame, a Dataset, a mapping of columns or a list of rows"
    )


def _cells(values: Any) -> list[Any]:
    """Tensors as numbers, masked values as missing, numpy's own byte strings as text."""
    if hasattr(values, "detach") or isinstance(values, np.ma.MaskedArray):
        return values.tolist()
    if isinstance(values, np.ndarray) and values.dtype.kind == "S":
        return np.char.decode(values, "utf-8").tolist()
    return list(values)


def _content(schema: pa.Schema, n_chunks: int, chunk: Chunk) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    pictures = [field.name for field in schema if _is_picture(field.type)]
    texts = [field.name for field in schema if field.name not in pictures]
    rows = [row for i in range(n_chunks) for row in _rows(chunk(i, texts))]
    columns = {name: _embedded(n_chunks, lambda i, name=name: chunk(i, [name])) for name in pictures}
    classes = {name: names for name, names in _classes(schema).items() if name in texts}
    for name, names in classes.items():
        for row in rows:
            row[name] = _class(name, row[name], names)
    return schema.names, rows, {"pictures": columns, "classes": classes}


def _class(column: str, code: Any, names: Sequence[str]) -> str | NoClass | None:
    if code is None or code == -1:  # as `datasets` spells a missing class
        return None
    return names[code] if isinstance(code, int) and 0 <= code < len(names) else NoClass(column, code, len(names))


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The cells; Arrow itself stops at the first text that is not UTF-8, and does not say in which row it is."""
    try:
        return table.to_pylist()
    except UnicodeDecodeError:
        cells = {name: _decoded(name, table[name]) for name in table.column_names}
        return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _decoded(name: str, column: pa.ChunkedArray) -> list[Any]:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.to_pylist()
    raw = column.cast(pa.binary() if pa.types.is_string(column.type) else pa.large_binary()).to_pylist()
    return [None if cell is None else _decode(name, cell) for cell in raw]


def _decode(name: str, cell: bytes) -> str | NotText:
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError as error:
        return NotText(name, cell[error.start])


def _parquet(path: Path) -> tuple[pa.Schema, int, Chunk]:
    file, lock = parquet.ParquetFile(path), Lock()

    def chunk(i: int, columns: Sequence[str]) -> pa.Table:
        with lock:  # pictures are asked for by several threads
            return file.read_row_group(i, columns=list(columns))

    return file.schema_arrow, file.num_row_groups, chunk


def _arrow(path: Path) -> tuple[pa.Schema, int, Chunk]:
    """The stream format in which `datasets` saves, mapped into memory."""
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    table.validate(full=True)
    batches = table.to_batches()
    return table.schema, len(batches), lambda i, columns: pa.Table.from_batches([batches[i]]).select(list(columns))


def _is_picture(kind: pa.DataType) -> bool:
    """Bytes, or the struct of bytes and path that a Hugging Face `Image` is."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _embedded(n_chunks: int, read: Callable[[int], pa.Table]) -> list[Embedded]:
    @lru_cache(maxsize=2)  # rows come in order: one chunk is in use, or two at their border
    def data(i: int) -> tuple[pa.Array, Sequence[str | None]]:
        column = read(i).column(0).combine_chunks()
        if not pa.types.is_struct(column.type):
            return column, [None] * len(column)
        parts = dict(zip((part.name for part in column.type), column.flatten(), strict=True))
        return parts["bytes"], parts["path"].to_pylist()

    def picture(i: int, j: int) -> Any:
        return data(i)[0][j].as_py()

    found = []
    for i in range(n_chunks):
        pictures, paths = data(i)
        sizes = pc.binary_length(pictures).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
        found += [Embedded(partial(picture, i, j), sizes[j], paths[j]) for j in range(len(sizes))]
    return found


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the columns that `datasets` has written as classes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        found = {name: kind.get("names") for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, RecursionError):  # metadata of someone else
        return {}
    return {name: list(map(str, names)) for name, names in found.items() if isinstance(names, list)}
