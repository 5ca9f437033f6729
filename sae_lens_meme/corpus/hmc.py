"""Reads the Hateful Memes Challenge as it was released: one JSON Lines file per split beside `img/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.fine_grained import with_fine_grained
from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import read_table

# phase 1 calls dev_seen `dev` and test_seen `test`; a folder that holds both holds the same memes twice
SPLIT_FILES = (("train",), ("dev_seen", "dev"), ("dev_unseen",), ("test_seen", "test"), ("test_unseen",))
# a picture is found through `img`, never through `id`, which loses its leading zeros in one release
COLUMNS = ColumnMap(image="img", text=("text",), labels={"hate": LabelColumn("label")})


def read_hmc(root: str | Path, bad: BadRows | None = None, fine_grained: str | Path | None = None) -> list[Row]:
    """The rows of all split files that are there; `Row.split` is the file's name (`dev_seen`, ...).

    Args:
        fine_grained: see `fine_grained.read_fine_grained`; its labels are null for memes that it does not have.

    Raises:
        BadTableError: train.jsonl or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "the Hateful Memes Challenge")
    find_file(root, ["train.jsonl"])
    folder = image_folder(root, ["img", "images", "Images"])
    rows = []
    for path in _split_files(root):
        table = read_table(path, keep_faults=True)
        table.require(["img", "text"])  # phase 1 has no labels of its test memes
        rows += table_rows(table, Layout(COLUMNS, "hmc", root, folder, strip="img/", split=path.stem), bad or BadRows())
    return rows if fine_grained is None else with_fine_grained(rows, fine_grained, bad or BadRows())


def _split_files(root: Path) -> Iterator[Path]:
    for names in SPLIT_FILES:
        paths = [root / f"{name}.jsonl" for name in names]
        yield from [path for path in paths if path.is_file()][:1]


READER = Reader(
    "hmc",
    read_hmc,
    help="Hateful Memes: folder with train.jsonl ... and img/.",
    provenance="read from a folder in the layout of the Hateful Memes Challenge (Kiela et al., NeurIPS 2020). If it is"
    " that release, use is bound to its licence agreement, which everyone accepts for themselves.",
    takes=("fine_grained",),
)
