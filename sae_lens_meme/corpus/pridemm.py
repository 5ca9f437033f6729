"""Reads PrideMM as it was released: PrideMM.csv beside a folder of pictures."""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, require_columns, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import read_table

HUMOR = {"0": 0, "1": 2}
"""PrideMM knows funny or not; the merge puts its "funny" at very_funny of Memotion's four levels (as InterVLM does)."""
COLUMNS = ColumnMap(
    image="name",
    text=("text",),
    split="split",
    labels={name: LabelColumn(name) for name in ("hate", "target", "stance")} | {"humor": LabelColumn("humour", HUMOR)},
)


def read_pridemm(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of PrideMM.csv; `target` is missing exactly where `hate` is 0.

    Raises:
        BadTableError: a file or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "PrideMM")
    table = read_table(find_file(root, ["PrideMM.csv"]), keep_faults=True)
    require_columns(table, COLUMNS)
    folder = image_folder(root, ["Images", "images", "img"])
    # two memes without text say so by a word
    return table_rows(table, Layout(COLUMNS, "pridemm", root, folder, no_text=("none", "None")), bad or BadRows())


READER = Reader(
    "pridemm",
    read_pridemm,
    help="PrideMM: folder with PrideMM.csv and its images.",
    provenance="read from a folder in the layout of PrideMM (Shah et al., EMNLP 2024, released with MemeCLIP). If it is"
    " that release, its pictures are third parties' posts and use is bound to its terms.",
    note="PrideMM's humor knows two values: 0 stays 0, 1 becomes 2 (very_funny), as in the published merge.",
)
