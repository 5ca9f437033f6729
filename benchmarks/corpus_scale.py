"""A generated corpus through `corpus` and `embed`: memory, rates, near duplicates: `python -m benchmarks.corpus_scale`.

Small drawn pictures, one in a hundred of them there twice and one in a hundred nearly so. Each step is a process of its
own. CPU seconds are of all its threads and workers, and do not depend on what else runs on the machine. With `--kills N`
both steps run once more, each through N SIGKILLs at random moments, and every file is compared with the first run's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from benchmarks.extraction import SENTENCE, _write_memes
from benchmarks.measure import megabytes, seconds
from sae_lens_meme.corpus.survey import near_pairs, perceptual_hashes
from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embed.options import EmbedOptions
from sae_lens_meme.images import open_image
from sae_lens_meme.storage import LOCK, MANIFEST, sha256_file

EVERY = 100
"""Of so many pictures one is a copy of the picture before it, byte for byte, and one a copy that was encoded again."""
GOAL_SHARE = 0.2
DTYPES = ("float32", "int8")
Measured = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus_scale", description=__doc__)
    parser.add_argument("--memes", type=int, nargs="+", default=[20_000, 200_000], help="sizes, each on its own")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made; some 10 kB a meme")
    parser.add_argument("--quick", action="store_true", help="400 memes and the demo encoder throughout")
    parser.add_argument("--no-encoder", action="store_true", help="leave ViT-L/14 out")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs a step of a second run; its bytes are compared")
    parser.add_argument("--json", type=Path, help="also write what was measured here")
    arguments = parser.parse_args()
    sizes = [400] if arguments.quick else arguments.memes
    found: list[Measured] = []
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found.append(run(Path(folder), n, arguments.kills))
        _print(markdown_of(found[-1:]))
        if arguments.kills:
            _print(sentence_of_kills(found[-1]["killed"]))
    ceiling = {} if arguments.no_encoder else share_of_loading("demo-encoder" if arguments.quick else "ViT-L-14/random")
    if ceiling:
        _print(sentence_of(ceiling))
    if arguments.json:
        arguments.json.write_text(json.dumps({"sizes": found, "share": ceiling}, indent=1) + "\n")


def run(folder: Path, n: int, n_kills: int = 0) -> Measured:
    """Seconds, CPU seconds and peak bytes of `corpus` and `embed` over `n` memes, and seconds of the near pairs."""
    write_memes(folder / "memes", n)
    found: Measured = {"memes": n, "load": os.getloadavg()[0]}
    steps = _steps(folder / "memes", folder / "straight")
    found |= {name: _step(*arguments) for name, arguments in steps.items()}
    if n_kills:
        found["killed"] = killed(folder / "memes", folder / "killed", found, n_kills)
        found["killed"] |= compared(folder / "straight", folder / "killed")
    hashes = _hashes_of(folder / "straight" / "corpus")
    start = time.process_time()
    pairs = near_pairs(hashes, 4)
    found["near"] = {"cpu": time.process_time() - start, "pictures": len(hashes), "pairs": len(pairs)}
    found["encoder"] = _encoder_alone()
    return found


def _steps(memes: Path, out: Path) -> dict[str, tuple[Any, ...]]:
    corpus = out / "corpus"
    return {
        "corpus": ("corpus", "--folder", memes, "--out", corpus),
        "embed": ("embed", corpus, "--model", "demo-encoder", "--out", out / "embed"),
    }


def killed(memes: Path, out: Path, straight: Measured, n_kills: int) -> Measured:
    """Of each step how long every run had before it was killed, and how many files were there then. The last one ends.

    Once it has started, which takes each as long as the first run, they have together at most as long as the step takes,
    so that none is done before its kill. Only the process that
    was started is killed: what its workers do then is part of what is tried.
    """
    moments, found = random.Random(0), Measured()
    for name, arguments in _steps(memes, out).items():
        found[name] = []
        for _ in range(n_kills):
            start, wall = straight[name]["start"], straight[name]["wall"]
            child, after = _started(*arguments), start + moments.uniform(0, (wall - start) / n_kills)
            try:
                status = child.wait(after)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait()
            found[name].append({"status": status, "after": after, "files": len(_hashes(out / name))})
        _step(*arguments)
    return found


def compared(straight: Path, other: Path) -> Measured:
    """How many files there are in all, and which of them are not the same in both."""
    one, two = _hashes(straight), _hashes(other)
    names = sorted(one.keys() | two.keys())
    return {"files": len(names), "differing": [name for name in names if one.get(name) != two.get(name)]}


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def sentence_of_kills(found: Measured) -> str:
    runs = [run for name in ("corpus", "embed") for run in found[name]]
    n, differing = sum(run["status"] == -signal.SIGKILL for run in runs), found["differing"]
    same = "all are the same" if not differing else f"{len(differing)} DIFFER: {', '.join(differing[:5])}"
    return f"After {n} SIGKILLs at random moments, {found['files']} files: {same}."


def write_memes(folder: Path, n: int) -> None:
    """JPEG files, a thousand a folder, and a table."""
    rng = np.random.default_rng(0)
    words = np.array(SENTENCE.split())
    last, lines = b"", []
    picture = Image.new("RGB", (1, 1))
    for i in range(n):
        name = f"{i // 1000:04}/{i:07}.jpg"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % EVERY != 1:  # else the bytes before it
            if i % EVERY != 2:
                coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                picture = coarse.resize((160, 120), Image.Resampling.BICUBIC)
            picture.save(path, quality=85 if i % EVERY != 2 else 60)
            last = path.read_bytes()
        else:
            path.write_bytes(last)
        caption = " ".join(rng.permutation(words)[: rng.integers(5, len(words))])
        lines.append(json.dumps({"file_name": name, "text": f"{caption} {i}", "hate": int(rng.integers(2))}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def share_of_loading(model: str) -> Measured:
    """CPU seconds a meme of what comes before the encoder, and of the encoder, on pictures of 640 x 480."""
    found: Measured = {"model": model}
    with tempfile.TemporaryDirectory() as folder:
        files = [path.read_bytes() for path, _ in _write_memes(Path(folder) / "memes", 8)]
    encoders = {
        dtype: Encoder.load(EmbedOptions(model=model, device="cpu", dtype=dtype, batch_size=8)) for dtype in DTYPES
    }
    towers = encoders["float32"].model.towers
    captions = [f"a caption of a meme, number {i}" for i in range(len(files))]

    def load() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([towers.preprocess(open_image(file)) for file in files]), towers.tokenize(captions)

    found["decoding"] = _cpu(load) / len(files)
    found["hashing"] = _cpu(lambda: [_hash(file) for file in files]) / len(files)
    pixels, tokens = load()
    for dtype, encoder in encoders.items():
        found[dtype] = _cpu(lambda e=encoder: (e.encode_image(pixels), e.encode_text(tokens))) / len(files)
    return found


def markdown_of(found: list[Measured]) -> str:
    lines = [
        "| memes | step | peak memory | CPU time a meme | wall time a meme | load |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in found:
        for name in ("corpus", "embed"):
            step, n = row[name], row["memes"]
            times = " | ".join(seconds(step[kind] / n) for kind in ("cpu", "wall"))
            lines.append(f"| {n:,} | {name} | {megabytes(step['memory'])} | {times} | {row['load']:.0f} |")
        near, encoder = row["near"], seconds(row["encoder"])
        lines.append(f"| {row['memes']:,} | the demo encoder alone | - | {encoder} | - | {row['load']:.0f} |")
        lines.append(
            f"| {row['memes']:,} | {near['pairs']:,} near pairs of {near['pictures']:,} pictures | - "
            f"| {seconds(near['cpu'])} in all | - | {row['load']:.0f} |"
        )
    return "\n".join(lines)


def sentence_of(found: Measured) -> str:
    before = found["decoding"] + found["hashing"]
    shares = "; ".join(
        f"{before / found[dtype]:.1%} of the {seconds(found[dtype])} of {found['model']} in {dtype}" for dtype in DTYPES
    )
    met = "met" if before / found["float32"] < GOAL_SHARE else "MISSED"
    return (
        f"{seconds(found['decoding'])} of CPU time a meme for decoding in embed and {seconds(found['hashing'])} for decoding "
        f"and hashing in corpus: "
        f"{shares} (goal: under {GOAL_SHARE:.0%}, {met})"
    )


def _step(*arguments: Any) -> Measured:
    """A step of the command line in a process of its own.

    Its peak is read while it runs: what the system says afterwards counts this process, of which it was a copy. The
    workers of `embed` are copies of it and share its pages.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = _started(*arguments)
    start, memory, began = time.perf_counter(), 0, None
    while child.poll() is None:
        if began is None and (arguments[-1] / MANIFEST).exists():
            began = time.perf_counter() - start
        memory = max(memory, _high_water(child.pid))
        time.sleep(0.1)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} ended with status {child.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "memory": memory, "start": began or 0.0}


def _started(*arguments: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sae_lens_meme.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}, stdout=subprocess.DEVNULL)


def _high_water(pid: int) -> int:
    """Most bytes that a process has had in memory so far; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _hashes_of(corpus: Path) -> list[tuple[int, int]]:
    """The different perceptual hashes that `corpus` kept of its pictures."""
    lines = [line for path in sorted(corpus.glob("pictures/*.jsonl")) for line in path.read_text().splitlines()]
    hashes = (json.loads(line)["hashes"] for line in lines)
    return list(dict.fromkeys((int(low, 16), int(gradients, 16)) for low, gradients in filter(None, hashes)))


def _encoder_alone() -> float:
    """CPU seconds a meme of the demo encoder on batches that are ready."""
    encoder = Encoder.load(EmbedOptions(model="demo-encoder", device="cpu"))
    size = encoder.model.towers.pictures.size
    side = size[0] if isinstance(size, (tuple, list)) else size
    pixels, tokens = torch.rand(encoder.batch_size, 3, side, side), encoder.model.tokenize(["x"] * encoder.batch_size)
    return _cpu(lambda: (encoder.encode_image(pixels), encoder.encode_text(tokens))) / encoder.batch_size


def _hash(file: bytes) -> Any:
    """What `corpus` does with a picture."""
    return hashlib.sha256(file).hexdigest(), perceptual_hashes(open_image(file))


def _cpu(function: Callable[[], Any]) -> float:
    """The smaller CPU time of two calls after one that is not counted."""
    function()
    spent = []
    for _ in range(2):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return min(spent)


def _print(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
