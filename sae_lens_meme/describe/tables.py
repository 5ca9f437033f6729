"""A description as tables, each with the sentence that it ends in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DescriptionTable:
    """One table: a row is a list of cells in the order of the columns; None is undefined."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Any]]
    conclusion: str

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Description:
    """The tables, and the counts behind the histograms of the figure."""

    tables: dict[str, DescriptionTable]
    histograms: dict[str, dict[str, list[float]]]
    """By name `edges` and `counts`."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON: of each table its rows as records."""
        tables = {name: {**asdict(table), "rows": table.records()} for name, table in self.tables.items()}
        return {"tables": tables, "histograms": self.histograms}


def percent(part: float, whole: float) -> str:
    """A share as text; a small one is not rounded to zero."""
    share = part / whole if whole else 0.0
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
