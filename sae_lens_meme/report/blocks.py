"""The blocks of the printed table as cells of text: one place for how a number and a foreign text are shown."""

from __future__ import annotations

import textwrap
import unicodedata
from typing import Any, NamedTuple

from sae_lens_meme.row_kind import MEME

Row = dict[str, Any]


class Block(NamedTuple):
    """One section: a heading, a table and what its columns are."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]
    """The label, then a cell per column."""


def blocks(evaluation: dict[str, Any]) -> list[Block]:
    """Every section of an evaluation that has a row."""
    found = []
    for section in evaluation["sections"]:
        rows = [row for row in evaluation["table"] if row["section"] == section["title"]]
        controls = list(dict.fromkeys(name for row in rows for name in row["controls"]))
        interval = any(row["low"] is not None for row in rows)
        columns = ["value", *(["95 %"] if interval else []), *controls]
        cells = [
            [row["measure"], number(row["value"]), *([_interval(row)] if interval else []), *_controls(row, controls)]
            for row in rows
        ]
        title, note = visible(section["title"]), visible(section["note"])
        found.append(Block(title, note, [visible(name) for name in columns], _visible(cells)))
    return found


def wrapped(text: Any, width: int = 38) -> str:
    """A foreign text in lines of a width, control characters shown, `$` not taken for mathematics."""
    return "\n".join(textwrap.wrap(visible(str(text)).replace("$", r"\$"), width)) or " "


def heading(evaluation: dict[str, Any]) -> str:
    """What was evaluated on what, in one line."""
    sae, memes = evaluation["sae"], evaluation["embeddings"]
    splits = ", ".join(f"{n:,} {split}" for split, n in memes["splits"].items())
    k = "" if sae["k"] is None else f", k {sae['k']}"
    rows = memes.get("rows", MEME.many) + (f" of {n:,} pictures" if (n := memes.get("n_pictures")) else "")
    return visible(
        f"{sae['training_architecture'] or sae['architecture']} with {sae['d_sae']:,} latents{k} at {sae['hook']} "
        f"(d_in {sae['d_in']}) of {memes['model']}; {rows}: {splits}"
    )


def verdicts(evaluation: dict[str, Any]) -> list[str]:
    """What each evaluator concludes."""
    return [visible(result["verdict"]) for result in evaluation["results"].values() if result["verdict"]]


def cautions(evaluation: dict[str, Any]) -> list[str]:
    """What to distrust, and what could not be measured."""
    skipped = [
        f"{name.replace('_', ' ').capitalize()} could not be measured: {reason.rstrip('.')}."
        for name, reason in evaluation["skipped"].items()
    ]
    return [visible(line) for line in [*evaluation.get("warnings", []), *skipped]]


def number(value: float | int | None) -> str:
    """Three decimals, more where needed; undefined is a dash."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 100 or (value == round(value) and abs(value) != 1):
        return f"{value + 0:,.0f}"  # + 0: no -0
    if abs(value) >= 0.001:
        return f"{value:.3f}"
    return f"{value:.4f}" if abs(value) >= 0.0001 else f"{value:.0e}"


def visible(text: str) -> str:
    """Control characters and bidirectional overrides are shown, not interpreted."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") else c for c in str(text)
    )


def _visible(rows: list[list[str]]) -> list[list[str]]:
    return [[visible(cell) for cell in row] for row in rows]


def _controls(row: Row, names: list[str]) -> list[str]:
    return [number(row["controls"][name]) if name in row["controls"] else "" for name in names]


def _interval(row: Row) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    count = isinstance(row["value"], int)
    return " to ".join(number(round(end) if count else end) for end in (row["low"], row["high"]))
