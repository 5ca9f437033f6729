"""What a section of the printed table is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]


class Section(NamedTuple):
    title: str
    note: str
    """What the columns beside the value are."""
    rows: Callable[[str, dict[str, Any]], list[Row]]
    """From the title and the content of `evaluation.json`."""


def row(section: str, measure: str, value: Any, controls: dict[str, Any], low: Any = None, high: Any = None) -> Row:
    return {"section": section, "measure": measure, "value": value, "low": low, "high": high, "controls": controls}


def numbers(evaluation: dict[str, Any], name: str) -> dict[str, Any]:
    return evaluation["results"].get(name, {}).get("numbers", {})
