"""What every reader yields: one `Row` a meme, its labels checked, its picture's path safe but not opened."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from sae_lens_meme.errors import BadTableError, ConfigError, MemeError
from sae_lens_meme.labels import LEVELS

OnBad = Literal["raise", "skip"]

_INTEGER = re.compile(r"[+-]?\d{1,9}(\.0*)?")  # "1.0" is how pandas writes an integer column with gaps


@dataclass(frozen=True)
class Row:
    """One meme as a source tells it. `split` is the release's own word, None where it has none."""

    id: str
    source: str
    split: str | None
    image_path: Path
    text: str | None
    text_origin: str
    labels: Mapping[str, int | None]
    image: str  # as the table spells it
    file: Path
    row: int  # 1 is the first row below the header

    @property
    def where(self) -> str:
        return _where(self.file, self.row, self.id)


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, and why."""

    file: str
    row: int
    id: str
    reason: str


@dataclass
class BadRows:
    """The policy for rows that cannot be used: raise at the first one, or list and skip them."""

    on_bad: OnBad = "raise"
    rows: list[BadRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_bad not in ("raise", "skip"):
            raise ConfigError(f"on_bad: {self.on_bad!r} is neither 'raise' nor 'skip'")

    def add(self, file: Path, row: int, identity: str, error: MemeError) -> None:
        """Raises the error with file, row and id in front, unless bad rows are skipped."""
        if self.on_bad == "raise":
            raise type(error)(f"{_where(file, row, identity)}: {error} or pass --on-bad skip") from None
        self.rows.append(BadRow(file.name, row, identity, str(error)))

    def as_json(self) -> list[dict[str, object]]:
        return [asdict(row) for row in self.rows]


TRUTH = {"false": 0, "true": 1}  # a label of someone else may be a boolean


def parse_label(label: str, cell: str | None, values: Mapping[str, int] | None = None) -> int | None:
    """The value of one cell: a level's name, a truth value or an integer; None where the cell is missing.

    Args:
        values: what each spelling stands for, instead of the label's own levels.

    Raises:
        BadTableError: the cell is not a value of this label.
    """
    if cell is None or (not cell.strip() and values is None):
        return None
    if values is not None:
        spelling = _plain(cell, values)
        if spelling not in values:
            raise _not_allowed(label, cell, list(values))
        return values[spelling]
    names = TRUTH if label not in LEVELS else {name: value for value, name in LEVELS[label].items()}
    word = cell.strip().casefold()
    if word in names:
        return names[word]
    if not _INTEGER.fullmatch(word):
        raise _not_allowed(label, cell, _known_levels(label))
    value = int(word.split(".")[0])
    if label in LEVELS and value not in LEVELS[label]:
        raise _not_allowed(label, cell, _known_levels(label))
    return value


def safe_path(root: Path, name: str, folder: str = "") -> Path:
    """The file called `name` in `folder` (ends in a slash) of `root`.

    Raises:
        BadTableError: the name leads out of the folder (absolute, `..`, a link) or is no plain path.
    """
    parts = re.split(r"[/\\]", name)
    if not name or "\0" in name or "\\" in name or "://" in name or name.startswith(("/", "file:")) or ".." in parts:
        raise BadTableError(f"image path {name!r} is not a plain path inside {root.name!r}; correct the path")
    path = root / f"{folder}{name}"
    real_root = os.path.realpath(root)
    if os.path.commonpath([real_root, os.path.realpath(path)]) != real_root:
        raise BadTableError(f"image path {name!r} is a link that leads out of {root.name!r}; copy the file")
    return path


def check_unique(rows: Iterable[Row]) -> None:
    """Raises BadTableError that names the first five ids that occur twice."""
    rows = list(rows)
    repeated = [identity for identity, count in Counter(row.id for row in rows).items() if count > 1]
    if not repeated:
        return
    places = [f"{row.file.name} row {row.row}" for row in rows if row.id == repeated[0]]
    raise BadTableError(
        f"{len(repeated)} ids occur more than once: {', '.join(map(repr, repeated[:5]))}"
        f" (the first in {' and '.join(places[:2])}); give every meme its own id"
    )


def _where(file: Path, row: int, identity: str) -> str:
    return f"{file.name}, row {row} (id {json.dumps(identity, ensure_ascii=False)})"  # escapes control characters


def _plain(cell: str, values: Mapping[str, int]) -> str:
    """`1.0` means the listed `1`; any other spelling means itself."""
    word = cell.strip()
    return word.split(".")[0] if word not in values and _INTEGER.fullmatch(word) else word


def _known_levels(label: str) -> list[str]:
    return [f"{value} ({name})" for value, name in LEVELS[label].items()] if label in LEVELS else ["an integer"]


def _not_allowed(label: str, cell: str, allowed: list[str]) -> BadTableError:
    return BadTableError(f"{label} is {cell!r}, allowed: {', '.join(allowed)}; correct the value")
