"""The planted corpus on disk: the original releases' layouts, the answer key, and runs that were killed."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.labels import LEVELS
from sae_lens_meme.planted import PlantedPaths, read_answer_key, write_planted
from sae_lens_meme.planted.factors import CROSS_MODAL, TEXTUAL, VISUAL
from sae_lens_meme.planted.rows import STREAMS, planted_memes, stream_rows
from sae_lens_meme.storage import MANIFEST, SUCCESS

pytestmark = pytest.mark.whole
SCALE = 0.04


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlantedPaths]:
    out = tmp_path_factory.mktemp("planted") / "corpus"
    return out, write_planted(out, seed=3, scale=SCALE, progress=False)


def test_pridemm_is_written_as_released(written: tuple[Path, PlantedPaths]) -> None:
    paths = written[1]
    with open(paths.pridemm / "PrideMM.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "hate", "target", "stance", "humour", "split", "text"]
    assert len(rows) == stream_rows("pridemm", SCALE)
    assert [row["name"] for row in rows] == [f"img_{i + 1}.png" for i in range(len(rows))]
    assert all((row["target"] == "NA") == (row["hate"] == "0") for row in rows)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {row["humour"] for row in rows} == {"0", "1"}
    for row in rows:
        assert row["text"] == row["text"].lower()
        with Image.open(paths.pridemm / "Images" / row["name"]) as picture:
            assert picture.format == "PNG"
            assert picture.size in {(112, 112), (128, 128)}


def test_hmc_is_written_as_released(written: tuple[Path, PlantedPaths]) -> None:
    root = written[1].hmc
    splits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, stream in STREAMS.items():
        if stream.source == "hmc":
            splits[name] = [json.loads(line) for line in (root / f"{name}.jsonl").read_text("utf-8").splitlines()]
    assert sorted(p.stem for p in root.glob("*.jsonl")) == sorted(splits)
    for row in (row for rows in splits.values() for row in rows):
        assert set(row) == {"id", "img", "label", "text"}
        assert row["img"] == f"img/{row['id']}.png"
        assert isinstance(row["id"], str)
        assert len(row["id"]) == 5
        assert (root / row["img"]).is_file()
    seen, unseen = ({row["id"] for row in splits[name]} for name in ("dev_seen", "dev_unseen"))
    assert len(seen & unseen) == round(0.8 * len(seen))
    assert any(str(row["id"]).startswith("0") for row in splits["train"])


def test_memotion_is_written_as_released(written: tuple[Path, PlantedPaths]) -> None:
    root = written[1].memotion
    with open(root / "labels.csv", newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header[:4] == ["", "image_name", "text_ocr", "text_corrected"]
    assert header[4:] == ["humour", "sarcasm", "offensive", "motivational", "overall_sentiment"]
    assert [row[0] for row in rows] == [str(i) for i in range(len(rows))]
    for column, label in zip(range(4, 9), ("humor", "sarcasm", "offensive", "motivational", "sentiment"), strict=True):
        assert {row[column] for row in rows} <= set(LEVELS[label].values())
    assert all(row[2] or row[3] for row in rows)
    assert any(not row[2] for row in rows)
    assert len({Path(row[1]).suffix for row in rows}) >= 2
    for row in rows:
        with Image.open(root / "images" / row[1]) as picture:
            assert picture.convert("RGB").size in {(96, 96), (128, 128)}


def test_the_answer_key_has_every_meme(written: tuple[Path, PlantedPaths]) -> None:
    key = read_answer_key(written[1].answer_key)
    memes = list(planted_memes(3, SCALE))
    assert key.factors["id"].tolist() == [meme.id for meme in memes]
    for column, value in asdict(memes[7].factors).items():
        assert key.factors[column][7] == value
    assert set(key.kinds) == set(VISUAL) | set(TEXTUAL) | set(CROSS_MODAL)
    assert key.places is not None
    assert set(key.places["factor"]) == set(key.kinds) - {"scene", "light", "style"}
    assert (key.places["kind"] == key.places["factor"].map(key.kinds)).all()
    assert key.places["x0"].isna().equals(key.places["kind"] == "textual")
    assert key.places["word_start"].isna().equals(key.places["kind"] == "visual")
    for label, cause in key.causes.items():
        assert f"true_{label}" in key.factors
        assert set(cause["factors"]) <= set(key.kinds)
    assert (key.factors["true_hate"] == key.factors["clash"]).all()
    assert (key.factors["true_target"].isna() == ~key.factors["clash"]).all()


def _contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(written: tuple[Path, PlantedPaths], tmp_path: Path) -> None:
    write_planted(tmp_path / "again", seed=3, scale=SCALE, progress=False)
    assert _contents(tmp_path / "again") == _contents(written[0])


def test_a_run_repairs_what_is_missing_or_damaged(written: tuple[Path, PlantedPaths], tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    shutil.copytree(written[0], out)
    (out / "HMC" / "train.jsonl").unlink()
    next((out / "PrideMM" / "Images").glob("*.png")).unlink()
    next((out / "Memotion" / "images").glob("*.jpg")).write_bytes(b"not a picture")
    (out / "pictures" / "block-0000.json").write_text("{")
    (out / "answer_key" / "factors.parquet").write_bytes(b"")
    write_planted(out, seed=3, scale=SCALE, progress=False)
    assert _contents(out) == _contents(written[0])


@pytest.mark.parametrize("fatal", [1, 2, 60, 200])
def test_a_killed_run_is_finished_by_the_next_one(
    written: tuple[Path, PlantedPaths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int
) -> None:
    calls, replace = [0], os.replace

    def dying(source: object, target: object) -> None:
        calls[0] += 1
        if calls[0] == fatal:
            raise KeyboardInterrupt
        replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        write_planted(tmp_path / "corpus", seed=3, scale=SCALE, progress=False)
    monkeypatch.undo()
    assert not (tmp_path / "corpus" / SUCCESS).exists()
    write_planted(tmp_path / "corpus", seed=3, scale=SCALE, progress=False)
    assert _contents(tmp_path / "corpus") == _contents(written[0])


def test_a_finished_corpus_is_not_touched(written: tuple[Path, PlantedPaths]) -> None:
    before = {path: path.stat().st_mtime_ns for path in written[0].rglob("*") if path.name != ".lock"}
    write_planted(written[0], seed=3, scale=SCALE, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in written[0].rglob("*") if path.name != ".lock"}
    assert (written[0] / MANIFEST).exists()


def test_it_refuses(written: tuple[Path, PlantedPaths], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scale is 0"):
        write_planted(tmp_path, scale=0)
    with pytest.raises(ConfigError, match=r"seed is -1"):
        write_planted(tmp_path, seed=-1)
    with pytest.raises(StorageError, match=r"seed: 3 there, 4 now"):
        write_planted(written[0], seed=4, scale=SCALE, progress=False)
    with pytest.raises(StorageError, match=r"not an answer key \(no factors.parquet\)"):
        read_answer_key(tmp_path)
