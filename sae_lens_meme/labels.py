"""What a cell of a table means: the eight label dimensions and their levels, missing values, names of splits.

One rule each, for every table, array and dataset that is read. Missing is null, never a number. Only the corpus
readers depend on the eight: any other label column is used as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

LEVELS: dict[str, dict[int, str]] = {
    "hate": {0: "no", 1: "yes"},
    "target": {0: "undirected", 1: "individual", 2: "community", 3: "organization"},
    "stance": {0: "neutral", 1: "support", 2: "oppose"},
    "humor": {0: "not_funny", 1: "funny", 2: "very_funny", 3: "hilarious"},
    "offensive": {0: "not_offensive", 1: "slight", 2: "very_offensive", 3: "hateful_offensive"},
    "sentiment": {-2: "very_negative", -1: "negative", 0: "neutral", 1: "positive", 2: "very_positive"},
    "motivational": {0: "not_motivational", 1: "motivational"},
    "sarcasm": {0: "not_sarcastic", 1: "general", 2: "twisted_meaning", 3: "very_twisted"},
}
LABELS = tuple(LEVELS)

MISSING = frozenset(["", "na", "n/a", "n.a.", "#na", "#n/a", "<na>", "nan", "-nan", "nat", "null", "none"])
"""Spellings of a missing value in lower case; the first is the empty cell."""

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "dev_seen", "dev_unseen"), "validation"),
    **dict.fromkeys(("test", "testing", "test_seen", "test_unseen"), "test"),
}

TOKEN_COLUMNS = {
    "item": "string",  # the picture that a row is of
    "position": "int64",  # in what passes the hook
    "modality": "string",  # the kind of position: image, text, special
    "token": "string",  # the word there, or the piece of one; null of a picture's position
    "token_text": "string",  # what the model reads or writes with the picture; null of a vision tower
    "token_start": "int64",  # where the word begins in `token_text`, in characters; null where it is not in it
    "token_end": "int64",
    "token_box": "[float32]",  # an image token's patch: top, left, bottom, right, 0 to 1 of the view; null: no place is known
}
"""What token rows have beside the columns of memes, and the type of each; the view is in the facts of the embeddings."""

FIELDS = ("id", "image", "text", "split", "source", "group")
"""What a column map names besides the labels."""

NOT_LABELS = (*FIELDS, "text_origin", "file_name", "image_sha256", *TOKEN_COLUMNS)
"""Columns of a corpus, of embeddings or of a table that describe a meme and are never labels."""

_TRUTH = {"false": 0, "true": 1}
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}(\.0*)?")  # "1.0" is how pandas writes an integer column with gaps
_LEAST, _MOST = -(2**63), 2**63 - 1


def level(label: str, name: str) -> int | None:
    """The value of the level called `name`, or None if the label has no such level."""
    return next((value for value, known in LEVELS.get(label, {}).items() if known == name), None)


def is_label_column(name: str) -> bool:
    """Not a column of `NOT_LABELS`, no hook, and not an index that pandas has written."""
    return bool(name) and name not in NOT_LABELS and not name.startswith(("hook_", "__index_level_", "Unnamed: "))


def misspelled(columns: Iterable[str], names: Collection[str] = (*FIELDS, *LABELS)) -> dict[str, str]:
    """Columns whose name is one of ours but for upper case or spaces around it, where no column has that name itself."""
    plain = {column: column.strip().casefold() for column in columns}
    return {column: name for column, name in plain.items() if name in names and name not in plain}


def respelled(columns: Mapping[str, str]) -> str:
    """What `misspelled` found, all of it, for a message."""
    return " and ".join(f"{column!r} for {name!r}" for column, name in columns.items())


def is_missing(cell: Any) -> bool:
    """None, NaN, or text that spells a missing value.

    An integer never is: -1 is a sentiment, and what -99 stands for only its author knows. The -1 of a `ClassLabel`
    is missing by that type's own definition (`label_values`).
    """
    return cell.strip().casefold() in MISSING if isinstance(cell, str) else cell is None or cell != cell


def source_of(cell: Any) -> str:
    """The source of a meme; those without one are of one source."""
    return "all" if is_missing(cell) else str(cell)


def read_split(name: Any) -> str | None:
    """One of `SPLITS`, None if no split has this name."""
    return SPLIT_NAMES.get(str(name).strip().casefold())


def whole_number(label: str, cell: Any) -> int | None:
    """The integer of a cell that is not missing: a level's name, a truth value or a whole number of 64 bits; else None."""
    if isinstance(cell, int):
        return int(cell) if fits_64_bits(cell) else None
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) < 2**53 else None
    word, levels = str(cell).strip().casefold(), LEVELS.get(label, {})
    names = {name: value for value, name in levels.items()} | (_TRUTH if levels.keys() <= {0, 1} else {})
    number = int(word.split(".")[0]) if _WHOLE.fullmatch(word) else None
    return names.get(word, number if number is not None and fits_64_bits(number) else None)


def fits_64_bits(number: int) -> bool:
    return _LEAST <= number <= _MOST


def beyond_64_bits(cells: Sequence[Any]) -> int | None:
    """The place of the first whole number that does not fit, in a column of nothing but whole numbers; None in any other."""
    known = [
        (i, str(int(cell)) if isinstance(cell, int) else str(cell))
        for i, cell in enumerate(cells)
        if not is_missing(cell)
    ]
    if not all(re.fullmatch(r"\s*[+-]?[0-9]+(\.0*)?\s*", text) for _, text in known):
        return None
    return next((i for i, text in known if whole_number("", text) is None), None)


def class_values(label: str, names: Sequence[str]) -> list[int | None]:
    """What the codes 0, 1, ... of a `ClassLabel` stand for: what their names say, or, if one says nothing, the code."""
    said = {name: whole_number(label, name) for name in names if not is_missing(name)}
    if None in said.values() or len(set(said.values())) < len(said):
        said = {name: code for code, name in enumerate(names) if name in said}
    return [said.get(name) for name in names]


def label_values(label: str, cells: Sequence[Any], classes: Sequence[str] | None = None) -> list[int | str | None]:
    """What the cells of a label column say: integers if every known cell is one, else text; None is missing.

    Args:
        classes: the names of a `ClassLabel`, whose codes the cells then are.
    """
    if classes is not None:
        values = class_values(label, classes)
        return [values[code] if code is not None and 0 <= code < len(values) else None for code in cells]
    known = [None if is_missing(cell) else cell for cell in cells]
    # not by the names of levels: a table of someone else may call a label `hate` and fill it with words of its own
    numbers = [None if cell is None else whole_number("", cell) for cell in known]
    if all(number is not None for number, cell in zip(numbers, known, strict=True) if cell is not None):
        return [*numbers]
    return [None if cell is None else str(cell) for cell in known]


def missing_code(label: str, values: Iterable[Any]) -> int | None:
    """A value below every level of one of the eight labels: somebody's code for missing, which is not a class."""
    lowest = min(LEVELS.get(label, ()), default=None)
    below = (value for value in values if isinstance(value, int) and lowest is not None and value < lowest)
    return next(below, None)
