"""Compiled loops in parts, one a thread, as many as torch has."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch


def in_parts(kernel: Callable[..., None], bounds: Sequence[int], *arguments: Any) -> None:
    """`kernel(start, stop, ...)` for each part, one of them in this thread."""
    parts = list(pairwise(bounds))
    begun = [_threads(os.getpid()).submit(kernel, *part, *arguments) for part in parts[1:]]
    kernel(*parts[0], *arguments)
    for thread in begun:
        thread.result()


def even_parts(n: int) -> list[int]:
    """The bounds of parts of `n` rows."""
    parts = torch.get_num_threads()
    return [n * part // parts for part in range(parts + 1)]


@cache
def _threads(pid: int) -> ThreadPoolExecutor:
    """Of this process: a fork has none of the threads."""
    return ThreadPoolExecutor(os.cpu_count())
