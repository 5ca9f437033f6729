"""Workers for a Ray cluster that count, fail, die, and differ; a module, so that other processes can import them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.engines import on_ray


class Squares:
    """The column `n` of ten rows a task. A file `kill-TASK-*` or `fail-TASK` in the folder is a death or a failure."""

    def __init__(self, folder: Path, facts: dict[str, Any] | None = None):
        self.folder, self.facts = folder, facts or {}

    @classmethod
    def of_threads(cls, folder: Path) -> Squares:
        return cls(folder, {"threads": os.environ["OMP_NUM_THREADS"]})

    def __call__(self, tasks: Iterable[int], advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            for order in sorted(self.folder.glob(f"kill-{task}-*")):
                order.unlink()  # once
                os.kill(os.getpid(), signal.SIGKILL)
            if (self.folder / f"fail-{task}").exists():
                raise ValueError(f"no {task}")
            advance(10)
            yield {"n": (np.arange(10) + 10 * task) ** 2}


def unlike(folder: Path) -> Squares:
    """Each worker says something else of its weights."""
    return Squares(folder, {"model": {"weights": os.getpid()}})


def older(folder: Path) -> Squares:
    on_ray.__version__ = "0.0.9"
    return Squares(folder)


def broken(folder: Path) -> Squares:
    return Squares(folder, {"weights": on_ray.ConfigError("x").missing})  # type: ignore[attr-defined]
