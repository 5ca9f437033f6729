"""Reads Memotion 2 and Memotion 3: a table per split, pictures by name or by the number of the row.

The layouts are taken from code and descriptions of participants. Memotion 2: `memotion_train.csv` and
`memotion_val.csv` with picture, address, OCR text, humour, sarcasm, offensive, motivational, overall sentiment in this order;
the names of its columns were seen in no file, so several are known. Memotion 3: `train.csv`, `val.csv` (tab-separated) with
`ocr`, `overall`, `humour`, `sarcastic`, `offensive`, `motivational`, and pictures `trainImages/0.jpg`, `valImages/0.jpg`.
"""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, require_columns, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import Table, derived, read_table
from sae_lens_meme.labels import LEVELS

NAMES = {
    "image": ("image_name", "image", "img", "image_id", "id"),
    "text": ("text_corrected", "ocr_text", "text_ocr", "ocr", "text"),
    "humor": ("humour", "humor"),
    "sarcasm": ("sarcasm", "sarcastic"),
    "offensive": ("offensive",),
    "motivational": ("motivational",),
    "sentiment": ("overall_sentiment", "overall", "sentiment"),
}
SARCASM = {name: value for value, name in LEVELS["sarcasm"].items()} | {
    "little_sarcastic": 1,
    "very_sarcastic": 2,
    "extremely_sarcastic": 3,
}
PICTURES = {"train": ("trainImages", "train_images", "train"), "val": ("valImages", "val_images", "val")}


def read_memotion2(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The rows of the train and validation tables; the test memes were released without labels.

    Raises:
        BadTableError: the train table or a column is missing, or a row is bad and `bad` raises.
    """
    return _read(source_folder(root, "Memotion 2"), "memotion2", "memotion_{}.csv", bad)


def read_memotion3(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """As `read_memotion2`; a picture is called after the number of its row."""
    return _read(source_folder(root, "Memotion 3"), "memotion3", "{}.csv", bad)


def _read(root: Path, source: str, name: str, bad: BadRows | None) -> list[Row]:
    below = root / "Memotion2"
    tables = below if source == "memotion2" and below.is_dir() else root
    find_file(tables, [name.format("train")])
    rows = []
    for split in PICTURES:
        if (path := tables / name.format(split)).is_file():
            table = read_table(path, keep_faults=True, delimiter=_delimiter(path))
            columns = _columns(table)
            if source == "memotion3":
                table, columns = _numbered(table, columns)
            require_columns(table, columns)
            folder = image_folder(root, [*PICTURES[split], "image folder", "images"])
            nested = folder and (root / folder / folder).is_dir()  # the archive holds a folder of its own name
            images = [row.get(columns.image) or "" for row in table.rows]
            ids = tuple(f"{split}/{Path(image).name}" if image else "" for image in images)
            layout = Layout(columns, source, root, folder * 2 if nested else folder, split=split, ids=ids)
            rows += table_rows(table, layout, bad or BadRows())
    return rows


def _delimiter(path: Path) -> str:
    """What the header is divided by: one of Memotion 3's tables has tabs, although it is called .csv."""
    with path.open("rb") as file:
        header = file.readline(10_000)
    return "\t" if header.count(b"\t") > header.count(b",") else ","


def _columns(table: Table) -> ColumnMap:
    spelled = {name.casefold().replace(" ", "_"): name for name in table.columns}

    def of(what: str) -> str:
        return next((spelled[name] for name in NAMES[what] if name in spelled), NAMES[what][0])

    labels = {label: LabelColumn(of(label)) for label in NAMES if label not in ("image", "text", "sarcasm")}
    labels["sarcasm"] = LabelColumn(of("sarcasm"), SARCASM)
    return ColumnMap(image=of("image"), text=(of("text"),), labels=labels)


def _numbered(table: Table, columns: ColumnMap) -> tuple[Table, ColumnMap]:
    """With the file name of each picture: the unnamed first column, else the place of the row."""
    first = table.columns[0] if table.columns[0] in ("", "id", "Unnamed: 0") else None
    names = [f"{row[first] if first is not None else i}.jpg" for i, row in enumerate(table.rows)]
    image = "picture of the row"
    return derived(table, {image: names}), ColumnMap(image=image, text=columns.text, labels=columns.labels)


_ORIGIN = (
    "If it is that release, its pictures were collected from the web, belong to third parties, and use is bound to its"
    " terms."
)
READER = Reader(
    "memotion2",
    read_memotion2,
    help="Memotion 2: folder with memotion_train.csv, memotion_val.csv and their pictures.",
    provenance=f"read from a folder in the layout of Memotion 2 (Ramamoorthy et al., De-Factify 2022). {_ORIGIN}",
    note="Memotion 2 calls the levels of sarcasm little, very and extremely: 1, 2, 3.",
)
READER_3 = Reader(
    "memotion3",
    read_memotion3,
    help="Memotion 3: folder with train.csv, val.csv, trainImages/ and valImages/.",
    provenance=f"read from a folder in the layout of Memotion 3 (Mishra et al., De-Factify 2023). {_ORIGIN}",
)
