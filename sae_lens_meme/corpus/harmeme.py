"""Reads HarMeme (Harm-C or Harm-P): one JSON Lines file per split beside `images/`.

The layout is that of the release of MOMENTA as scripts describe that check it: `annotations/{train,val,test}.jsonl`, or the
same files with `_v1` beside `images/`, with `id`, `image`, `labels` (how harmful, then whom it harms) and `text`. The files
themselves were not seen; files for the second task (`target_*.jsonl`) repeat these memes and are not read.
"""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import Table, derived, read_table

HARMFUL = {"not harmful": 0, "somewhat harmful": 1, "very harmful": 2}
TARGETS = ("individual", "organization", "community", "society")
COLUMNS = ColumnMap(
    image="image",
    text=("text",),
    labels={"harmful": LabelColumn("harmful", HARMFUL)}
    | {f"harms_{target}": LabelColumn(f"harms_{target}") for target in TARGETS},
)


def read_harmeme(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of the split files; a target is missing where a meme is not harmful, or harmful and no target is named.

    Raises:
        BadTableError: train.jsonl or a column is missing, or a row is bad and `bad` raises.
    """
    root = source_folder(root, "HarMeme")
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    find_file(folder, ["train.jsonl", "train_v1.jsonl"])
    rows = []
    for split in ("train", "val", "test"):
        for path in [file for name in (f"{split}.jsonl", f"{split}_v1.jsonl") if (file := folder / name).is_file()][:1]:
            table = read_table(path, keep_faults=True)
            table.require(["image", "text", "labels"])
            layout = Layout(COLUMNS, "harmeme", root, image_folder(root, ["images", "img"]), split=split)
            rows += table_rows(_labelled(table), layout, bad or BadRows())
    return rows


def _labelled(table: Table) -> Table:
    """`somewhat harmful individual` is how the table gives a list of two."""
    cells = [row.get("labels") or "" for row in table.rows]
    levels = [next((name for name in HARMFUL if cell.startswith(name)), "") for cell in cells]
    named = [set(cell.removeprefix(level).split()) for cell, level in zip(cells, levels, strict=True)]
    harmful = [
        level if level and words <= {*TARGETS} else cell
        for cell, level, words in zip(cells, levels, named, strict=True)
    ]
    targets = {
        f"harms_{target}": [
            str(int(target in words)) if HARMFUL.get(level) and words else None
            for level, words in zip(levels, named, strict=True)
        ]
        for target in TARGETS
    }
    return derived(table, {"harmful": harmful, **targets})


READER = Reader(
    "harmeme",
    read_harmeme,
    help="HarMeme (Harm-C, Harm-P): folder with annotations/train.jsonl ... and images/.",
    provenance="read from a folder in the layout of HarMeme (Pramanick et al., Findings of ACL and EMNLP 2021). If it is"
    " that release, its pictures were collected from the web and belong to third parties.",
    note="HarMeme's labels are columns of their own: harmful (0 not, 1 somewhat, 2 very) and, for harmful memes,"
    " harms_individual, harms_organization, harms_community, harms_society.",
)
