"""How a row of the table is measured: medians, a warm-up outside the timing, and a check that both sides agree."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """One job, both ways. Seconds are of the whole job; `part` says what the loop was really run on."""

    job: str
    naive_s: float | None
    """None where there is no loop to compare with: `agreement` is then empty."""
    ours_s: float
    goal: str
    met: bool | None
    agreement: str
    part: str = "all of it"
    note: str = ""
    warm_up_s: float = 0.0
    kindest_s: float | None = None
    """Of the kindest rival (`kindest.py`, or a library's own), on all of the job; None where the loop is that."""
    kindest: str = ""
    """What it is."""

    @property
    def kindest_ratio(self) -> float | None:
        return None if self.kindest_s is None else self.kindest_s / self.ours_s

    @property
    def ratio(self) -> float | None:
        return None if self.naive_s is None else self.naive_s / self.ours_s


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def median_time(function: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median seconds of several calls, and the last result."""
    runs = [timed(function) for _ in range(repeats)]
    return statistics.median(seconds for seconds, _ in runs), runs[-1][1]


def interleaved(functions: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each, called in turn: a change of load meets all of them."""
    rounds = [[timed(function)[0] for function in functions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def waited(child: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Seconds from now to the end of a process that was just started, and its peak memory in bytes."""
    start = time.perf_counter()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - start, used.ru_maxrss * 1024.0  # Linux counts in kB


def require_close(what: str, ours: Any, naive: Any, *, rtol: float = 0.0, atol: float = 0.0) -> str:
    """The largest difference, for the table.

    Raises:
        AssertionError: it is larger than allowed: then the times of the two mean nothing.
    """
    ours, naive = np.asarray(ours, dtype=np.float64), np.asarray(naive, dtype=np.float64)
    np.testing.assert_allclose(ours, naive, rtol=rtol, atol=atol, err_msg=what)
    difference = np.abs(ours - naive)
    if rtol:
        difference = difference / np.maximum(np.abs(naive), 1e-300)
    largest = float(difference.max(initial=0))
    return f"{what} {'exactly' if largest == 0 else f'to {largest:.0e}'}"


def seconds(value: float) -> str:
    """Three significant digits, in the unit that reads best."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f} MB" if value < 1e9 else f"{value / 1e9:.2f} GB"
