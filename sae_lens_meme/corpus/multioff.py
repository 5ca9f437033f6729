"""Reads MultiOFF: `Split Dataset/{Training,Validation,Testing}_meme_dataset.csv` beside `Labelled Images/`.

The layout is taken from code that reads the release (columns `image_name`, `sentence`, `label`; `offensive` and
`Non-offensiv`, spelled so); the files themselves were not seen.
"""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, require_columns, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import read_table

SPLIT_FILES = {"train": "Training", "validation": "Validation", "test": "Testing"}
OFFENSIVE = {"offensive": 1, "Non-offensiv": 0, "Non-offensive": 0, "non-offensive": 0}
COLUMNS = ColumnMap(image="image_name", text=("sentence",), labels={"is_offensive": LabelColumn("label", OFFENSIVE)})


def read_multioff(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of the split files that are there.

    Raises:
        BadTableError: the training file or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "MultiOFF")
    tables = root / "Split Dataset" if (root / "Split Dataset").is_dir() else root
    find_file(tables, ["Training_meme_dataset.csv"])
    folder = image_folder(root, ["Labelled Images", "images", "img"])
    rows = []
    for split, name in SPLIT_FILES.items():
        if (path := tables / f"{name}_meme_dataset.csv").is_file():
            table = read_table(path, keep_faults=True)
            require_columns(table, COLUMNS)
            rows += table_rows(table, Layout(COLUMNS, "multioff", root, folder, split=split), bad or BadRows())
    return rows


READER = Reader(
    "multioff",
    read_multioff,
    help="MultiOFF: folder with 'Split Dataset' and 'Labelled Images'.",
    provenance="read from a folder in the layout of MultiOFF (Suryawanshi et al., TRAC 2020). If it is that release, its"
    " pictures are third parties' posts.",
    note="MultiOFF knows offensive or not: `is_offensive`, a column of its own, not the four levels of `offensive`.",
)
