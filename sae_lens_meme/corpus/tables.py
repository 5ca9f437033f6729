"""Reads CSV, TSV, JSONL and Parquet to strings, and changes no caption on the way.

Every cell is the text that the file holds, or None where it holds nothing: in a CSV an unquoted
empty field is missing and a quoted one is the empty string.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from sae_lens_meme.errors import BadTableError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Cells = Mapping[str, str | None]


@dataclass(frozen=True)
class Table:
    """The rows of one file; a row is a mapping from column to text or None."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Cells]

    def require(self, columns: Sequence[str]) -> None:
        """Raises BadTableError that names the columns that are there."""
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise BadTableError(
                f"{self.path.name}: has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, self.columns))}"
            )


def read_table(path: str | Path) -> Table:
    """Read a whole table.

    Raises:
        BadTableError: unknown kind, not UTF-8 (with the byte's offset), ragged, damaged, no rows;
            the message names file and row.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadTableError(f"{path.name}: is none of {', '.join(SUFFIXES)}; convert it")
    if not path.is_file():
        raise BadTableError(f"{path}: no such file; check the path")
    table = reader(path)
    if not table.rows:
        raise BadTableError(f"{path.name}: has no rows; give a table with at least one meme")
    return table


def _read_csv(path: Path) -> Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    text = _decode(path)
    records = list(_csv_records(path, text, delimiter))
    if not records:
        raise BadTableError(f"{path.name}: is empty; give a table with a header and rows")
    header = records[0]
    _check_header(path, header)
    columns = _csv_columns(path, text, delimiter, len(header))
    rows = [dict(zip(header, cells, strict=True)) for cells in zip(*columns, strict=True)][1:]
    _check_agreement(path, records, columns)
    return Table(path, tuple(header), rows)


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    """The standard library's reader: strict about quotes and about the number of fields."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    width, number = 0, 0
    try:
        for record in reader:
            if not record:  # a blank line
                continue
            width = width or len(record)
            if len(record) != width:
                raise BadTableError(
                    f"{path.name}, row {number}: has {len(record)} fields, the header has {width}; quote fields that hold {delimiter!r} or a newline"
                )
            yield record
            number += 1
    except csv.Error as error:
        raise BadTableError(f"{path.name}, row {number}: {error}; check the quotes of this row") from None


def _csv_columns(path: Path, text: str, delimiter: str, width: int) -> list[list[str | None]]:
    """Arrow's reader: the one that tells a missing field from an empty one."""
    data = text.encode()
    names = [str(i) for i in range(width)]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # one block: a caption may be longer than a block
            read_options=arrow_csv.ReadOptions(block_size=len(data) + 1, use_threads=False, column_names=names),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.large_string() for name in names},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise BadTableError(f"{path.name}: {_one_line(error)}; check the quotes of the table") from None
    return [column.to_pylist() for column in table.columns]


def _check_agreement(path: Path, records: list[list[str]], columns: list[list[str | None]]) -> None:
    """Two readers see the same text, or a caption would come out changed."""
    for row, (record, cells) in enumerate(zip_longest(records, zip(*columns, strict=True))):
        if cells is None or record != [cell or "" for cell in cells]:
            raise BadTableError(
                f"{path.name}, row {row}: its quotes or line ends are ambiguous; quote every field of this row"
            )


def _read_jsonl(path: Path) -> Table:
    rows = []
    for number, line in enumerate(_decode(path).split("\n"), start=1):  # not splitlines: U+2028 is text
        if line.strip():
            rows.append(_json_row(path, number, line))
    columns = dict.fromkeys(name for row in rows for name in row)
    return Table(path, tuple(columns), [{name: row.get(name) for name in columns} for row in rows])


def _json_row(path: Path, number: int, line: str) -> dict[str, str | None]:
    try:
        # numbers stay as they are spelled: 1e5 must not become 100000.0, nor 007 seven
        row = json.loads(line, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, RecursionError, BadTableError) as error:
        raise BadTableError(f"{path.name}, row {number}: is not valid JSON ({error}); correct this line") from None
    if not isinstance(row, dict):
        raise BadTableError(f"{path.name}, row {number}: is not an object of columns; write one JSON object a line")
    return {name: _cell(path, number, value) for name, value in row.items()}


def _refuse_constant(name: str) -> None:
    raise BadTableError(f"{name} is not JSON, write null")


def _read_parquet(path: Path) -> Table:
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadTableError(f"{path.name}: cannot be read as Parquet ({_one_line(error)}); write it again") from None
    _check_header(path, table.column_names)
    # an embedded picture is no text: neither a caption nor a label nor a path
    table = table.select([field.name for field in table.schema if not _holds_bytes(field.type)])
    rows = [
        {name: _cell(path, number, value) for name, value in row.items()}
        for number, row in enumerate(table.to_pylist(), start=1)
    ]
    return Table(path, tuple(table.column_names), rows)


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _cell(path: Path, number: int, value: Any) -> str | None:
    """Text of one value; the lines of a list are joined by a space."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list):
        parts = [_cell(path, number, part) for part in value]
        return " ".join(part for part in parts if part)
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadTableError(
            f"{path.name}, row {number}: {text[error.start : error.end]!r} is half a character (a lone surrogate); correct the text"
        ) from None
    return text


def _decode(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadTableError(
            f"{path.name}: byte 0x{error.object[error.start]:02x} at offset {error.start} is not UTF-8; save the table as UTF-8"
        ) from None
    except OSError as error:
        raise BadTableError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    repeated = sorted({name for name in header if list(header).count(name) > 1})
    if repeated:
        raise BadTableError(
            f"{path.name}: the column {repeated[0]!r} occurs more than once; give every column its own name"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
