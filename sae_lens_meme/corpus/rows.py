"""What a reader is and yields: one `Row` per meme, its labels checked, its picture's path safe but not opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.corpus.columns import ColumnMap
from sae_lens_meme.corpus.pictures import Embedded
from sae_lens_meme.corpus.skipped import BadCell, BadRow, BadRows, place
from sae_lens_meme.corpus.tables import Cells, ObjectText, Table
from sae_lens_meme.labels import LEVELS, is_missing, whole_number


@dataclass(frozen=True)
class Row:
    """One meme as its source describes it. `split` is the release's own word, None where it has none."""

    id: str
    source: str
    split: str | None
    picture: Path | Embedded
    text: str | None
    text_origin: str
    labels: Mapping[str, int | None]
    image: str  # as the table spells it
    file: Path
    row: int  # 1 is the first row below the header
    group: str | None = None  # the value of the column that the map calls `group`

    def __hash__(self) -> int:  # labels are a dict
        return hash((self.file, self.row))

    @property
    def where(self) -> str:
        return place(self.file.name, self.row, self.id)

    def as_bad(self, kind: str, reason: str) -> BadRow:
        return BadRow(
            self.file.name, self.row, self.id, reason, kind, self.source, {**self.labels, "split": self.split}
        )


@dataclass(frozen=True)
class Layout:
    """How the rows of a table become memes."""

    columns: ColumnMap
    source: str
    root: Path  # below it are the pictures
    folder: str = ""  # in which of its folders, with a slash behind; the user may have made it a link
    strip: str = ""  # a folder that the table writes before a picture's name, and that is not part of the id
    split: str | None = None  # of all rows, where no column has it
    no_text: tuple[str, ...] = ()  # captions that stand for none
    ids: tuple[str, ...] | None = None  # of embedded pictures without names


def table_rows(table: Table, layout: Layout, bad: BadRows) -> list[Row]:
    """The rows of a table.

    Raises:
        BadTableError: a row is bad and `bad` raises.
    """
    rows = []
    for number, cells in enumerate(table.rows, start=1):
        labels, unreadable = _labels(layout.columns, cells)
        image = image_name(table, layout.columns, number - 1)
        try:
            if number in table.faults:
                raise BadCell("unreadable row", table.faults[number])
            row = _row(table, layout, number, image, labels)
            if unreadable:
                raise unreadable
            rows.append(row)
        except BadCell as error:
            columns = layout.columns
            values = {**labels, "split": cells.get(columns.split or "") or layout.split}
            source = _source(layout, cells)
            identity = cells.get(columns.id, "") if columns.id else image
            bad.add(BadRow(table.path.name, number, identity or "", str(error), error.kind, source, values))
    return rows


def image_name(table: Table, columns: ColumnMap, i: int) -> str:
    """How the table calls the picture of row i; empty where it does not."""
    pictures = table.pictures.get(columns.image)
    return (pictures[i].path if pictures else table.rows[i][columns.image]) or ""


def _row(table: Table, layout: Layout, number: int, image: str, labels: Mapping[str, int | None]) -> Row:
    columns, cells = layout.columns, table.rows[number - 1]
    source = _source(layout, cells)
    embedded = table.pictures.get(columns.image)
    name = image.removeprefix(layout.strip)
    identity = _filled(cells, columns.id) if columns.id else layout.ids[number - 1] if layout.ids else name
    held = embedded is not None and embedded[number - 1].size is not None
    if "\0" in f"{source}{identity}":
        raise BadCell("bad id", f"the id {_short(f'{source}/{identity}')} holds a NUL character; correct it")
    text = next((cells[column] for column in columns.text if cells[column] is not None), None)
    if isinstance(text, ObjectText):
        raise BadCell("caption of several parts", f"the caption is the object {_short(text)}; map a column of text")
    text = None if text in layout.no_text else text
    return Row(
        id=identity if identity.startswith(f"{source}/") else f"{source}/{identity}",
        source=source,
        split=_split(cells, columns.split) if columns.split else layout.split,
        picture=embedded[number - 1] if embedded and held else safe_path(layout.root, name, layout.folder),
        text=text,
        text_origin="none" if text is None else "dataset",
        labels=labels,
        image=image or identity,
        file=table.path,
        row=number,
        group=None if columns.group is None or is_missing(cells[columns.group]) else cells[columns.group],
    )


def _labels(columns: ColumnMap, cells: Cells) -> tuple[dict[str, Any], BadCell | None]:
    """The labels of a row, as text where they cannot be read, and why the first of those cannot."""
    values: dict[str, Any] = {}
    problems = []
    for name, where in columns.labels.items():
        cell = cells.get(where.column)
        try:
            values[name] = parse_label(name, cell, where.values)
        except BadCell as error:
            values[name] = cell
            problems.append(error)
    return values, next(iter(problems), None)


def _source(layout: Layout, cells: Cells) -> str:
    """Of a row whose source is missing, as of a table without one: that of the layout."""
    cell = cells.get(layout.columns.source) if layout.columns.source else None
    return layout.source if cell is None or is_missing(cell) else cell


def _filled(cells: Cells, column: str) -> str:
    cell = cells[column]
    if not cell:
        raise BadCell(f"empty {column}", f"column {column!r} is empty; fill it")
    return cell


def _split(cells: Cells, column: str) -> str:
    if is_missing(cell := cells[column]):
        raise BadCell("missing split", f"column {column!r} is {cell!r}; name the split, or map split: null")
    return str(cell)


def parse_label(label: str, cell: str | None, values: Mapping[str, int] | None = None) -> int | None:
    """The value of one cell: a level's name, a truth value or an integer; None where the cell is missing.

    Args:
        values: what each spelling stands for, instead of the label's own levels.

    Raises:
        BadTableError: the cell is not a value of this label.
    """
    if cell is None:
        return None
    if values is not None:
        number = whole_number("", cell)
        spelled = [cell, cell.strip(), *([] if number is None else [str(number)])]  # `1.0` means the listed 1
        spelling = next((s for s in spelled if s in values), None)
        allowed = list(values)
        value = None if spelling is None else values[spelling]
    else:
        value = whole_number(label, cell)
        levels = LEVELS.get(label, {})
        allowed = [f"{level} ({name})" for level, name in levels.items()] or ["an integer"]
        value = value if not levels or value in levels else None
    if value is None and not is_missing(cell):
        raise BadCell(
            f"unreadable {label} label", f"{label} is {_short(cell)}, allowed: {', '.join(allowed)}; correct the value"
        )
    return value


def safe_path(root: Path, name: str, folder: str = "") -> Path:
    """The file called `name` in `folder` (ends in a slash) of `root`; the folder itself may be a link.

    Raises:
        BadTableError: the name leads out of the folder (absolute, `..`, a link) or is not a plain path.
    """
    parts = re.split(r"[/\\]", name)
    if not name or "\0" in name or "\\" in name or "://" in name or name.startswith(("/", "file:")) or ".." in parts:
        raise BadCell(
            "bad picture path", f"image path {_short(name)} is not a plain path inside {root.name!r}; correct the path"
        )
    base = root / folder
    path = base / name
    real = os.path.realpath(base)
    if os.path.commonpath([real, os.path.realpath(path)]) != real:
        raise BadCell(
            "bad picture path", f"image path {name!r} is a link that leads outside {base.name!r}; copy the file"
        )
    return path


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:97]}...")


class Reader(NamedTuple):
    """Reads one kind of source.

    `read(folder, bad=bad)` gives the rows; what cannot be used goes to `bad.add`. The name is the option of the
    command line, the key of a recipe and the keyword of `build_corpus`.
    """

    name: str
    read: Callable[..., list[Any]]
    help: str
    provenance: str = ""
    """Where such memes come from and on what terms, for the dataset card."""
    note: str = ""
    """How its labels were changed, for the dataset card."""
    takes: tuple[str, ...] = ()
    """Further options of the corpus that `read` takes by keyword."""
    kind: Any = None
    """The type of its option, where that is not a path."""
