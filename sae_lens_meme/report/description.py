"""A description of a corpus in a terminal. Nothing here counts anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_lens_meme.report.blocks import number, visible


def print_description(tables: Iterable[dict[str, Any]], console: Console) -> None:
    """Each table of a description's `to_dict()`, and what to conclude from it."""
    for described in tables:
        console.print(Text(visible(described["title"]), style="bold"))
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, collapse_padding=True)
        for i, name in enumerate(described["columns"]):
            table.add_column(Text(visible(name)), justify="right" if i else "left", overflow="fold")
        for row in described["rows"]:
            table.add_row(*(Text(_cell(row[name])) for name in described["columns"]))
        console.print(table)
        console.print(Text(visible(described["conclusion"])), soft_wrap=True)
        console.print()


def _cell(value: Any) -> str:
    return visible(value) if isinstance(value, str) else number(value)
