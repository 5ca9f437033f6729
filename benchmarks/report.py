"""The large report: `sae-lens-meme dashboard` in a process of its own on two cores, then its page in headless Chromium."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Shape
from benchmarks.measure import Row, megabytes, waited

CORES = 2
GOAL_WRITE_S, GOAL_OPEN_S, GOAL_PAINT_S, GOAL_FILTER_S = 300, 2.0, 1.0, 0.1
FEWER = 5_000
"""Memes of the second report, whose peak memory stands beside that of the first."""
SHOWN = ("reconstruction", "concept_alignment", "influence", "naming", "question_set", "monosemanticity")
"""Evaluators whose tables a page of a latent shows and that train nothing."""
PHOTO = (400, 300)
"""Width and height of a drawn photograph: smooth noise, the size and the detail of a small meme."""
SHARD = 4096
NONE = "none"


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    shapes = [shape, replace(shape, n=shape.n // 2 if quick else FEWER)]
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(each.n) for each in shapes]
        for each, place in zip(shapes, places, strict=True):
            subprocess.run(
                [sys.executable, "-m", __name__, "prepare", str(place), json.dumps(asdict(each))], check=True
            )
        first, fewer = (_written(place, each) for place, each in zip(places, shapes, strict=True))
        return [*(row for row in (first, fewer)), *_in_browser(places[0] / "report" / "report.html")]


def _written(folder: Path, shape: Shape) -> Row:
    """Seconds from the command to its end, imports included, and its peak memory."""
    names = ("evaluation", "--sae sae", "--embeddings embeddings", "--corpus corpus", "--attribution attribution")
    command = [sys.executable, "-m", __name__, "dashboard", *" ".join(names).split(), "--out", "report"]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.getcwd()}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(folder / "log.txt", "w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        seconds, memory = waited(child)
    if child.returncode:
        raise RuntimeError((folder / "log.txt").read_text()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    files = [path for path in (folder / "report").rglob("*") if path.suffix in (".js", ".html")]
    size = sum(path.stat().st_size for path in files)
    return Row(
        f"report.html of {shape.n:,} memes with pictures, {shape.d_sae:,} latents, k {shape.k}, words and regions",
        *(None, seconds, f"≤ {GOAL_WRITE_S} s", seconds <= GOAL_WRITE_S, ""),
        note=f"{CORES} cores, {busy:.0f} s of processor time; peak memory {megabytes(memory)}; {len(files):,} files, {megabytes(size)}",
    )


def _in_browser(page: Path) -> list[Row]:
    import pytest

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from chromium import chromium

    try:
        with chromium() as browser:
            return _looked_at(browser, page)
    except (pytest.skip.Exception, Exception) as reason:  # the rows of the report's writing are kept
        return [Row("the page in a browser", None, 0.0, NONE, None, "", note=f"not measured: {reason}")]


def _looked_at(browser: Any, page: Path) -> list[Row]:
    from chromium import FILTER, LOADED, PAINTED, opened

    latents = json.loads(_core(page))["latents"]
    fires = int(np.argmax([share or 0 for share in latents["fires"]]))
    with opened(browser, page) as (tab, heard):
        painted, loaded = tab.evaluate(PAINTED) / 1e3, tab.evaluate(LOADED) / 1e3
        tab.evaluate("location.hash = 'latents'")
        tab.wait_for_selector(".row")
        tab.wait_for_timeout(1000)
        filtered = tab.evaluate(FILTER) / 1e3
        opens = tab.evaluate(OPEN_LATENT, fires) / 1e3
        if heard:
            raise RuntimeError(f"the browser says {heard[0]}")
    what = "in headless Chromium, from disk"
    return [
        Row(f"first paint, {what}", None, painted, f"≤ {GOAL_PAINT_S:g} s", painted <= GOAL_PAINT_S, ""),
        Row(f"the page is open, {what}", None, loaded, f"≤ {GOAL_OPEN_S:g} s", loaded <= GOAL_OPEN_S, ""),
        Row(
            *("from a key in the search box to the frame with its latents", None, filtered),
            *(f"≤ {GOAL_FILTER_S * 1e3:g} ms", filtered <= GOAL_FILTER_S, ""),
            note="median of five keys",
        ),
        Row("from the list to the page of a latent, memes and pictures there", None, opens, NONE, None, ""),
    ]


OPEN_LATENT = """async (latent) => {
  const started = performance.now();
  location.hash = `latent=${latent}`;
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  while (!document.querySelector(".card img")) {
    document.querySelector(".cards")?.scrollIntoView();
    await frame();
  }
  return performance.now() - started;
}"""


def _core(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return text.split('id="core">')[1].split("</script>")[0]


def _prepare(folder: Path, shape: Shape) -> None:
    """Result folders as the steps before `dashboard` leave them: real tables of drawn vectors, drawn pictures and scores."""
    from benchmarks.corpus_of_arrays import write_embeddings, write_sae
    from sae_lens_meme.evaluators import EvaluateOptions, evaluate
    from sae_lens_meme.evaluators.latents import Latents
    from sae_lens_meme.storage import read_finished

    embeddings = write_embeddings(folder, shape)
    write_sae(folder / "sae", embeddings, shape)
    options = EvaluateOptions(only=list(SHOWN))
    evaluate(folder / "sae", folder / "embeddings", options, out=folder / "evaluation", progress=False)
    _write_corpus(folder / "corpus", embeddings)
    of = read_finished(folder / "evaluation", "evaluate")["fingerprint"]
    latents = Latents.load(folder / "evaluation" / "latents.safetensors")
    _write_attribution(folder / "attribution", latents, embeddings, {part: of[part] for part in ("sae", "embeddings")})


def _write_corpus(folder: Path, embeddings: Any) -> None:
    from datasets import Dataset, DatasetDict, Features, Image, Value

    from sae_lens_meme.storage import StepFolder

    features = Features(
        {name: Value("string") for name in ("id", "text", "text_origin")} | {"image": Image(decode=False)}
    )
    texts = [text or "" for text in embeddings.texts]
    pictures = Dataset.from_generator(
        partial(_memes, [str(name) for name in embeddings.ids], texts), features=features, cache_dir=str(folder.parent)
    )
    with StepFolder(folder, "corpus", {}) as step:
        DatasetDict({"train": pictures}).save_to_disk(str(folder / "rows"))
        for file in sorted(path for path in (folder / "rows").rglob("*") if path.is_file()):
            step.write(file.relative_to(folder / "rows").as_posix(), partial(os.replace, file))
        step.finish()


def _memes(ids: list[str], texts: list[str]) -> Iterator[dict[str, Any]]:
    from PIL import Image as Pictures

    rng = np.random.default_rng(0)
    for name, text in zip(ids, texts, strict=True):
        file = io.BytesIO()
        noise = Pictures.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        noise.resize(PHOTO, Pictures.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        origin = "dataset" if text else "none"
        yield {"id": name, "text": text, "text_origin": origin, "image": {"bytes": file.getvalue(), "path": None}}


def _write_attribution(folder: Path, latents: Any, embeddings: Any, of: dict[str, Any]) -> None:
    """The memes that `attribute` would choose, with drawn scores."""
    from sae_lens_meme.attribute.choose import choose_memes
    from sae_lens_meme.attribute.options import AttributeOptions
    from sae_lens_meme.attributions import FEATURES, GRID, STEP
    from sae_lens_meme.shards import write_dataset
    from sae_lens_meme.storage import StepFolder

    every = list(range(latents.d_sae))
    pairs = choose_memes(latents, embeddings, every, np.arange(len(embeddings)), AttributeOptions())
    pairs = pairs.sort_values(["row", "latent"], kind="stable", ignore_index=True)
    blocks = [slice(*ends) for ends in pairwise([*range(0, len(pairs), SHARD), len(pairs)])]
    shards = [partial(_scores, pairs.iloc[block], embeddings, i) for i, block in enumerate(blocks)]
    with StepFolder(folder, STEP, of) as step:
        write_dataset(step, FEATURES, shards)
        step.finish(latents=every, n_memes=len(embeddings), grid=GRID, view="whole", rows="all")


def _scores(pairs: Any, embeddings: Any, seed: int) -> dict[str, list[Any]]:
    """The columns of one shard."""
    rng, n = np.random.default_rng(seed), len(pairs)
    top = (pairs["kind"] == "top").to_numpy()
    words = [(embeddings.texts[row] or "").split() for row in pairs["row"]]
    given = {name: pairs[name].tolist() for name in ("latent", "kind", "rank", "activation")}
    of_quantile = {
        name: [None if is_top else value for is_top, value in zip(top, pairs[name], strict=True)]
        for name in ("interval", "interval_low", "interval_high", "interval_share")
    }
    return {
        **given,
        "id": [str(embeddings.ids[row]) for row in pairs["row"]],
        **of_quantile,
        "pre_activation": given["activation"],
        "words": words,
        "word_scores": [rng.normal(size=len(found)).tolist() for found in words],
        "patch_scores": rng.normal(size=(n, 49)).tolist(),
        "interactions": [
            [{"word": w, "patch": int(p), "value": 0.1} for w in range(min(3, len(found))) for p in patches]
            for found, patches in zip(words, rng.integers(0, 49, (n, 3)), strict=True)
        ],
        **dict.fromkeys(("caption_local", "image_local", "meme_global"), given["activation"]),
    }


def _dashboard() -> None:
    """The command, on as many cores as the row says."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    from sae_lens_meme.cli import main

    main()


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        _prepare(Path(sys.argv[2]), Shape(**json.loads(sys.argv[3])))
    else:
        _dashboard()
