"""Reads any folder of pictures with a table: ImageFolder, the Hub's layouts, or a table and a column map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, Columns, column_map
from sae_lens_meme.corpus.layout import Found, find_tables, picture_folder, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, image_name, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import Table, read_table
from sae_lens_meme.labels import LEVELS, class_values, whole_number


def read_folder(path: str | Path, columns: Columns = None, bad: BadRows | None = None) -> list[Row]:
    """The rows of a table; pictures are in it, beside it, in a folder beside it, or where the map says.

    Args:
        path: a folder (`sae_lens_meme.corpus.layout.find_tables` says in which layouts), or one table.
        columns: see `sae_lens_meme.corpus.columns.column_map`.

    Raises:
        BadTableError: no table, a column is missing, or a row is bad and `bad` raises.
        ConfigError: the map has an unknown key.
    """
    path, bad = Path(path), bad or BadRows()
    if path.is_file():
        return read_tables([(None, path)], path.parent, columns, bad)
    root = source_folder(path, "your memes")
    tables = find_tables(root)
    if tables.unread:
        files = _shown([file.relative_to(root).as_posix() for file in tables.unread])
        split, file = tables.read[0]
        why = f"{file.name} is" if split is None else "their names are not those of splits"
        bad.notes.append(f"files of {root.resolve().name} that were not read ({why}): {files}")
    return read_tables(tables.read, root, columns, bad)


def read_tables(
    found: Sequence[Found], root: Path, columns: Columns, bad: BadRows | None, source: str | None = None
) -> list[Row]:
    """The rows of these tables as one source, which is called after the folder unless it has a name of its own."""
    bad = bad or BadRows()
    tables = [(split, read_table(file, keep_faults=True)) for split, file in found]
    maps = [column_map(columns, table) for _, table in tables]
    bad.notes += _unread(maps, source or root.resolve().name)
    bad.notes += dict.fromkeys(
        note for (_, table), mapping in zip(tables, maps, strict=True) for note in _coded(table, mapping)
    )
    names = [
        [image_name(table, mapping, i) for i in range(len(table.rows))]
        for (_, table), mapping in zip(tables, maps, strict=True)
    ]
    every = [name for part in names for name in part]
    unique = "" not in every and len(set(every)) == len(every)
    rows = []
    for (split, table), mapping, images in zip(tables, maps, names, strict=True):
        layout = replace(_layout(table, root, mapping, images, source), split=split)
        if table.pictures and not unique:  # embedded pictures need no name
            name = table.path.relative_to(root).with_suffix("").as_posix()
            layout = replace(layout, ids=tuple(f"{name}/{i + 1}" for i in range(len(images))))
        rows += table_rows(table, layout, bad)
    return rows


_SHOWN = 6  # columns or files that are named


def _unread(maps: Sequence[ColumnMap], source: str) -> list[str]:
    """What a table has and nobody asked for: a caption or a label may be among it."""
    columns = list(dict.fromkeys(name for mapping in maps for name in mapping.unread))
    said = [] if any(mapping.labels for mapping in maps) else [f"no labels were read of {source}"]
    said += [f"columns of {source} that were not read (a column map names them): {_shown(columns)}"] if columns else []
    return ["; ".join(said)] if said else []


def _coded(table: Table, mapping: ColumnMap) -> list[str]:
    """Which of the eight labels are the codes of classes, because the names say nothing: another's 0 may be our 1."""
    found = []
    for label, where in mapping.labels.items():
        names = table.classes.get(where.column, ())
        codes = {name: code for name, code in zip(names, class_values(label, names), strict=True) if code is not None}
        unsaid = label in LEVELS and any(whole_number(label, name) is None for name in codes)
        if unsaid and where.values == codes:  # else the map says what they stand for
            shown = ", ".join(f"{code} of {name!r:.40}" for name, code in codes.items())
            found.append(
                f"{label} is the code of its class, whose name is none of its levels: {shown}"
                " (a column map with values says otherwise)"
            )
    return found


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name if len(name) <= 40 else f"{name[:37]}...") for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _layout(table: Table, root: Path, columns: ColumnMap, images: Sequence[str], source: str | None) -> Layout:
    """The folder that all pictures share is one that the user chose: it may be a link."""
    base = picture_folder(table.path, root, images, columns.pictures)
    shared = {image.partition("/")[0] if "/" in image else "" for image in images}
    first = shared.pop() if len(shared) == 1 else ""
    folder = "" if first in ("", ".", "..") else f"{first}/"
    return Layout(
        columns,
        source=source or root.resolve().name,
        root=base,
        folder=folder,
        strip=folder,
        ids=tuple((table.path.parent.relative_to(root) / image).as_posix() if image else "" for image in images),
    )


READER = Reader(
    "folder",
    read_folder,
    help="Any other memes: an ImageFolder, a dataset of the Hub or of save_to_disk, or a table with an image column.",
    takes=("columns",),
)
