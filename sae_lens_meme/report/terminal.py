"""An evaluation in a terminal: what was found in a few sentences, or every row."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_lens_meme.report.blocks import Block, blocks, cautions, heading, number, verdicts, visible

MOST_LINES = 22
"""Of the summary; `run` prints three more, the last of them the path of the report."""
MOST_CAUTIONS = 4


def print_summary(evaluation: dict[str, Any], console: Console, page: Path, full: bool = False) -> None:
    """What was found, what to distrust, and the page to open, in at most 22 lines of 110 characters.

    Args:
        full: every row was printed, so the hint to `--full` is left out.
    """
    console.print(Text(heading(evaluation), style="bold"))
    doubts = _fitting(cautions(evaluation), console, MOST_CAUTIONS)
    for line in _fitting(verdicts(evaluation), console, MOST_LINES - 5 - len(doubts)):
        console.print(line)
    if doubts:
        console.print(Text("What to distrust", style="bold"))
        for line in doubts:
            line.stylize("dim")
            console.print(line)
    more = "" if full else "  (all rows in the terminal: --full)"
    console.print(Text.assemble(("Open ", "bold"), str(page), more), soft_wrap=True)


def _fitting(sentences: list[str], console: Console, most: int) -> list[Text]:
    """The first sentences, as lines that fit the terminal, and how many are left."""
    lines: list[Text] = []
    for i, sentence in enumerate(sentences):
        wrapped = list(Text(f"- {sentence}").wrap(console, max(console.width, 110)))
        if len(lines) + len(wrapped) > most - (i < len(sentences) - 1):
            return [*lines, Text(f"- and {len(sentences) - i} more on the page")]
        lines += wrapped
    return lines


def print_report(evaluation: dict[str, Any], console: Console) -> None:
    """Every row of every section."""
    console.print(Text(heading(evaluation), style="bold"))
    for block in blocks(evaluation):
        console.print(Text(f"\n{block.title}", style="bold"))
        console.print(_table(block))
        console.print(Text(block.note, style="dim"))
    console.print()
    for line in verdicts(evaluation):
        console.print(Text(f"- {line}"))
    if doubts := cautions(evaluation):
        console.print(Text("What to distrust", style="bold"))
        for line in doubts:
            console.print(Text(f"- {line}"))


def print_result(result: Any, console: Console) -> None:
    """The rows of one result, and what to conclude."""
    print_rows({"sections": result.sections(), "table": result.rows(), "verdict": result.verdict}, console)


def print_rows(found: dict[str, Any], console: Console) -> None:
    """The same of what a step wrote of it."""
    for block in blocks(found):
        console.print(Text(block.title, style="bold"))
        console.print(_table(block))
        console.print(Text(block.note, style="dim"))
    if found["verdict"]:
        console.print(Text(f"- {visible(found['verdict'])}"))


def report_text(evaluation: dict[str, Any]) -> str:
    """The full report as plain text."""
    file = io.StringIO()
    print_report(evaluation, Console(file=file, width=110, highlight=False, force_jupyter=False))
    return file.getvalue()


def plain_table() -> Table:
    """One look for all tables."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, collapse_padding=True)


def _table(block: Block) -> Table:
    """Numbers are never cut: in a narrow terminal headings and labels wrap instead."""
    table = plain_table()
    table.add_column("")
    for i, name in enumerate(block.columns, start=1):
        width = max((len(row[i]) for row in block.rows), default=0)
        table.add_column(Text(name), justify="right", min_width=width, overflow="fold")
    for row in block.rows:
        table.add_row(*map(Text, row))
    return table


def print_description(tables: Iterable[dict[str, Any]], console: Console) -> None:
    """Each table of a description's `to_dict()`, and what to conclude from it."""
    for described in tables:
        console.print(Text(visible(described["title"]), style="bold"))
        table = plain_table()
        for i, name in enumerate(described["columns"]):
            table.add_column(Text(visible(name)), justify="right" if i else "left", overflow="fold")
        for row in described["rows"]:
            table.add_row(*(Text(_cell(row[name])) for name in described["columns"]))
        console.print(table)
        console.print(Text(visible(described["conclusion"])), soft_wrap=True)
        console.print()


def _cell(value: Any) -> str:
    return visible(value) if isinstance(value, str) else number(value)
