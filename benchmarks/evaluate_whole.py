"""The whole `sae-lens-meme evaluate` in a process of its own on two cores: seconds, seconds an evaluator, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import Shape
from benchmarks.measure import Row, megabytes, waited

GOAL_SECONDS, CORES = 120, 2
BEFORE, AFTER = "imports, loading, encoding", "JSON, tables, page, figure"


def run(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        warm_up, _, _ = _evaluate(Path(folder) / "small", Shape.of(True))
        if quick:
            return _rows(Shape.of(True), *_evaluate(Path(folder) / "again", Shape.of(True)), warm_up)
        return _rows(Shape(), *_evaluate(Path(folder) / "whole", Shape()), warm_up)


def _rows(shape: Shape, seconds: float, memory: float, laps: list[tuple[str, float]], warm_up: float) -> list[Row]:
    laps = [*laps, (AFTER, seconds - sum(lap for _, lap in laps))]
    whole = Row(
        f"the whole evaluate, {shape.n:,} memes, {shape.d_sae:,} latents, k {shape.k}, 8 labels, 200 resamples",
        *(None, seconds, f"≤ {GOAL_SECONDS} s", seconds <= GOAL_SECONDS, ""),
        note=f"{CORES} cores, peak memory {megabytes(memory)}; without the SAE on shuffled data, which is trained once",
        warm_up_s=warm_up,
    )
    return [whole, *(Row(f"of it: {name}", None, lap, "none", None, "") for name, lap in laps)]


def _evaluate(folder: Path, shape: Shape) -> tuple[float, float, list[tuple[str, float]]]:
    """Seconds from the command to its end, peak memory in bytes, and seconds of each part."""
    subprocess.run([sys.executable, "-m", __name__, "write", str(folder), json.dumps(vars(shape))], check=True)
    command = [sys.executable, "-m", __name__, "evaluate", str(folder), repr(time.time())]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # as the command line sets it
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, not at each import
    with open(folder / "log.txt", "w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        seconds, memory = waited(child)
    if child.returncode:
        raise RuntimeError((folder / "log.txt").read_text()[-2000:])
    return seconds, memory, json.loads((folder / "laps.json").read_text())


def _write(folder: Path, shape: Shape) -> None:
    from benchmarks.corpus_of_arrays import write_embeddings, write_sae

    write_sae(folder / "sae", write_embeddings(folder, shape), shape)


def _timed_evaluate(folder: Path, started: float) -> None:
    """The command with a clock around each evaluator."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    from sae_lens_meme.cli import main
    from sae_lens_meme.evaluators import Evaluator

    laps: list[tuple[str, float]] = []

    evaluate = Evaluator.evaluate

    def with_clock(self: Evaluator, *given: Any) -> Any:
        if not laps:
            laps.append((BEFORE, time.time() - started))
        start = time.perf_counter()
        try:
            return evaluate(self, *given)
        finally:
            laps.append((self.name, time.perf_counter() - start))

    Evaluator.evaluate = with_clock  # type: ignore[method-assign]
    paths = ["--sae", folder / "sae", "--embeddings", folder / "embeddings", "--out", folder / "evaluation"]
    sys.argv = ["sae-lens-meme", "evaluate", *map(str, paths)]
    try:
        main()
    finally:
        (folder / "laps.json").write_text(json.dumps(laps))


if __name__ == "__main__":
    action, where, argument = sys.argv[1:]
    if action == "write":
        _write(Path(where), Shape(**json.loads(argument)))
    else:
        _timed_evaluate(Path(where), float(argument))
