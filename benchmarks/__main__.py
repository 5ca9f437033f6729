"""Ours beside the published loops, in one process, on the same data: `python -m benchmarks [--only NAME] [--quick]`."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads make small steps 20 x slower

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from benchmarks.measure import Row, seconds

NAMES = (
    *("association", "thresholds", "influence", "monosemanticity", "cross_modal"),
    *("training", "extraction", "latents_on_disk", "evaluate_whole", "report"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=NAMES, action="append", help="one of them; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small shapes: checks the numbers, the times mean nothing")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    console, rows = Console(), []
    for name in arguments.only or NAMES:
        with console.status(name):
            rows += importlib.import_module(f"benchmarks.{name}").run(arguments.quick)
    console.print(table_of(rows, arguments.quick))
    warm_up = sum(row.warm_up_s for row in rows)
    console.print(
        f"Not timed: first calls, in which numba compiles or loads what it compiled before ({warm_up:.1f} s)."
    )
    if arguments.json:
        found = [asdict(row) | {"ratio": row.ratio, "kindest_ratio": row.kindest_ratio} for row in rows]
        arguments.json.write_text(json.dumps(found, indent=1, default=float) + "\n")


def table_of(rows: list[Row], quick: bool) -> Table:
    """The loop's time is extrapolated unless it ran on all of the job; a job of its own has none."""
    table = Table(
        "job",
        *(Column(c, justify="right") for c in ("loop", "kindest", "ours", "loop / ours", "kindest / ours")),
        "goal",
        show_lines=True,
    )
    for row in rows:
        job, naive, ratio = [row.job], "", ""
        if row.naive_s is not None and row.ratio is not None:
            job += [f"[dim]loop run on {row.part}", f"[dim]both give the same {row.agreement}"]
            naive, ratio = seconds(row.naive_s), times(row.ratio)
        kindest, kindest_ratio = "", ""
        if row.kindest_s is not None and row.kindest_ratio is not None:
            kindest, kindest_ratio = seconds(row.kindest_s), times(row.kindest_ratio)
            job += [f"[dim]kindest rival: {row.kindest}"]
        goal = "" if quick else row.goal if row.met is None else f"{row.goal}: {'met' if row.met else 'MISSED'}"
        job += [f"[dim]{row.note}"] if row.note else []
        table.add_row("\n".join(job), naive, kindest, seconds(row.ours_s), ratio, kindest_ratio, goal)
    return table


def times(ratio: float) -> str:
    return f"{ratio:,.1f}x" if ratio < 100 else f"{ratio:,.0f}x"


if __name__ == "__main__":
    main()
