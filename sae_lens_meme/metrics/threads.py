"""Two threads for work that numpy, scipy and numba do without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_threads(
    function: Callable[[Item], Found], items: Iterable[Item], cost: Callable[[Item], float] | None = None
) -> list[Found]:
    """`list(map(function, items))`, two at a time, with one BLAS thread each.

    On thin matrices two BLAS threads of one product wait for each other. A function that sets such a limit itself is
    safe in here: what it restores is this limit.

    Args:
        cost: what is larger takes longer and is begun earlier, so that no thread waits long for the other at the end.
    """
    items = list(items)
    order = sorted(range(len(items)), key=lambda i: 0 if cost is None else -cost(items[i]))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2) as threads:
        begun = {i: threads.submit(function, items[i]) for i in order}
        return [begun[i].result() for i in range(len(items))]
