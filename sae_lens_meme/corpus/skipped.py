"""Rows that cannot be used: raise at the first, or list them, count them by reason, and never lose a class with them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sae_lens_meme.errors import BadTableError, MemeError
from sae_lens_meme.labels import LEVELS

if TYPE_CHECKING:
    from sae_lens_meme.corpus.rows import Row

OnBad = Literal["raise", "skip"]
_SYSTEMATIC = 0.01
"""From this share of a source's rows on, an unknown spelling counts as one more class, not as a slip."""


class BadCell(BadTableError):
    """What is wrong with one row, and in a few words the kind of fault that it is counted under."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, and why."""

    file: str
    row: int
    id: str
    reason: str
    kind: str
    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """Its labels and its split; the cell's text where that cannot be read."""

    @property
    def where(self) -> str:
        return place(self.file, self.row, self.id)

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "row": self.row, "id": self.id, "kind": self.kind, "reason": self.reason}


@dataclass
class BadRows:
    """The policy for rows that cannot be used."""

    on_bad: OnBad = "raise"
    rows: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was not read of a source, in a sentence."""

    def add(self, row: BadRow, error: type[MemeError] = BadTableError) -> None:
        """Raises the error with file, row and id in front, unless bad rows are skipped."""
        if self.on_bad == "raise":
            raise error(f"{row.where}: {row.reason} or pass --on-bad skip") from None
        self.rows.append(row)


def place(file: str, row: int, identity: str) -> str:
    """File, row and id, in which control characters are escaped and a long id is cut."""
    shown = identity if len(identity) <= 100 else f"{identity[:97]}..."
    return f"{file}, row {row} (id {json.dumps(shown, ensure_ascii=False)})"


def require_every_class(kept: Iterable[Row], skipped: Iterable[BadRow]) -> None:
    """Skipping may cost rows, never a whole class of a label, nor a whole split.

    Raises:
        BadTableError: it does; the message names source, label, class, how many rows, and the first reason.
    """
    sizes: Counter[str] = Counter()
    left = set()
    for row in kept:
        sizes[row.source] += 1
        left |= {(row.source, name, value) for name, value in {**row.labels, "split": row.split}.items()}
    lost: defaultdict[tuple[str, str, Any], list[BadRow]] = defaultdict(list)
    for bad in skipped:
        sizes[bad.source] += 1
        for name, value in bad.values.items():
            if value is not None and (bad.source, name, value) not in left:
                lost[bad.source, name, value].append(bad)
    for (source, name, value), rows in lost.items():
        if isinstance(value, int) or len(rows) > max(1, _SYSTEMATIC * sizes[source]):
            shown = f"{value} ({LEVELS[name][value]})" if value in LEVELS.get(name, ()) else repr(value)[:100]
            count = "the only row" if len(rows) == 1 else f"all {len(rows):,} rows"
            raise BadTableError(
                f"{source}: skipping would lose {count} with {name} {shown}; the first is {rows[0].where}: "
                f"{rows[0].reason}; a whole class that goes missing is a fault of the table, not of a row"
            )


def count_skipped(rows: Iterable[BadRow]) -> dict[str, int]:
    """Rows by kind of fault, the most frequent first."""
    return dict(Counter(row.kind for row in rows).most_common())


def skipped_line(counts: Mapping[str, int]) -> str | None:
    """`4 rows skipped: 3 broken pictures, 1 repeated id`, None if there are none."""
    if not counts:
        return None
    total = sum(counts.values())
    parts = ", ".join(f"{count:,} {kind}{'s' * (count != 1)}" for kind, count in counts.items())
    return f"{total:,} row{'s' * (total != 1)} skipped: {parts} (listed in bad_rows.jsonl)"
