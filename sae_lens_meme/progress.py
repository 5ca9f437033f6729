"""One progress bar for all long work: what is done, memes a second, time left. It goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else "")


@contextmanager
def progress_bar(title: str, total: int, unit: str = "memes", show: bool = True) -> Iterator[Callable[..., None]]:
    """Yields `advance(n, now="")`: so many more are done, `now` is under way. Nothing is drawn unless stderr is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as progress:
        task = progress.add_task(title, total=total)

        def advance(n: int, now: str = "") -> None:
            progress.update(task, advance=n, description=f"{title}: {now}" if now else None)

        yield advance
