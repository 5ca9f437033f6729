"""A corpus as a dataset repository: it loads back as it was, its card warns, and it is sent only when that is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Image as ImageFeature
from datasets import load_dataset
from hub import Hub
from huggingface_hub import DatasetCard
from huggingface_hub.errors import LocalTokenNotFoundError
from PIL import Image

from sae_lens_meme.corpus import build_corpus, load_corpus, stream_corpus
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.export import export_corpus, push, push_corpus
from sae_lens_meme.export_command import export

REPO = "someone/memes"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    (root / "mine").mkdir()
    lines = []
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "mine" / f"{i}.png")
        row = {"image": f"{i}.png", "text": f"NA {i}" if i % 4 else None, "hate": i % 3 if i % 3 < 2 else None}
        lines.append(json.dumps(row | {"split": "train" if i < 13 else "test"}) + "\n")
    (root / "mine" / "metadata.jsonl").write_text("".join(lines))
    build_corpus(root / "out", folder=root / "mine", shard_size=5, progress=False)
    return root / "out"


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_corpus(corpus, REPO, out=tmp_path_factory.mktemp("hub") / "repo")


def rows(dataset: Any) -> list[dict]:
    return list(dataset.cast_column("image", ImageFeature(decode=False)))


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_gives_back_every_byte(streaming: bool, corpus: Path, folder: Path, tmp_path: Path):
    loaded: Any = load_dataset(str(folder), streaming=streaming, cache_dir=str(tmp_path))
    original = load_corpus(corpus)
    assert list(loaded) == list(original) == ["train", "test"]
    for split, part in original.items():
        assert rows(loaded[split]) == rows(part)
        assert loaded[split].features == part.features


def test_our_own_reader_takes_it_too(folder: Path, corpus: Path, tmp_path: Path):
    again = build_corpus(tmp_path / "again", folder=folder, columns={"id": "id"}, progress=False)
    for split, part in load_corpus(corpus).items():
        for name in ("image_sha256", "hate", "split"):
            assert again[split][name][:] == part[name][:]


def test_an_export_is_the_same_bytes_each_time_and_goes_on(corpus: Path, folder: Path, tmp_path: Path):
    names = sorted(path.name for path in (folder / "data").iterdir())
    assert names == [
        *(f"test-0000{i}-of-00002.parquet" for i in range(2)),
        *(f"train-0000{i}-of-00003.parquet" for i in range(3)),
    ]
    other = export_corpus(corpus, REPO, out=tmp_path / "repo")
    (other / "data" / names[0]).unlink()
    (other / "_SUCCESS").unlink()
    export_corpus(corpus, REPO, out=other)
    for name in names:
        assert (other / "data" / name).read_bytes() == (folder / "data" / name).read_bytes()
    with pytest.raises(StorageError, match="different result"):
        export_corpus(corpus, "someone/else", out=other)


def test_the_card_warns_and_says_how_to_load(folder: Path):
    card = DatasetCard.load(folder / "README.md")
    assert "not-for-all-audiences" in card.data.to_dict()["tags"]
    assert card.data.to_dict()["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"},
        {"split": "test", "path": "data/test-*.parquet"},
    ]
    assert "**Content warning.**" in card.text
    assert f'load_dataset("{REPO}")' in card.text
    assert "Held-out memes that share something with a train meme" in card.text


def test_it_is_private_unless_that_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    api = Hub()
    monkeypatch.setattr(push, "HfApi", api)
    assert push_corpus(folder) == f"https://huggingface.co/datasets/{REPO}"
    assert (api.created["private"], api.created["repo_type"]) == (True, "dataset")
    assert (api.sent["folder_path"], api.sent["repo_type"]) == (folder, "dataset")
    push_corpus(folder, private=False)
    assert api.created["private"] is False
    monkeypatch.setattr(push, "HfApi", Hub(LocalTokenNotFoundError("no token")))
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        push_corpus(folder)
    monkeypatch.setattr(push, "HfApi", Hub(OSError("no route\nto host")))
    with pytest.raises(StorageError, match="no route to host"):
        push_corpus(folder)


def test_the_command_sends_nothing_unasked(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    api = Hub()
    monkeypatch.setattr(push, "HfApi", api)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    export(evaluation=corpus, hf=REPO, out=tmp_path / "repo")
    assert "nothing was sent" in capsys.readouterr().out
    assert not api.created
    export(evaluation=corpus, hf=REPO, out=tmp_path / "repo", push=True)
    assert "uploaded, private" in capsys.readouterr().out
    assert api.created["private"] is True
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        export(evaluation=corpus, hf="a b", out=tmp_path / "x")
    with pytest.raises(ConfigError, match="--sae is missing"):
        export(evaluation=corpus, out=tmp_path / "x")


def test_a_stream_gives_the_same_memes_file_by_file(corpus: Path):
    stream = stream_corpus(corpus)
    assert stream.num_shards == 3
    assert [meme["id"] for meme in stream] == load_corpus(corpus)["train"]["id"][:]
    assert next(iter(stream))["image"].size == (8, 9)
    with pytest.raises(ConfigError, match="has no split 'validation'; it has train, test"):
        stream_corpus(corpus, "validation")


def test_none_of_this_needs_torch(corpus: Path, tmp_path: Path):
    code = (
        "import sys; from sae_lens_meme.export import export_corpus;"
        f"export_corpus({str(corpus)!r}, {REPO!r}, out={str(tmp_path / 'x')!r});"
        "print({'sae_lens', 'transformer_lens'} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
