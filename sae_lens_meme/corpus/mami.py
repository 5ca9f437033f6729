"""Reads MAMI, the misogynous memes of SemEval-2022 Task 5: tab-separated training.csv and test.csv beside their pictures.

The layout is taken from code that reads the release (columns `file_name`, `misogynous`, `shaming`, `stereotype`,
`objectification`, `violence`, `Text Transcription`; folders `TRAINING/` and `test/`); test_labels.txt is as its
participants describe it. The release itself, which is given on request, was not seen; its `trial` part is not read.
"""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, find_here_or_below, image_folder, require_columns, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import Table, derived, read_table, read_values

LABELS = ("misogynous", "shaming", "stereotype", "objectification", "violence")
COLUMNS = ColumnMap(
    image="file_name", text=("Text Transcription",), labels={name: LabelColumn(name) for name in LABELS}
)


def read_mami(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of training.csv, and those of test.csv with the labels of test_labels.txt (missing where it is not there).

    Raises:
        BadTableError: training.csv or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "MAMI")
    train = find_here_or_below(root, "training.csv") or find_file(root, ["training.csv"])
    test = find_here_or_below(root, "test.csv")
    rows = []
    for split, path in (("train", train), ("test", test)):
        if path is not None:
            table = read_table(path, keep_faults=True, delimiter="\t")
            table = _with_labels(table, path.parent) if split == "test" else table
            require_columns(table, COLUMNS)
            folder = image_folder(path.parent, ["images", "img"])
            rows += table_rows(table, Layout(COLUMNS, "mami", path.parent, folder, split=split), bad or BadRows())
    return rows


def _with_labels(table: Table, folder: Path) -> Table:
    """The labels of the test memes were released later, in a file without a header."""
    if set(LABELS) <= set(table.columns):
        return table
    file = find_here_or_below(folder, "test_labels.txt") or find_here_or_below(folder.parent, "test_labels.txt")
    known = {name: values for name, *values in read_values(file, 1 + len(LABELS), "\t")} if file is not None else {}
    nothing = [None] * len(LABELS)
    found = [known.get(row["file_name"] or "", nothing) for row in table.rows]
    return derived(table, {label: [values[i] for values in found] for i, label in enumerate(LABELS)})


READER = Reader(
    "mami",
    read_mami,
    help="MAMI (SemEval-2022 Task 5): folder with TRAINING/training.csv and, if there, test/test.csv.",
    provenance="read from a folder in the layout of MAMI (Fersini et al., SemEval-2022 Task 5). If it is that release, it"
    " was given for research on request, and its pictures belong to third parties.",
    note="MAMI's labels are columns of their own: misogynous, shaming, stereotype, objectification, violence.",
)
