"""A program: corpus, embed and train on small memes, through SIGKILLs at random moments; prints what came of it as JSON.

It imports everything and computes nothing, so that each run is a fork: a second instead of the twenty of a new process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from seen_memes import EMBED

from sae_lens_meme.corpus import build_corpus
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.planted import write_planted
from sae_lens_meme.train import train

TRAINING = {"epochs": 6, "train_batch_size_tokens": 32, "n_checkpoints": 4, "sae": {"d_sae": 64, "k": 4}}


def steps(memes: Path, out: Path) -> None:
    paths = write_planted(memes, scale=0.02, progress=False)
    sources = {"pridemm": paths.pridemm, "hmc": paths.hmc, "memotion": paths.memotion}
    build_corpus(out / "corpus", **sources, shard_size=20, progress=False)
    embed_corpus(out / "corpus", out / "embeddings", **EMBED)
    train(TRAINING, embeddings=out / "embeddings", out=out / "sae", progress=False)


def forked(work: Callable[[], None], kill_after: float | None = None) -> int:
    """The status of a child that does the work: 0, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)  # not reaped yet: the number is still that of this child
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main(folder: Path, n_runs: int, n_kills: int) -> None:
    memes, moments = folder / "memes", random.Random(0)
    assert forked(lambda: steps(memes, folder / "first")) == 0  # the memes are drawn in it, too
    started = time.perf_counter()
    assert forked(lambda: steps(memes, folder / "straight")) == 0
    seconds, straight = time.perf_counter() - started, contents(folder / "straight")
    killed, differing = 0, []
    for i in range(n_runs):
        out = folder / f"run-{i}"
        for _ in range(n_kills):
            status = forked(lambda out=out: steps(memes, out), moments.uniform(0, 0.4 * seconds))
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
        assert forked(lambda out=out: steps(memes, out)) == 0
        found = contents(out)
        differing += [
            f"{out.name}/{name}" for name in straight.keys() | found.keys() if straight.get(name) != found.get(name)
        ]
    print(json.dumps({"files": len(straight), "killed": killed, "differing": sorted(differing)}))
