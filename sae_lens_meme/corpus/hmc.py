"""Reads the Hateful Memes Challenge as it was released: one JSON Lines file per split beside `img/`.

Fine-grained labels (which protected category is attacked, and how) are the annotations of the WOAH 2021 shared task
(`train.json`, `dev_seen.json`, `dev_unseen.json`: one JSON object per line with `img`, `gold_pc`, `gold_attack`), or a table
with `img`, `pc`, `attack` in which `|` divides what a meme has of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, parse_label, table_rows
from sae_lens_meme.corpus.skipped import BadCell, BadRow, BadRows
from sae_lens_meme.corpus.tables import Cells, Table, read_table
from sae_lens_meme.errors import BadTableError

# phase 1 calls dev_seen `dev` and test_seen `test`; a folder that holds both holds the same memes twice
SPLIT_FILES = (("train",), ("dev_seen", "dev"), ("dev_unseen",), ("test_seen", "test"), ("test_unseen",))
# a picture is found through `img`, never through `id`, which loses its leading zeros in one release
COLUMNS = ColumnMap(image="img", text=("text",), labels={"hate": LabelColumn("label")})


def read_hmc(root: str | Path, bad: BadRows | None = None, fine_grained: str | Path | None = None) -> list[Row]:
    """The rows of all split files that are there; `Row.split` is the file's name (`dev_seen`, ...), in lower case.

    Args:
        fine_grained: see `read_fine_grained`; its labels are null for memes that it does not have.

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
        rows += table_rows(
            table, Layout(COLUMNS, "hmc", root, folder, strip="img/", split=path.stem.casefold()), bad or BadRows()
        )
    return rows if fine_grained is None else with_fine_grained(rows, fine_grained, bad or BadRows())


def _split_files(root: Path) -> Iterator[Path]:
    here = {path.name.casefold(): path for path in sorted(root.iterdir()) if path.is_file()}
    for names in SPLIT_FILES:
        yield from [here[f"{name}.jsonl"] for name in names if f"{name}.jsonl" in here][:1]


READER = Reader(
    "hmc",
    read_hmc,
    help="Hateful Memes: folder with train.jsonl ... and img/.",
    provenance="read from a folder in the layout of the Hateful Memes Challenge (Kiela et al., NeurIPS 2020). If it is"
    " that release, use is bound to its licence agreement, which everyone accepts for themselves.",
    takes=("fine_grained",),
)


PROTECTED = ("religion", "race", "sex", "nationality", "disability")
ATTACKS = ("mocking", "inferiority", "contempt", "slurs", "exclusion", "dehumanizing", "inciting_violence")
KINDS = {"pc": PROTECTED, "attack": ATTACKS}
LABELS = tuple(f"{kind}_{name}" for kind, names in KINDS.items() for name in names)
"""One label of 0 and 1 for each category and each type of attack: a meme may have several."""
HATEFUL = {"hateful": 1, "not_hateful": 0, "1": 1, "0": 0, "yes": 1, "no": 0}

Labels = Mapping[str, int | None]


def with_fine_grained(rows: Sequence[Row], path: str | Path, bad: BadRows) -> list[Row]:
    """Memes of Hateful Memes with the fine-grained labels that belong to their pictures.

    Raises:
        BadTableError: as `read_fine_grained`, or no meme has any.
    """
    known = read_fine_grained(path, bad)
    nothing = dict.fromkeys(LABELS)
    if not any(_picture(row.image) in known for row in rows):
        raise BadTableError(
            f"{path}: none of its pictures is in the folder of Hateful Memes; check that they belong together"
        )
    return [replace(row, labels={**row.labels, **known.get(_picture(row.image), nothing)}) for row in rows]


def read_fine_grained(path: str | Path, bad: BadRows) -> dict[str, Labels]:
    """Labels by the name of the picture.

    A meme that is not hateful attacks nobody: 0. One that is hateful, but for which annotators agreed on no category (no
    type of attack), has null for all of them.

    Args:
        path: a file, or a folder of files (.json, .jsonl, .csv).

    Raises:
        BadTableError: there is no such file, a column is missing, or a row is bad and `bad` raises.
    """
    path = Path(path)
    files = (
        sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in (".json", ".jsonl", ".csv") and not file.name.startswith(".")
        )
        if path.is_dir()
        else [path]
    )
    if not files:
        raise BadTableError(
            f"{path}: holds no .json, .jsonl or .csv; give the fine-grained annotations of Hateful Memes"
        )
    found: dict[str, Labels] = {}
    for file in files:
        table = read_table(file, keep_faults=True, kind=".jsonl" if file.suffix.lower() == ".json" else "")
        columns = {kind: f"gold_{kind}" if f"gold_{kind}" in table.columns else kind for kind in KINDS}
        table.require(["img", *columns.values()])
        for number, cells in enumerate(table.rows, start=1):
            labels, fault = _labels(cells, columns, table, number)
            picture = _picture(cells["img"] or "")
            if fault is None and found.setdefault(picture, labels) != labels:
                fault = "another row has other labels for this picture; correct one of them"
            if fault is not None:
                bad.add(BadRow(file.name, number, picture, fault, "unreadable fine-grained label", "hmc"))
    return found


def _labels(cells: Cells, columns: Mapping[str, str], table: Table, number: int) -> tuple[Labels, str | None]:
    """The labels of a row, and what is wrong with it."""
    if number in table.faults:
        return {}, table.faults[number]
    labels: dict[str, int | None] = {}
    named = {
        kind: set(re.split(r"[|,\s]+", (cells[column] or "").strip())) - {"", f"{kind}_empty"}
        for kind, column in columns.items()
    }
    try:
        hateful = _is_hateful(cells, named)
    except BadCell as error:
        return {}, str(error)
    for kind, names in KINDS.items():
        if unknown := sorted(named[kind] - set(names)):
            return (
                {},
                f"{columns[kind]} is {unknown[0]!r}, allowed: {', '.join(names)}, {kind}_empty; correct the value",
            )
        agreed = bool(named[kind]) or hateful is False
        labels |= {f"{kind}_{name}": int(name in named[kind]) if agreed else None for name in names}
    return labels, None


def _is_hateful(cells: Cells, named: Mapping[str, set[str]]) -> bool | None:
    """As the annotators saw it: `gold_hate` (`hateful`, `not_hateful`) or `hateful` (1, 0), None where the cell is missing;
    without such a column, that it attacks somebody.

    Raises:
        BadTableError: the cell is none of these.
    """
    columns = [name for name in ("gold_hate", "hateful") if name in cells]
    given = [parse_label(name, (cells[name] or "").casefold(), HATEFUL) for name in columns]
    known = [value for value in given if value is not None]
    return bool(known[0]) if known else None if columns else any(named.values())


def _picture(img: str) -> str:
    return img.rsplit("/", 1)[-1]
