"""Reads any folder of pictures with a table: the ImageFolder convention, or a table and a column map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_lens_meme.corpus.columns import ColumnMap, column_map
from sae_lens_meme.corpus.layout import find_file, source_folder
from sae_lens_meme.corpus.rows import BadRows, Row, parse_label, safe_path
from sae_lens_meme.corpus.tables import SUFFIXES, Cells, Table, read_table
from sae_lens_meme.errors import BadTableError

Columns = Mapping[str, Any] | str | Path | None


def read_folder(path: str | Path, columns: Columns = None, bad: BadRows | None = None) -> list[Row]:
    """The rows of a table; pictures are found relative to the table.

    Args:
        path: a folder with `metadata.{csv,tsv,jsonl,parquet}` (or one table of any name), or the table itself.
        columns: see `sae_lens_meme.corpus.columns.column_map`.

    Raises:
        BadTableError: no table, a column is missing, or a row is bad and `bad` raises.
        ConfigError: the map has an unknown key.
    """
    path = Path(path)
    bad = bad or BadRows()
    file = path if path.is_file() else _find_table(source_folder(path, "your memes"))
    table = read_table(file)
    mapping = column_map(columns, table)
    source = file.resolve().parent.name
    rows = []
    for number, cells in enumerate(table.rows, start=1):
        try:
            rows.append(_row(table, mapping, source, number, cells))
        except BadTableError as error:
            bad.add(file, number, _identity(mapping, cells), error)
    return rows


def _find_table(root: Path) -> Path:
    return find_file(root, [f"metadata{suffix}" for suffix in SUFFIXES], or_only=SUFFIXES)


def _row(table: Table, columns: ColumnMap, default_source: str, number: int, cells: Cells) -> Row:
    image = cells[columns.image] or ""
    source = _filled(cells, columns.source) if columns.source else default_source
    text = cells[columns.text] if columns.text else None
    return Row(
        id=_with_source(source, _filled(cells, columns.id) if columns.id else image),
        source=source,
        split=_filled(cells, columns.split) if columns.split else None,
        image_path=safe_path(table.path.parent, image),
        text=text,
        text_origin="none" if text is None else "dataset",
        labels={name: parse_label(name, cells[where.column], where.values) for name, where in columns.labels.items()},
        image=image,
        file=table.path,
        row=number,
    )


def _with_source(source: str, identity: str) -> str:
    return identity if identity.startswith(f"{source}/") else f"{source}/{identity}"


def _filled(cells: Cells, column: str) -> str:
    cell = cells[column]
    if not cell:
        raise BadTableError(f"column {column!r} is empty; fill it")
    return cell


def _identity(columns: ColumnMap, cells: Cells) -> str:
    return (cells[columns.id] if columns.id else cells[columns.image]) or ""
