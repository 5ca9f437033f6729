"""The table of an evaluation in a terminal, and the same as a page."""

from __future__ import annotations

import io
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from sae_lens_meme.report.section import Row
from sae_lens_meme.report.sections import NOTES


def print_report(evaluation: dict[str, Any], console: Console) -> None:
    sae, memes = evaluation["sae"], evaluation["embeddings"]
    splits = ", ".join(f"{n:,} {split}" for split, n in memes["splits"].items())
    console.print(
        f"\n[bold]{sae['training_architecture'] or sae['architecture']}[/] d_in {sae['d_in']}, d_sae {sae['d_sae']}, "
        f"k {sae['k']} on {sae['hook']} of {memes['model']}; memes: {splits}"
    )
    for section, rows in groupby(evaluation["table"], key=lambda row: row["section"]):
        console.print(f"[bold]{section}[/]")
        console.print(_rich_table(list(rows)))
        console.print(f"[dim]{NOTES[section]}[/]\n")
    for name, reason in evaluation["skipped"].items():
        console.print(f"[dim]not done: {name}: {reason}[/]")


def report_html(evaluation: dict[str, Any]) -> str:
    """The printed report as one self-contained page."""
    console = Console(record=True, width=110, file=io.StringIO(), highlight=False)
    print_report(evaluation, console)
    return console.export_html(inline_styles=True, theme=DEFAULT_TERMINAL_THEME)


def _rich_table(rows: list[Row]) -> Table:
    """Numbers are never cut: in a narrow terminal headings and measures wrap instead."""
    names = list(dict.fromkeys(name for row in rows for name in row["controls"]))
    columns = {"value": [_number(row["value"]) for row in rows]}
    if any(row["low"] is not None for row in rows):
        columns["95 %"] = [_interval(row) for row in rows]
    columns |= {name: [_cell(row, name) for row in rows] for name in names}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, collapse_padding=True)
    table.add_column("")
    for name, cells in columns.items():
        table.add_column(name, justify="right", min_width=max(map(len, cells)), overflow="fold")
    for row, *cells in zip(rows, *columns.values(), strict=True):
        table.add_row(row["measure"], *cells)
    return table


def _cell(row: Row, name: str) -> str:
    return _number(row["controls"][name]) if name in row["controls"] else ""


def _interval(row: Row) -> str:
    if row["low"] is None:
        return ""
    count = isinstance(row["value"], int)
    return " to ".join(_number(round(end) if count else end) for end in (row["low"], row["high"]))


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 100 or (value == round(value) and abs(value) != 1):
        return f"{value:,.0f}"
    if abs(value) >= 0.001:
        return f"{value:.3f}"
    return f"{value:.4f}" if abs(value) >= 0.0001 else f"{value:.0e}"
