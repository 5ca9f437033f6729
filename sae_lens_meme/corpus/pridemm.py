"""Reads PrideMM as it was released: PrideMM.csv beside a folder of pictures."""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import BadRows, Row, parse_label, safe_path
from sae_lens_meme.corpus.tables import Cells, read_table
from sae_lens_meme.errors import BadTableError

SOURCE = "pridemm"
COLUMNS = ("name", "hate", "target", "stance", "humour", "split", "text")
HUMOR = {"0": 0, "1": 2}
"""PrideMM knows funny or not; the merge puts its "funny" at very_funny of Memotion's four levels (as InterVLM does)."""
_NO_TEXT = ("none", "None")


def read_pridemm(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of PrideMM.csv; `target` is missing exactly where `hate` is 0.

    Raises:
        BadTableError: a file or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "PrideMM")
    bad = bad or BadRows()
    table = read_table(find_file(root, ["PrideMM.csv"]))
    table.require(COLUMNS)
    folder = image_folder(root, ["Images", "images", "img"])
    rows = []
    for number, cells in enumerate(table.rows, start=1):
        try:
            rows.append(_row(root, folder, table.path, number, cells))
        except BadTableError as error:
            bad.add(table.path, number, cells["name"] or "", error)
    return rows


def _row(root: Path, folder: str, file: Path, number: int, cells: Cells) -> Row:
    name = cells["name"] or ""
    text = None if cells["text"] in _NO_TEXT else cells["text"]
    return Row(
        id=f"{SOURCE}/{name}",
        source=SOURCE,
        split=cells["split"],
        image_path=safe_path(root, name, folder),
        text=text,
        text_origin="none" if text is None else "dataset",
        labels={
            "hate": parse_label("hate", cells["hate"]),
            "target": parse_label("target", cells["target"]),
            "stance": parse_label("stance", cells["stance"]),
            "humor": parse_label("humor", cells["humour"], HUMOR),
        },
        image=name,
        file=file,
        row=number,
    )
