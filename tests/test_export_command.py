"""`export` as it is typed: what is written, what is said, and one line for a mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from exported import inputs, write_arrays
from huggingface_hub import constants
from sae_lens import SAE

from sae_lens_meme.cli import main


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("run"))


def typed(arguments: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["sae-lens-meme", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def export_of(run: Path, *more: object) -> tuple[object, ...]:
    given = inputs(run)
    return "export", run / "evaluation", "--sae", given["sae"], "--embeddings", given["embeddings"], *more


def test_for_neuronpedia(arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    status, said, _ = typed(export_of(arrays, "--out", out, "--dry-run", "--source-set", "mine"), capsys)
    assert status == 0
    assert "nothing was sent" in said
    assert (out / "v1" / "meme-model" / "0-mine" / "features" / "batch-0.jsonl.gz").is_file()
    assert (out / "requests" / "features-0.json").is_file()
    assert SAE.load_from_disk(arrays / "sae").cfg.metadata.neuronpedia_id is None
    status, _, _ = typed(export_of(arrays, "--out", out, "--mark-sae", "--source-set", "mine"), capsys)
    assert status == 0
    assert SAE.load_from_disk(arrays / "sae").cfg.metadata.neuronpedia_id == "meme-model/0-mine"
    status, _, _ = typed(export_of(arrays, "--out", out, "--source-set", "mine"), capsys)
    assert status == 0, "a marked SAE is the same SAE"


def test_for_the_hub(arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status, said, _ = typed(export_of(arrays, "--out", tmp_path / "out", "--hf", "me/sae"), capsys)
    assert status == 0
    assert "nothing was sent" in said
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--push",), "--push needs --hf"),
        (("--hf", "no repository"), "give OWNER/NAME"),
        (("--source-set", "A B"), "source_set"),
        (("--hf", "me/sae", "--report", "nowhere"), "nowhere"),
        (("--hf", "me/sae", "--public"), "--public needs --push"),
    ],
)
def test_mistakes(
    more: tuple[str, ...], message: str, arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status, _, err = typed(export_of(arrays, "--out", tmp_path / "out", *more), capsys)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--upload",), "set NEURONPEDIA_API_KEY"),
        (("--hf", "me/sae", "--push"), "set HF_TOKEN"),
    ],
)
def test_nothing_is_written_for_an_upload_without_a_key(
    more: tuple[str, ...], message: str, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    for name in ("NEURONPEDIA_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    status, out, err = typed(export_of(arrays, "--out", tmp_path / "out", *more), capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "out").exists()
