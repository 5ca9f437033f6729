"""The folder for the Hugging Face Hub: it loads back, its card warns, and it is sent only when that is asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from datasets import load_from_disk
from exported import inputs, measured, write_arrays
from hub import Hub
from huggingface_hub.errors import EntryNotFoundError, LocalTokenNotFoundError
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.export import export_hub, hub, push, push_hub
from sae_lens_meme.storage import read_finished, read_json

REPO = "someone/meme-sae"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_arrays(tmp_path_factory.mktemp("run"))
    shutil.rmtree(folder / "evaluation")
    measured(folder, ["contest", "reconstruction"])
    (folder / "report.html").write_text("<p>report</p>")
    return folder


@pytest.fixture(scope="module")
def folder(run: Path) -> Path:
    given = {name: path for name, path in inputs(run).items() if name != "progress"}
    return export_hub(run / "evaluation", REPO, out=run / "hub", report=run / "report.html", **given)


@pytest.mark.whole
def test_from_pretrained_loads_the_same_sae(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def download(repo_id: str, filename: str, **_: Any) -> str:
        assert repo_id == REPO
        if not (folder / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(folder / filename)

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", download)
    loaded, original = SAE.from_pretrained(REPO, "sae"), SAE.load_from_disk(run / "sae")
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert loaded.cfg.metadata.hook_name == original.cfg.metadata.hook_name
    assert loaded.cfg.metadata.neuronpedia_id == "meme-model/0-meme-fused-topk-24"


def test_load_from_disk_gives_the_latents(run: Path, folder: Path):
    rows, memes = load_from_disk(str(folder / "latents")), Embeddings.load(run / "embeddings")
    dense = encode(SAE.load_from_disk(run / "sae"), memes).csr().toarray()
    assert rows["id"][:] == memes.ids.tolist()
    assert rows["split"][:] == memes.splits.tolist()
    for row, want in zip(rows, dense, strict=True):
        assert row["indices"] == np.flatnonzero(want).tolist()
        np.testing.assert_allclose(row["values"], want[want > 0], rtol=1e-6)


def test_the_card_has_the_contest_and_the_warning(run: Path, folder: Path):
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    evaluation = read_json(run / "evaluation" / "evaluation.json")
    assert "not-for-all-audiences" in (card.data.tags or [])
    assert "Content warning" in card.text
    assert f"**{evaluation['results']['contest']['verdict']}**" in card.text
    row = evaluation["table"][0]
    assert f"| {row['measure']} |" in card.text
    for rival in row["controls"]:
        assert f"| {rival} " in card.text
    assert evaluation["results"]["reconstruction"]["verdict"] in card.text


def test_the_card_of_a_stranger_evaluation_brings_no_markup():
    from test_report import evaluation_of

    card = hub.model_card(evaluation_of("<script>alert(1)</script>|`x`[a](b)"), REPO)
    assert "<script>" not in card
    assert "[a](" not in card


def test_the_evaluation_and_the_report_come_with_it(run: Path, folder: Path):
    assert read_finished(folder / "evaluation", "evaluate")
    assert (folder / "evaluation" / "evaluation.html").read_bytes() == (
        run / "evaluation" / "evaluation.html"
    ).read_bytes()
    assert (folder / "report" / "report.html").read_text() == "<p>report</p>"
    assert "no caption is in this repository outside `report/`" in (folder / "README.md").read_text()
    given = {name: run / name for name in ("sae", "embeddings")}
    with pytest.raises(StorageError, match="embeddings: is neither a page nor a folder with one"):
        export_hub(run / "evaluation", REPO, out=folder / "x", report=run / "embeddings", **given)


def test_it_is_private_unless_that_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    api = Hub()
    monkeypatch.setattr(push, "HfApi", api)
    assert push_hub(folder) == f"https://huggingface.co/{REPO}"
    assert api.created["private"] is True
    assert api.sent["folder_path"] == folder
    push_hub(folder, private=False)
    assert api.created["private"] is False


def test_refusals_are_one_line(folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(push, "HfApi", Hub(LocalTokenNotFoundError("no token")))
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        push_hub(folder)
    monkeypatch.setattr(push, "HfApi", Hub(OSError("no route\nto host")))
    with pytest.raises(StorageError, match="no route to host"):
        push_hub(folder)
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        export_hub(run / "evaluation", "a b", sae=run / "sae", embeddings=run / "embeddings", out=tmp_path / "x")
    with pytest.raises(StorageError):
        push_hub(tmp_path)
