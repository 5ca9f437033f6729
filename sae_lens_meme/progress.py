"""One progress display for all long work, on stderr: a bar in a terminal or a notebook, an occasional line in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[..., None]


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else "")


def draws_bars() -> bool:
    """In a terminal or a notebook; into a log bars are noise."""
    console = Console(stderr=True)
    return console.is_terminal or console.is_jupyter


@contextmanager
def progress_bar(title: str, total: int, unit: str = "memes", show: bool = True) -> Iterator[Advance]:
    """Yields `advance(n, now="")`: n more are done, and `now` is under way."""
    console = Console(stderr=True)
    if show and not draws_bars():
        yield _lines(console, title, total, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not show) as progress:
        task = progress.add_task(title, total=total)

        def advance(n: int, now: str = "") -> None:
            progress.update(task, advance=n, description=f"{title}: {now}" if now else None)

        yield advance


def _lines(console: Console, title: str, total: int, unit: str) -> Advance:
    """A line every ten seconds; short work prints none."""
    started = last = time.monotonic()
    done = 0

    def advance(n: int, now: str = "") -> None:
        nonlocal last, done
        done += n
        if (seconds := time.monotonic()) - last >= SECONDS_BETWEEN_LINES:
            last = seconds
            left = (seconds - started) / done * (total - done) if done else None
            rest = "" if left is None else f", about {left:,.0f} s left"
            line = f"{title}: {done:,} of {total:,} {unit}{f' ({now})' if now else ''}{rest}"
            console.print(Text(line), soft_wrap=True)

    return advance
