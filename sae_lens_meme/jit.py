"""The one decorator that compiles a kernel: numba's `njit`, cached on disk where a folder can be written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Callable], Any]:
    """Compile with `options`; where the cache has no folder, compile again in every process.

    numba looks for a folder in NUMBA_CACHE_DIR, beside the source and in the user's home, and raises
    where it finds none (a read-only installation). The temporary folder is not a substitute: the cache
    is pickled, and others can write there.
    """

    def compiled(kernel: Callable) -> Any:
        dispatcher = numba.njit(**options)(kernel)
        with suppress(RuntimeError):
            dispatcher.enable_caching()
        return dispatcher

    return compiled
