"""Finds the files of a source's layout; a message names what was looked for and what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sae_lens_meme.corpus.columns import ColumnMap
from sae_lens_meme.corpus.tables import SUFFIXES, TAR, Table
from sae_lens_meme.errors import BadTableError, ConfigError
from sae_lens_meme.labels import read_split

Found = tuple[str | None, Path]  # a table, and its split where the layout names one
METADATA = tuple(f"metadata{suffix}" for suffix in SUFFIXES)
_PART = re.compile(r"(-\d{5}-of-\d{5}(-[0-9a-f]{16})?|[-_.]?\d+)$")
"""What follows a split in the name of one of its parts; the Hub has put a fingerprint behind it."""
_CONVERTED = f"{'[0-9]' * 4}.parquet"
_PICTURE_FOLDERS = ("images", "img", "image", "pictures")
_TRIED = 20  # pictures and folders that are looked at, where nobody said in which folder the pictures are


class FoundTables(NamedTuple):
    """The tables of a folder."""

    read: Sequence[Found]
    unread: Sequence[Path] = ()
    """Those that name no split, where the others do; those beside `metadata.*`."""


def source_folder(root: str | Path, source: str) -> Path:
    """The folder of a source; raises BadTableError if there is none."""
    root = Path(root)
    if not root.is_dir():
        raise BadTableError(f"{root}: no such folder; give the folder of {source}")
    return root


def find_file(root: Path, names: Sequence[str], *, or_only: Sequence[str] = ()) -> Path:
    """The first of `names` in `root` (upper and lower case alike), else its only file that ends as `or_only` says.

    macOS puts a file of the same name, with `._` before it, beside each.
    """
    here = sorted(entry for entry in root.iterdir() if entry.is_file() and not entry.name.startswith("._"))
    by_name = {entry.name.casefold(): entry for entry in here}
    for name in names:
        if name.casefold() in by_name:
            return by_name[name.casefold()]
    others = [entry for entry in here if entry.suffix.lower() in or_only]
    if len(others) == 1:
        return others[0]
    looked_for = " or ".join((*names, *(f"one *{suffix}" for suffix in or_only)))
    raise BadTableError(f"{root}: looked for {looked_for}, found {_listing(root)}; give the folder as it was released")


def find_here_or_below(root: Path, name: str) -> Path | None:
    """The file of this name (upper and lower case alike) in `root` or in one of its folders."""
    for folder in (root, *sorted(entry for entry in root.iterdir() if entry.is_dir())):
        for entry in folder.iterdir():
            if entry.name.casefold() == name and entry.is_file():
                return entry
    return None


def image_folder(root: Path, names: Sequence[str]) -> str:
    """The first of `names` that is a folder in `root`, with a slash behind; '' if the pictures lie in `root`."""
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()}
    return next((f"{name}/" for name in names if name in folders), "")


def require_columns(table: Table, columns: ColumnMap) -> None:
    """The columns of a release, or how a copy that has fewer of them is read.

    Raises:
        BadTableError: one is missing.
    """
    names = {"image": columns.image, "text": next((c for c in columns.text if c in table.columns), "null")}
    names |= {"split": columns.split} if columns.split in table.columns else {}
    labels = [f"{name}: {where.column}" for name, where in columns.labels.items() if where.column in table.columns]
    fields = ", ".join([*(f"{name}: {column}" for name, column in names.items()), f"labels: {{{', '.join(labels)}}}"])
    hint = (
        ""
        if columns.image not in table.columns
        else (
            f"; a copy with fewer columns is read with --folder {table.path.parent} --columns FILE,"
            f" where FILE is a YAML file that holds {{{fields}}}"
        )
    )
    table.require(columns.used(), hint)


def find_tables(root: Path) -> FoundTables:
    """The tables of a folder, each with its split where the layout names one.

    That is `metadata.*` in the folder or in one folder per split, what `save_to_disk` writes, files named after their
    splits as on the Hub (`train.csv`, `train_2.csv`, `data/test-00000-of-00001.parquet`, `default/train/0000.parquet`),
    WebDataset shards (`train-000000.tar`), or a single table of any name.

    Raises:
        BadTableError: there is none, or some shards name a split and some do not.
    """
    layouts = (_metadata, _saved, _folders, _named, lambda root: _named(root / "data"), _converted, _tars)
    for found in (layout(root) for layout in layouts):
        if found.read:
            return found
    return FoundTables([(None, find_file(root, METADATA, or_only=SUFFIXES))])


def _metadata(root: Path) -> FoundTables:
    file = next((root / name for name in METADATA if (root / name).is_file()), None)
    return (
        FoundTables([])
        if file is None
        else FoundTables([(None, file)], [p for p in _files(root, SUFFIXES) if p != file])
    )


def _saved(root: Path) -> FoundTables:
    """The files of a `Dataset` or `DatasetDict` on disk."""
    folders: dict[str | None, Path] = {None: root} if (root / "state.json").is_file() else {}
    if (root / "dataset_dict.json").is_file():
        folders = {name: root / Path(name).name for name in _json(root / "dataset_dict.json", "splits")}
    return FoundTables(
        [
            (split, folder / Path(file["filename"]).name)
            for split, folder in folders.items()
            for file in _json(folder / "state.json", "_data_files")
        ]
    )


def _json(path: Path, key: str) -> list:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
        plain = all(isinstance(entry, str) or isinstance(entry["filename"], str) for entry in found)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        plain, found = False, []
    if not plain or not isinstance(found, list):
        raise BadTableError(f"{path}: is not what save_to_disk writes (no list {key!r}); save the dataset again")
    return found


def _folders(root: Path) -> FoundTables:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    found = _by_split([(folder.name, path) for folder in folders for _, path in _metadata(folder).read])
    if found.read:
        without = [folder for folder in folders if read_split(folder.name) and folder.name not in dict(found.read)]
        if without:
            raise BadTableError(
                f"{without[0]}: has no {' or '.join(METADATA)}, but {found.read[0][1].parent.name} has; add it"
            )
    return found


def _by_split(found: Sequence[Found]) -> FoundTables:
    """These files if any of them name splits, none if they do not."""
    named = [(split, path) for split, path in found if read_split(split)]
    return FoundTables(named, [path for split, path in found if not read_split(split)] if named else ())


def _named(folder: Path) -> FoundTables:
    tables = _files(folder, SUFFIXES) if folder.is_dir() else []
    return _by_split([(_PART.sub("", path.stem), path) for path in tables])


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """But those that are hidden: macOS puts one beside each."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _converted(root: Path) -> FoundTables:
    """What the Hub makes of every data set: `default/train/0000.parquet`, where `default` is one of its configurations."""
    files = sorted([*root.glob(f"*/{_CONVERTED}"), *root.glob(f"*/*/{_CONVERTED}")])
    bases = {path.parent.parent for path in files}
    found = {base: _by_split([(p.parent.name, p) for p in files if p.parent.parent == base]) for base in bases}
    named = sorted(base for base, tables in found.items() if tables.read)
    if len(named) > 1:
        names = ", ".join(base.name for base in named)
        raise BadTableError(f"{root}: holds several data sets: {names}; give the folder of one")
    return found[named[0]] if named else FoundTables([])


def _tars(root: Path) -> FoundTables:
    """WebDataset shards such as `train-000000.tar`.

    Raises:
        BadTableError: some name a split and some do not; reading only those, or none of the splits, would lose memes or splits.
    """
    tars = [path for path in _files(root, (TAR,)) if path.is_file()]
    found = _by_split([(re.split(r"[-_.]", path.stem)[0], path) for path in tars])
    if found.unread:
        shown = ", ".join(path.name for path in found.unread[:5])
        more = f" and {len(found.unread) - 5} more" if len(found.unread) > 5 else ""
        raise BadTableError(
            f"{root}: {found.read[0][1].name} names a split, but not {shown}{more}; rename it (as train_2), or move it elsewhere"
        )
    return found if found.read else FoundTables([(None, path) for path in tars])


def picture_folder(table: Path, root: Path, names: Sequence[str], given: str | None) -> Path:
    """Where the pictures are: in the folder that the user gives, else where the first of them are found.

    Raises:
        ConfigError: there is no such folder.
    """
    here = [table.parent, root] if table.parent != root else [root]
    if given is not None:
        found = next((base / given for base in here if (base / given).is_dir()), None)
        if found is None:
            raise ConfigError(
                f"columns: pictures is {given!r}, which is not a folder in {root}; it has {_listing(root)}"
            )
        return found
    first = [name for name in names[:_TRIED] if name and "\0" not in name and ".." not in name]
    places = [*here, *(folder for base in here for folder in _subfolders(base))]
    return next((place for place in places if any(_is_file(place, name) for name in first)), table.parent)


def _subfolders(base: Path) -> Iterator[Path]:
    folders = sorted(entry for entry in base.iterdir() if entry.is_dir())
    yield from sorted(folders, key=lambda folder: folder.name.casefold() not in _PICTURE_FOLDERS)[:_TRIED]


def _is_file(place: Path, name: str) -> bool:
    try:
        return (place / name).is_file()
    except OSError:  # a name that is too long
        return False


def _listing(root: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    shown = ", ".join(names[:6]) or "nothing"
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
