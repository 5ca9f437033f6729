"""Reads Memotion 7k (labels.csv beside `images/`) and its earlier release with CamelCase columns."""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, require_columns, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import Table, read_table

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
    table = read_table(find_file(root, ["labels.csv"], or_only=[".csv"]), keep_faults=True)
    columns = _columns(table)
    require_columns(table, columns)
    folder = image_folder(root, ["images", "Images", "img"])
    return table_rows(table, Layout(columns, "memotion", root, folder), bad or BadRows())


def _columns(table: Table) -> ColumnMap:
    """The columns by the names that this release gives them."""
    spelled = {EARLIER.get(name.casefold(), name.casefold()): name for name in table.columns}

    def of(name: str) -> str:
        return spelled.get(name, name)

    labels = {label: LabelColumn(of(name)) for label, name in LABEL_COLUMNS.items()}
    return ColumnMap(image=of("image_name"), text=(of("text_corrected"), of("text_ocr")), labels=labels)


READER = Reader(
    "memotion",
    read_memotion,
    help="Memotion 7k: folder with labels.csv and images/.",
    provenance="read from a folder in the layout of Memotion (Sharma et al., SemEval-2020 Task 8). If it is that release,"
    " its pictures were collected from the web, belong to third parties, and use is bound to its terms.",
    note="Memotion's sarcasm keeps its four raw levels; the published merge counts `general` (1) as not sarcastic,"
    " which the concept `sarcasm >= 2` repeats.",
)
