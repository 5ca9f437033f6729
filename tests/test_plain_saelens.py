"""docs/plain-saelens.md: its script runs as it is printed, and what it says of the record holds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arrays import anisotropic

from sae_lens_meme import Embeddings, embed_arrays, record_training_rows
from sae_lens_meme.errors import DataError, StorageError
from sae_lens_meme.steps import train_step

PAGE = Path(__file__).parents[1] / "docs" / "plain-saelens.md"
WARNING = "the training rows of this SAE are not known"


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the script ran, and what it printed."""
    import contextlib
    import io
    import os

    folder, earlier, printed = tmp_path_factory.mktemp("page"), Path.cwd(), io.StringIO()
    np.save(folder / "x.npy", anisotropic(600, 24, np.random.default_rng(0)))
    splits = ("train", "train", "train", "validation", "test")
    (folder / "rows.csv").write_text("id,split\n" + "".join(f"m{i},{splits[i % 5]}\n" for i in range(600)))
    embed_arrays(folder / "meme-demo" / "embeddings", table=folder / "rows.csv", fused_embeds=folder / "x.npy")
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(script(), str(PAGE), "exec"), {"__name__": "page"})
    finally:
        os.chdir(earlier)
    return folder, printed.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_script_runs_and_its_sae_is_known(ran: tuple[Path, str]):
    folder, printed = ran
    assert "explained variance" in printed
    assert WARNING not in " ".join(printed.split())
    assert json.loads((folder / "stock-sae" / "cfg.json").read_text())["metadata"]["train_rows_fingerprint"]


def test_the_buffer_needs_at_least_a_batch(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shutil.copytree(ran[0] / "meme-demo", tmp_path / "meme-demo")
    monkeypatch.chdir(tmp_path)
    shorter = re.sub(r"n_batches_in_buffer=batch", "n_batches_in_buffer=20", script())
    with pytest.raises(ValueError, match="Buffer size must be greater than or equal to batch size"):
        exec(compile(shorter, str(PAGE), "exec"), {"__name__": "page"})


def test_an_sae_of_every_split_is_refused(ran: tuple[Path, str], tmp_path: Path):
    folder = ran[0]
    embeddings = Embeddings.load(folder / "meme-demo" / "embeddings")
    shutil.copytree(folder / "stock-sae", tmp_path / "sae")
    runner: dict[str, Any] = json.loads((tmp_path / "sae" / "runner_cfg.json").read_text())

    def say(**changes: Any) -> None:
        (tmp_path / "sae" / "runner_cfg.json").write_text(json.dumps({**runner, **changes}))

    before = (tmp_path / "sae" / "cfg.json").read_bytes()
    say(cached_activations_path=str(folder / "meme-demo" / "embeddings"))
    with pytest.raises(DataError, match=r"240 of the 600 memes that it was trained on are not train memes .* 'm3'"):
        record_training_rows(tmp_path / "sae", embeddings)
    say(use_cached_activations=False)
    with pytest.raises(DataError, match="was not trained on cached activations"):
        record_training_rows(tmp_path / "sae", embeddings)
    say(cached_activations_path=str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="gone"):
        record_training_rows(tmp_path / "sae", embeddings)
    assert (tmp_path / "sae" / "cfg.json").read_bytes() == before


def test_it_is_trained_further_as_the_page_says(ran: tuple[Path, str]):
    folder = ran[0]
    overrides = ["sae.d_sae=128", "sae.k=16", "sae.architecture=topk", "epochs=1", "train_batch_size_tokens=64"]
    given: Any = {"embeddings": folder / "meme-demo" / "embeddings", "given": folder / "stock-sae"}
    train_step("demo.yaml", out=folder / "further", overrides=overrides, **given)
    assert (folder / "further" / "cfg.json").is_file()
