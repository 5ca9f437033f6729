"""Reads the Hateful Memes Challenge as it was released: one JSON Lines file a split beside `img/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import BadRows, Row, parse_label, safe_path
from sae_lens_meme.corpus.tables import Cells, read_table
from sae_lens_meme.errors import BadTableError

SOURCE = "hmc"
# phase 1 calls dev_seen `dev` and test_seen `test`; a folder that holds both holds the same memes twice
SPLIT_FILES = (("train",), ("dev_seen", "dev"), ("dev_unseen",), ("test_seen", "test"), ("test_unseen",))


def read_hmc(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of all split files that are there; `Row.split` is the file's name (`dev_seen`, ...).

    A picture is found through `img`, never through `id`, which loses its leading zeros in one release.

    Raises:
        BadTableError: train.jsonl or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "the Hateful Memes Challenge")
    bad = bad or BadRows()
    find_file(root, ["train.jsonl"])
    folder = image_folder(root, ["img", "images", "Images"])
    return [row for path in _split_files(root) for row in _read_split(root, folder, path, bad)]


def _split_files(root: Path) -> Iterator[Path]:
    for names in SPLIT_FILES:
        paths = [root / f"{name}.jsonl" for name in names]
        yield from [path for path in paths if path.is_file()][:1]


def _read_split(root: Path, folder: str, path: Path, bad: BadRows) -> Iterator[Row]:
    table = read_table(path)
    table.require(["img", "text"])
    for number, cells in enumerate(table.rows, start=1):
        try:
            row = _row(root, folder, path, number, cells)
        except BadTableError as error:
            bad.add(path, number, cells["img"] or "", error)
        else:
            yield row


def _row(root: Path, folder: str, file: Path, number: int, cells: Cells) -> Row:
    image = cells["img"] or ""
    name = image.removeprefix("img/")
    return Row(
        id=f"{SOURCE}/{name}",
        source=SOURCE,
        split=file.stem,
        image_path=safe_path(root, name, folder),
        text=cells["text"],
        text_origin="none" if cells["text"] is None else "dataset",
        labels={"hate": parse_label("hate", cells.get("label"))},
        image=image,
        file=file,
        row=number,
    )
