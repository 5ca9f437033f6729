"""`evaluate` on Ray workers beside one process: `python -m benchmarks.workers [--memes N] [--latents D] [--quick]`.

The same folder comes out; seconds, and peak memory of each process. The default is a million memes and 65,536 latents.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads make small steps 20 x slower

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from datasets import Array2D, Features, Value

from benchmarks.corpus_of_arrays import write_sae
from benchmarks.data import Shape
from benchmarks.measure import megabytes, seconds
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import StepFolder

ONLY = ("reconstruction", "concept_alignment", "cross_concept", "baselines", "influence", "subgroups", "superposition")
"""Evaluators that need no caption and no second encoder."""
LABELS = {"hate": 0.3, "offensive": 0.5, "sarcasm": 0.2, "motivational": 0.1}
"""Share of the memes on which each is true; it is known of four in five."""
N_FACTORS, SHARD, WORKERS = 64, 50_000, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--memes", type=int, default=1_000_000)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--d-in", type=int, default=256)
    parser.add_argument(
        "--without-one", action="store_true", help="leave out the run of one process, and the comparison"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small shape: checks the bytes, the numbers mean nothing"
    )
    parser.add_argument("--json", type=Path, help="also write what was measured here")
    given = parser.parse_args()
    shape = Shape(n=given.memes, d_in=given.d_in, d_sae=given.latents)
    found = measured(Shape(n=600, d_in=16, d_sae=64, k=4) if given.quick else shape, one=not given.without_one)
    print("| processes | seconds | this process | each worker | private of each |\n| --- | ---: | ---: | ---: | ---: |")
    for name, run in found.items():
        workers, private = (", ".join(map(megabytes, run[key])) or "-" for key in ("workers", "private"))
        print(f"| {name} | {seconds(run['seconds'])} | {megabytes(run['driver'])} | {workers} | {private} |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def measured(shape: Shape, one: bool) -> dict[str, Any]:
    """Seconds and peak bytes of each run.

    Raises:
        RuntimeError: a run failed, or its files are not those of the other.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_sae(folder / "sae", write_embeddings(folder / "embeddings", shape), shape)
        runs = {"one": ["--engine", "local"]} if one else {}
        runs["workers"] = ["--engine", "ray", "--actors", str(WORKERS), "--address", "local"]
        found = {name: run(folder, name, engine) for name, engine in runs.items()}
        if one and contents(folder / "one") != contents(folder / "workers"):
            raise RuntimeError("the two folders differ")
        return found


def run(folder: Path, name: str, engine: list[str]) -> dict[str, Any]:
    """The command, with one thread a process, and the largest memory of each: resident, and of the workers private.

    Embeddings and latents that processes map or share are resident in each; private memory is not mapped and not shared.
    """
    paths = ["--sae", folder / "sae", "--embeddings", folder / "embeddings", "--out", folder / name]
    only = [part for evaluator in ONLY for part in ("--only", evaluator)]
    command = [sys.executable, "-m", "sae_lens_meme.cli", "evaluate", *map(str, paths), *only, *engine]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    start, peaks, private = time.perf_counter(), dict[int, float](), dict[int, float]()
    with open(folder / f"{name}.txt", "w") as log:
        driver = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while driver.poll() is None:
            for process in [driver, *(p for p in driver.children(recursive=True) if _is_worker(p))]:
                peaks[process.pid] = max(peaks.get(process.pid, 0), _of(process, "VmHWM"))
                private[process.pid] = max(private.get(process.pid, 0), _of(process, "RssAnon"))
            time.sleep(0.5)
    if driver.returncode:
        raise RuntimeError((folder / f"{name}.txt").read_text()[-2000:])
    took, of_driver = time.perf_counter() - start, peaks.pop(driver.pid)
    private.pop(driver.pid)
    found = {"workers": sorted(peaks.values()), "private": sorted(private.values())}
    return {"seconds": took, "driver": of_driver, **found}


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::Actor")
    except psutil.Error:
        return False


def _of(process: psutil.Process, what: str) -> float:
    """VmHWM is the kernel's own high-water mark, which misses nothing between two looks; shared memory is in it."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_embeddings(folder: Path, shape: Shape) -> Embeddings:
    """In shards, each drawn by itself: many memes need no memory."""
    directions = np.random.default_rng(2).standard_normal((N_FACTORS, shape.d_in)).astype(np.float32)
    columns = {"id": Value("string"), "source": Value("string"), "split": Value("string")}
    labels = {name: Value("int64") for name in LABELS}
    features = Features({**columns, **labels, FUSED: Array2D((1, shape.d_in), "float32")})

    def shard(start: int) -> dict[str, Any]:
        rng, rows = np.random.default_rng(start), range(start, min(start + SHARD, shape.n))
        factors = rng.standard_normal((len(rows), N_FACTORS), np.float32)
        drawn = {
            name: [int(t) if k else None for t, k in zip(factors[:, i] > np.quantile(factors[:, i], 1 - p), rng.random(len(rows)) < 0.8, strict=True)]
            for i, (name, p) in enumerate(LABELS.items())
        }  # fmt: skip
        x = factors @ directions + rng.standard_normal((len(rows), shape.d_in), np.float32)
        return {
            "id": [f"{i}" for i in rows],
            "source": [("pridemm", "hmc", "memotion")[i % 3] for i in rows],
            "split": rng.choice(["train", "validation", "test"], len(rows), p=[0.8, 0.1, 0.1]).tolist(),
            **drawn,
            FUSED: x[:, None],
        }

    with StepFolder(folder, "embed", {"n": shape.n, "d": shape.d_in}) as step:
        write_dataset(step, features, [partial(shard, start) for start in range(0, shape.n, SHARD)])
        step.finish()
    return Embeddings.load(folder)


if __name__ == "__main__":
    main()
