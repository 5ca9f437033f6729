"""An evaluation in a terminal: what was found in a few sentences, or every row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_lens_meme.report.blocks import Block, blocks, cautions, heading, verdicts

MOST_CAUTIONS = 5


def print_summary(evaluation: dict[str, Any], console: Console, page: Path) -> None:
    """What was found, what to distrust, and the page to open, in about twenty lines."""
    console.print(Text(heading(evaluation), style="bold"))
    for sentence in verdicts(evaluation):
        console.print(Text(f"- {sentence}"))
    if found := cautions(evaluation):
        console.print(Text("What to distrust", style="bold"))
        for line in found[:MOST_CAUTIONS]:
            console.print(Text(f"- {line}", style="dim"))
        if len(found) > MOST_CAUTIONS:
            console.print(Text(f"- and {len(found) - MOST_CAUTIONS} more on the page", style="dim"))
    console.print(Text.assemble(("Open ", "bold"), str(page), "  (all rows in the terminal: --full)"), soft_wrap=True)


def print_report(evaluation: dict[str, Any], console: Console) -> None:
    """Every row of every section."""
    console.print(Text(heading(evaluation), style="bold"))
    for block in blocks(evaluation):
        console.print(Text(f"\n{block.title}", style="bold"))
        console.print(_table(block))
        console.print(Text(block.note, style="dim"))
    console.print()
    for line in [*verdicts(evaluation), *cautions(evaluation)]:
        console.print(Text(f"- {line}"))


def report_text(evaluation: dict[str, Any]) -> str:
    """The full report as plain text."""
    file = io.StringIO()
    print_report(evaluation, Console(file=file, width=110, highlight=False, force_jupyter=False))
    return file.getvalue()


def _table(block: Block) -> Table:
    """Numbers are never cut: in a narrow terminal headings and labels wrap instead."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, collapse_padding=True)
    table.add_column("")
    for i, name in enumerate(block.columns, start=1):
        width = max((len(row[i]) for row in block.rows), default=0)
        table.add_column(Text(name), justify="right", min_width=width, overflow="fold")
    for row in block.rows:
        table.add_row(*map(Text, row))
    return table
