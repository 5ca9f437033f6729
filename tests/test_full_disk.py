"""The disk is full at the n-th write of each step: one line, nothing left over, nothing lost, and the next run ends the same."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported import FEW
from failing_disk import disk
from seen_memes import EMBED, write_memes
from test_train_resume import EMBEDDINGS, contents, section

from sae_lens_meme import storage
from sae_lens_meme.attribute import attribute
from sae_lens_meme.corpus import build_corpus
from sae_lens_meme.dashboard import write_dashboard
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.evaluators.run import sae_weights
from sae_lens_meme.export import export
from sae_lens_meme.planted import write_planted
from sae_lens_meme.select import select_memes
from sae_lens_meme.storage import read_finished
from sae_lens_meme.train import train

pytestmark = pytest.mark.whole

SPREAD = 5
"""Writes that fail, of each step, in the default suite; all with `-m slow`."""
QUIET: dict[str, Any] = {"progress": False}
MEASURED: dict[str, Any] = {"only": ["reconstruction", "naming"], "bootstrap": 2, "stability_seeds": 0, **QUIET}

LITTLE: dict[str, Any] = {"map": "tsne", "single_file_mb": 0, "readings": 1, "nearest": 1, "top": 1, "per_interval": 1}


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_memes(tmp_path_factory.mktemp("memes"), scale=0.01)
    evaluate(folder / "sae", folder / "embeddings", out=folder / "evaluation", **MEASURED)
    few = {**FEW, "n_latents": 3, "top": 2}
    attribute(folder / "sae", folder / "embeddings", folder / "corpus", out=folder / "attribution", **few)
    return folder


def _planted(memes: Path, out: Path, seed: int, **more: Any) -> None:
    write_planted(out, seed=seed, scale=0.002, **QUIET, **more)


def _corpus(memes: Path, out: Path, seed: int, **more: Any) -> None:
    build_corpus(out, pridemm=memes / "planted" / "PrideMM", shard_size=20 + seed, **QUIET, **more)


def _embed(memes: Path, out: Path, seed: int, **more: Any) -> None:
    embed_corpus(memes / "corpus", out, **EMBED | {"batch_size": 8 + seed}, **more)


def _train(memes: Path, out: Path, seed: int, **more: Any) -> None:
    train(section(epochs=1, n_checkpoints=2, seed=seed), out=out, embeddings=EMBEDDINGS, **QUIET, **more)


def _attribute(memes: Path, out: Path, seed: int, **more: Any) -> None:
    few = {**FEW, "n_latents": 2, "top": 2, "seed": seed}
    attribute(memes / "sae", memes / "embeddings", memes / "corpus", out=out, **few, **more)


def _evaluate(memes: Path, out: Path, seed: int, **more: Any) -> None:
    options = MEASURED | {"only": ["reconstruction"], "bootstrap": 2 + seed}
    evaluate(memes / "sae", memes / "embeddings", out=out, **options, **more)


def _dashboard(memes: Path, out: Path, seed: int, **more: Any) -> None:
    folders = (memes / "evaluation", memes / "sae", memes / "embeddings", memes / "corpus", memes / "attribution")
    write_dashboard(*folders, out=out, **LITTLE, pixels=32 + seed, **QUIET, **more)


def _select(memes: Path, out: Path, seed: int, **more: Any) -> None:
    select_memes(memes / "sae", memes / "embeddings", corpus=memes / "corpus", out=out, share=0.5 + seed / 10, **more)


def _export(memes: Path, out: Path, seed: int, **more: Any) -> None:
    folders: dict[str, Any] = {name: memes / name for name in ("sae", "embeddings", "attribution", "corpus")}
    export(memes / "evaluation", out=out, seed=seed, **folders, **QUIET, **more)


Step = Callable[..., None]
STEPS: dict[str, Step] = {
    **{"planted": _planted, "corpus": _corpus, "embed": _embed, "train": _train, "attribute": _attribute},
    **{"evaluate": _evaluate, "dashboard": _dashboard, "select": _select, "export": _export},
}


def _fails_at(step: Step, name: str, memes: Path, folder: Path, n: int, replaced: bool, whole: dict[str, bytes]) -> str:
    """The n-th write fails, of a new result or of one that replaces another; returns which kind of write it was."""
    out = folder / f"{n}-{replaced}"
    before: dict[str, bytes] = {}
    if replaced:
        step(memes, out, 2)
        before = contents(out)
    with disk(n) as failing, pytest.raises(StorageError, match="the disk is full; free some space") as caught:
        step(memes, out, 1, overwrite=replaced)
    where = f"{name}, write {n} ({failing.failed})"
    assert "\n" not in str(caught.value), where
    files = contents(out)
    assert not [file for file in files if ".writing-" in file or ".partial-" in file], where
    assert not list(Path(tempfile.gettempdir()).iterdir()), where
    storage.manifest._verified.clear()  # as in another process
    if replaced and (out / storage.SUCCESS).exists():
        seed = read_finished(out, name)["fingerprint"] == read_finished(folder / "whole", name)["fingerprint"]
        kept = {file: data for file, data in files.items() if not file.startswith(storage.REPLACING)}
        assert kept == (whole if seed else before), where
    elif replaced:  # only between the renames that put the new one in its place
        assert (out / storage.REPLACING / storage.SUCCESS).exists(), where
    step(memes, out, 1, overwrite=replaced)
    assert contents(out) == whole, where
    return failing.failed


def _run(name: str, memes: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, every: bool) -> None:
    (folder / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    with disk() as counted:
        STEPS[name](memes, folder / "whole", 1)
    whole, n = contents(folder / "whole"), counted.count
    assert n > 10
    chosen = range(1, n + 1) if every else sorted({1 + i * (n - 1) // (SPREAD - 1) for i in range(SPREAD)})
    for i, at in enumerate(chosen):
        for replaced in (False, True) if every else (i % 2 == 1,):
            _fails_at(STEPS[name], name, memes, folder, at, replaced, whole)


@pytest.mark.parametrize("name", STEPS)
def test_a_full_disk_costs_nothing(name: str, memes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _run(name, memes, tmp_path, monkeypatch, every=False)


def test_a_damaged_sae_is_not_taken_for_another_one(tmp_path: Path):
    _train(tmp_path, tmp_path / "sae", 1)
    weights = tmp_path / "sae" / "sae_weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    storage.manifest._verified.clear()
    with pytest.raises(
        StorageError, match=r"sae_weights\.safetensors: has changed since 'train' wrote it; run 'train'"
    ):
        sae_weights(tmp_path / "sae")


def test_the_config_of_an_sae_has_its_keys_in_order(tmp_path: Path):
    """SAELens writes them in the order of a set, which is another in each process."""
    _train(tmp_path, tmp_path / "sae", 1)
    written = (tmp_path / "sae" / "cfg.json").read_text()
    assert written == json.dumps(json.loads(written), sort_keys=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_disk_that_is_full_at_any_write_costs_nothing(
    name: str, memes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _run(name, memes, tmp_path, monkeypatch, every=True)
