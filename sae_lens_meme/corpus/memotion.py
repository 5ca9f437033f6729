"""Reads Memotion 7k (labels.csv beside `images/`) and its earlier release with CamelCase columns."""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import BadRows, Row, parse_label, safe_path
from sae_lens_meme.corpus.tables import Cells, Table, read_table
from sae_lens_meme.errors import BadTableError

SOURCE = "memotion"
EARLIER = {"ocr_extracted_text": "text_ocr", "corrected_text": "text_corrected"}
LABEL_COLUMNS = {
    "humor": "humour",
    "sarcasm": "sarcasm",
    "offensive": "offensive",
    "motivational": "motivational",
    "sentiment": "overall_sentiment",
}


def read_memotion(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of labels.csv; the caption is the corrected text, else the text that OCR read.

    `Row.split` is None: Memotion has no split. Sarcasm keeps its four raw levels.

    Raises:
        BadTableError: a file or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "Memotion")
    bad = bad or BadRows()
    table = _with_common_names(read_table(find_file(root, ["labels.csv"], or_only=[".csv"])))
    table.require(["image_name", "text_ocr", "text_corrected", *LABEL_COLUMNS.values()])
    folder = image_folder(root, ["images", "Images", "img"])
    rows = []
    for number, cells in enumerate(table.rows, start=1):
        try:
            rows.append(_row(root, folder, table.path, number, cells))
        except BadTableError as error:
            bad.add(table.path, number, cells["image_name"] or "", error)
    return rows


def _with_common_names(table: Table) -> Table:
    names = {name: EARLIER.get(name.casefold(), name.casefold()) for name in table.columns}
    rows = [{names[name]: cell for name, cell in cells.items()} for cells in table.rows]
    return Table(table.path, tuple(names.values()), rows)


def _row(root: Path, folder: str, file: Path, number: int, cells: Cells) -> Row:
    name = cells["image_name"] or ""
    text = cells["text_ocr"] if cells["text_corrected"] is None else cells["text_corrected"]
    return Row(
        id=f"{SOURCE}/{name}",
        source=SOURCE,
        split=None,
        image_path=safe_path(root, name, folder),
        text=text,
        text_origin="none" if text is None else "dataset",
        labels={label: parse_label(label, cells[column]) for label, column in LABEL_COLUMNS.items()},
        image=name,
        file=file,
        row=number,
    )
