"""Reads CSV, TSV, JSONL, Parquet and Arrow to strings, and changes no caption on the way.

Every cell is the text that the file holds, or None where it holds nothing: in a CSV an unquoted
empty field is missing and a quoted one is the empty string.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.corpus.pictures import Embedded
from sae_lens_meme.errors import BadTableError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
TAR = ".tar"

Cells = Mapping[str, str | None]
Faults = dict[int, str]
"""Rows, from 1, that cannot be read, and why."""


class NotText(NamedTuple):
    """A cell of text whose bytes are not."""

    column: str
    byte: int


class ObjectText(str):
    """The text of a cell that holds an object: it can be looked at, but is not a caption."""


class NoClass(NamedTuple):
    """A cell of a column of classes whose code is none of them."""

    column: str
    code: Any
    n_classes: int


@dataclass(frozen=True)
class Table:
    """The rows of one file; a row is a mapping from column to text or None."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Cells]
    pictures: Mapping[str, Sequence[Embedded]] = field(default_factory=dict)
    """Columns of embedded pictures; they are not in `rows`."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names that a column of classes has; its cells hold names, not codes."""
    faults: Mapping[int, str] = field(default_factory=dict)
    """Rows, from 1, that cannot be read, and why; what of them can be is in `rows`."""

    def require(self, columns: Sequence[str], hint: str = "") -> None:
        """Raises BadTableError that names the columns that are there."""
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise BadTableError(
                f"{self.path.name}: has no column {', '.join(map(repr, missing))};"
                f" it has {', '.join(map(repr, self.columns))}{hint}"
            )


def read_table(path: str | Path, *, keep_faults: bool = False, delimiter: str = "", kind: str = "") -> Table:
    """Read a whole table.

    Args:
        keep_faults: a row that cannot be read is not raised but listed in `Table.faults`.
        delimiter: of a CSV, default a tab for .tsv and else a comma.
        kind: one of `SUFFIXES`, where the name of the file does not say it.

    Raises:
        BadTableError: unknown kind, not UTF-8 (with the byte's offset), ragged, damaged, no rows;
            the message names file and row.
    """
    path = Path(path)
    kind = kind or path.suffix.lower()
    if kind not in (*SUFFIXES, ".arrow", TAR):
        raise BadTableError(f"{path.name}: is not one of {', '.join(SUFFIXES)}; convert it")
    if not path.is_file():
        raise BadTableError(f"{path}: no such file; check the path")
    faults: Faults = {}
    if kind in (".parquet", ".arrow"):
        from sae_lens_meme.corpus.arrow import read_arrow  # pyarrow takes its time to import

        columns, rows, rest = read_arrow(path)
    elif kind == TAR:
        from sae_lens_meme.corpus.tars import read_tar

        columns, rows, rest = read_tar(path, faults)
    elif kind == ".jsonl":
        columns, rows = _read_jsonl(path, faults)
        rest = {}
    else:
        columns, rows = _read_csv(path, delimiter or ("\t" if kind == ".tsv" else ","), faults)
        rest = {}
    return _checked(path, columns, rows, rest, faults, keep_faults)


def table_of(data: Any, name: str = "table") -> Table:
    """A table that is in memory: a pandas or polars DataFrame, a pyarrow Table, a `datasets.Dataset`, columns by name, rows.

    Args:
        name: what messages call it.

    Raises:
        BadTableError: it is none of these; a column holds values of several kinds; it has no rows.
    """
    from sae_lens_meme.corpus.arrow import arrow_in_memory

    return _checked(Path(name), *arrow_in_memory(data), {}, keep_faults=False)


def _checked(
    path: Path, columns: list[str], rows: list[dict[str, Any]], rest: dict[str, Any], faults: Faults, keep_faults: bool
) -> Table:
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise BadTableError(
            f"{path.name}: the column {repeated[0]!r} occurs more than once; give every column its own name"
        )
    if not rows or not columns:
        raise BadTableError(f"{path.name}: has no rows; give a table with at least one meme")
    texts = [name for name in columns if name not in rest.get("pictures", ())]
    cells = [{name: _text(row[name], n, faults) for name in texts} for n, row in enumerate(rows, start=1)]
    if faults and not keep_faults:
        number = min(faults)
        raise BadTableError(f"{path.name}, row {number}: {faults[number]}")
    if len(faults) == len(rows):
        raise BadTableError(f"{path.name}: no row can be read, the first {faults[1]}")
    return Table(path, tuple(columns), cells, faults=faults, **rest)


def derived(table: Table, columns: Mapping[str, Sequence[str | None]]) -> Table:
    """The table with further columns, one cell per row."""
    added = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    rows = [{**row, **more} for row, more in zip(table.rows, added, strict=True)]
    return replace(table, columns=tuple(dict.fromkeys([*table.columns, *columns])), rows=rows)


def cells_of(values: Mapping[str, Any]) -> tuple[Cells, str | None]:
    """The cells of one row, and why it cannot be read, None if it can."""
    faults: Faults = {}
    return {name: _text(value, 1, faults) for name, value in values.items()}, faults.get(1)


def read_values(path: Path, width: int, delimiter: str) -> list[list[str | None]]:
    """The records of a CSV without a header.

    Raises:
        BadTableError: a record has another width.
    """
    records = list(_csv_records(path, read_text(path), delimiter))
    for number, record in enumerate(records, start=1):
        if len(record) != width:
            raise BadTableError(f"{path.name}, row {number}: has {len(record)} fields, not {width}; download it again")
    return records


def _text(value: Any, number: int, faults: Faults) -> str | None:
    try:
        return cell_text(value)
    except BadTableError as error:
        faults.setdefault(number, str(error))
        return None


def _read_csv(path: Path, delimiter: str, faults: Faults) -> tuple[list[str], list[dict[str, str | None]]]:
    records = _csv_records(path, read_text(path), delimiter)
    header = [name or "" for name in next(records, [])]
    if not header:
        raise BadTableError(f"{path.name}: is empty; give a table with a header and rows")
    rows = []
    for number, record in enumerate(records, start=1):
        if len(record) != len(header):
            faults[number] = (
                f"has {len(record)} fields, the header has {len(header)};"
                f" quote fields that hold {delimiter!r} or a newline"
            )
        padded = [*record, *[None] * len(header)][: len(header)]
        rows.append(dict(zip(header, padded, strict=True)))
    return header, rows


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[list[str | None]]:
    """RFC 4180, strictly. Python's `csv` before 3.13 cannot tell an empty field from a missing one."""
    field = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{delimiter}\r\n][^{delimiter}\r\n]*)?)({delimiter}|\r\n?|\n|\Z)')
    number, record, position = 0, [], 0
    while position < len(text) or record:
        found = field.match(text, position)
        if found is None:
            raise BadTableError(
                f"{path.name}, row {number}: a quoted field is not closed, or text follows its last quote;"
                " check the quotes of this row"
            )
        quoted, plain, end = found.groups()
        record.append(plain if quoted is None else quoted.replace('""', '"'))
        position = found.end()
        if end == delimiter:
            continue
        if record != [None]:  # a blank line
            yield record
            number += 1
        record = []


def _read_jsonl(path: Path, faults: Faults) -> tuple[list[str], list[dict[str, Any]]]:
    lines = [line for line in read_text(path).split("\n") if line.strip()]  # not splitlines: U+2028 is text
    rows = [_json_row(number, line, faults) for number, line in enumerate(lines, start=1)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if faults and not columns:
        raise BadTableError(f"{path.name}, row 1: {faults[1]}")
    return columns, [{name: row.get(name) for name in columns} for row in rows]


def _json_row(number: int, line: str, faults: Faults) -> dict[str, Any]:
    try:
        return json_columns(line)
    except TypeError:
        faults[number] = "is not an object of columns; write one JSON object per line"
    except (json.JSONDecodeError, RecursionError, BadTableError) as error:
        faults[number] = f"is not valid JSON ({error}); correct this line"
    return {}


def json_columns(text: str) -> dict[str, Any]:
    """The columns of one JSON object; numbers stay as they are spelled: 1e5 must not become 100000.0, nor 007 seven.

    Raises:
        BadTableError: a key occurs twice, or a number is none.
        TypeError: it is valid, but no object.
    """
    spelled = {"parse_int": str, "parse_float": str, "parse_constant": _refuse_constant}
    row = json.loads(text, object_pairs_hook=_columns_of, **spelled)
    if not isinstance(row, dict):
        raise TypeError("it is not an object of columns")
    return row


def _columns_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        repeated = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise BadTableError(f"the key {repeated!r} occurs twice")
    return row


def _refuse_constant(name: str) -> None:
    raise BadTableError(f"{name} is not JSON, write null")


def cell_text(value: Any) -> str | None:
    """Text of one value; the lines of a list are joined by a space.

    Raises:
        BadTableError: the text cannot be written.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, NotText):
        raise BadTableError(f"{value.column!r} holds the byte 0x{value.byte:02x}, which is not UTF-8; save it as UTF-8")
    if isinstance(value, NoClass):
        raise BadTableError(
            f"{value.column!r} is {value.code}, its classes are 0 to {value.n_classes - 1} (-1: missing); correct the value"
        )
    if isinstance(value, list):
        parts = [cell_text(part) for part in value]
        return " ".join(part for part in parts if part)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ObjectText(value)
    text = value if isinstance(value, str) else str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadTableError(
            f"{text[error.start : error.end]!r} is half a character (a lone surrogate); correct the text"
        ) from None
    return text


def read_text(path: Path) -> str:
    """UTF-8, without a byte order mark; raises BadTableError with the offset of a byte that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadTableError(
            f"{path.name}: byte 0x{error.object[error.start]:02x} at offset {error.start} is not UTF-8; save the table as UTF-8"
        ) from None
    except OSError as error:
        raise BadTableError(f"{path}: cannot be read ({error.strerror}); check the path") from None
