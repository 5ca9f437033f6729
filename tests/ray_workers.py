"""Workers for a Ray cluster that count, fail, die, and differ; a module, so that other processes can import them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Value

from sae_lens_meme.engines import ClusterOptions, engine_of, on_ray
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import StepFolder


class Squares:
    """The column `n` of ten rows a task. In the folder a file `kill-TASK-*` or `fail-TASK` is a death or a failure, and
    `slowly` has each take a while."""

    def __init__(self, folder: Path, facts: dict[str, Any] | None = None):
        self.folder, self.facts = folder, facts or {}

    @classmethod
    def of_threads(cls, folder: Path) -> Squares:
        return cls(folder, {"threads": os.environ["OMP_NUM_THREADS"], "blas": on_ray._blas_threads()})

    def __call__(self, tasks: Iterable[int], advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            for order in sorted(self.folder.glob(f"kill-{task}-*")):
                order.unlink()  # once
                os.kill(os.getpid(), signal.SIGKILL)
            if (self.folder / f"fail-{task}").exists():
                raise ValueError(f"no {task}")
            if (self.folder / "slowly").exists():
                time.sleep(0.1)
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


def write_squares(out: Path, orders: Path, n: int, kind: Any = "ray", make: Any = Squares, **cluster: Any) -> None:
    """A dataset of n shards, as a step writes one."""
    orders.mkdir(exist_ok=True)
    with (
        engine_of(kind, ClusterOptions(**cluster), partial(make, orders)) as engine,
        StepFolder(out, "squares", {}) as folder,
    ):
        missing = [i for i in range(n) if not folder.has(f"data-{i:05d}-of-{n:05d}.arrow")]
        done = [0]
        columns = engine.map_shards(missing, lambda n: done.append(n), lambda task: 10)
        write_dataset(folder, Features({"n": Value("int64")}), [partial(next, columns)] * n)
        folder.finish()
        assert sum(done) == 10 * len(missing)


if __name__ == "__main__":
    write_squares(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), actors=2, address="local")
