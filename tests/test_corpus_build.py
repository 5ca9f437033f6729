"""From folders to a corpus on disk: content, bad rows, kill and resume, the card, and 206 real memes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from datasets import DatasetDict, load_from_disk
from datasets import Image as ImageFeature
from PIL import Image

from sae_lens_meme.corpus import build_corpus, load_corpus
from sae_lens_meme.errors import BadImageError, BadTableError, ConfigError, StorageError
from sae_lens_meme.labels import LABELS

SHARED = Path(__file__).parents[2] / "shared"
CAPTIONS = ["NA", "null", "", "007", "1e5", "=1+1", "🙂", "two\r\nlines", "x" * 10_000, "<b>|"]


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_folder(root: Path, n: int = 10, broken: dict[int, bytes | None] | None = None) -> Path:
    """`broken` maps a row to other bytes for its picture, None for no picture."""
    root.mkdir(parents=True)
    lines = []
    for i in range(n):
        data = (broken or {}).get(i, png(i))
        if data is not None:
            (root / f"{i}.png").write_bytes(data)
        lines.append(json.dumps({"id": i, "image": f"{i}.png", "text": CAPTIONS[i % 10], "hate": i % 2}) + "\n")
    (root / "metadata.jsonl").write_text("".join(lines))
    return root


def build(out: Path, folder: Path, **options):
    return build_corpus(out, folder=folder, **({"progress": False, "shard_size": 3, "holdout": 0.2} | options))


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def by_id(corpus: DatasetDict, image: ImageFeature) -> dict[str, dict[str, Any]]:
    splits = [split.cast_column("image", image) for split in corpus.values()]
    rows = [cast(dict[str, Any], row) for split in splits for row in split]
    return {row["id"]: row for row in rows}


def test_what_went_in_comes_out(tmp_path):
    folder = make_folder(tmp_path / "mine", 30)
    corpus = build(tmp_path / "out", folder)
    assert set(corpus) == {"train", "validation", "test"}
    rows = by_id(corpus, ImageFeature(decode=False))
    assert len(rows) == 30
    for i in range(30):
        row = rows[f"mine/{i}"]
        assert row["text"] == CAPTIONS[i % 10]
        assert row["image"] == {"bytes": png(i), "path": f"{i}.png"}
        assert row["image_sha256"] == hashlib.sha256(png(i)).hexdigest()
        assert (row["hate"], row["humor"], row["text_origin"], row["source"]) == (i % 2, None, "dataset", "mine")
    for name, split in corpus.items():
        assert set(split["split"]) == {name}
    assert corpus["train"][0]["image"].size == (4, 3)
    assert load_from_disk(str(tmp_path / "out")).column_names == corpus.column_names


def test_a_new_label_becomes_a_column(tmp_path):
    folder = make_folder(tmp_path / "mine")
    topic = {"column": "hate", "values": {"0": 5, "1": 7}}
    columns = {"text": None, "labels": {"topic": topic, "hate": None}}
    corpus = build(tmp_path / "out", folder, columns=columns, holdout=0)
    assert corpus["train"]["topic"][:4] == [5, 7, 5, 7]
    assert corpus["train"]["hate"][:2] == [None, None]
    assert (corpus["train"]["text"][0], corpus["train"]["text_origin"][0]) == ("", "none")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["facts"]["labels"] == [*LABELS, "topic"]


def test_the_three_layouts_in_one_corpus(tmp_path):
    for name, pictures in {"pridemm": "Images", "hmc": "img", "memotion": "images"}.items():
        (tmp_path / name / pictures).mkdir(parents=True)
        for i in range(2):
            (tmp_path / name / pictures / f"{i}.png").write_bytes(png(i))
    (tmp_path / "pridemm" / "PrideMM.csv").write_text(
        "name,hate,target,stance,humour,split,text\n0.png,1,3,2,1,train,a\n1.png,0,,0,0,val,none\n"
    )
    lines = [json.dumps({"id": i, "img": f"img/{i}.png", "label": i, "text": "t"}) + "\n" for i in range(2)]
    (tmp_path / "hmc" / "train.jsonl").write_text(lines[0])
    (tmp_path / "hmc" / "dev.jsonl").write_text(lines[1])
    (tmp_path / "memotion" / "labels.csv").write_text(
        ",image_name,text_ocr,text_corrected,humour,sarcasm,offensive,motivational,overall_sentiment\n"
        "0,0.png,a,b,hilarious,general,slight,motivational,negative\n"
        "1,1.png,a,,funny,general,slight,motivational,positive\n"
    )
    sources = {name: tmp_path / name for name in ("pridemm", "hmc", "memotion")}
    corpus = build_corpus(tmp_path / "all", **sources, holdout=0, progress=False)
    assert corpus["train"]["id"][:] == ["pridemm/0.png", "hmc/0.png", "memotion/0.png", "memotion/1.png"]
    assert corpus["validation"]["id"][:] == ["pridemm/1.png", "hmc/1.png"]
    assert corpus["train"]["sentiment"][:] == [None, None, -1, 1]
    assert corpus["train"]["humor"][:] == [2, None, 3, 1]
    published = build_corpus(tmp_path / "intervlm", **sources, preset="intervlm", progress=False)
    assert {split: rows["id"][:] for split, rows in published.items()} == {
        "train": ["pridemm/0.png", "hmc/0.png", "memotion/0.png", "memotion/1.png"],
        "test": ["hmc/1.png"],
    }
    card = (tmp_path / "all" / "README.md").read_text()
    assert "| pridemm | 1 | 1 |" in card
    assert "| sarcasm | 2 | 4 | 1 general: 2 |" in card
    assert "| target | 50.0% | 100.0% | 100.0% |" in card
    assert "pridemm: read from a folder in the layout of PrideMM" in card  # planted memes come in it too


def test_a_finished_corpus_is_loaded_at_once(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine")
    build(tmp_path / "out", folder)
    before = contents(tmp_path / "out")
    monkeypatch.setattr("sae_lens_meme.corpus.build.write_corpus", None)
    assert build(tmp_path / "out", folder)["train"].num_rows > 0
    assert contents(tmp_path / "out") == before


def test_another_corpus_is_not_replaced_unasked(tmp_path):
    folder = make_folder(tmp_path / "mine")
    build(tmp_path / "out", folder)
    changed = (folder / "metadata.jsonl").read_text().replace("007", "008")
    (folder / "metadata.jsonl").write_text(changed)
    with pytest.raises(StorageError, match=r"holds a different result .*--overwrite"):
        build(tmp_path / "out", folder)
    corpus = build(tmp_path / "out", folder, overwrite=True)
    assert "008" in [text for split in corpus.values() for text in split["text"]]


def test_another_caption_column_is_another_corpus(tmp_path):
    folder = make_folder(tmp_path / "mine")
    build(tmp_path / "out", folder)
    with pytest.raises(StorageError, match="holds a different result"):
        build(tmp_path / "out", folder, columns={"text": "id"})


TRUNCATED = png(3)[:70]


def test_bad_rows_are_listed_and_shift_nothing(tmp_path):
    folder = make_folder(tmp_path / "mine", 12, {0: None, 4: b"<html>", 11: TRUNCATED})
    corpus = build(tmp_path / "out", folder, on_bad="skip", holdout=0)
    assert corpus["train"]["id"][:] == [f"mine/{i}" for i in range(12) if i not in (0, 4, 11)]
    assert corpus["train"]["text"][:] == [CAPTIONS[i % 10] for i in range(12) if i not in (0, 4, 11)]
    bad = [json.loads(line) for line in (tmp_path / "out" / "bad_rows.jsonl").read_text().splitlines()]
    assert [(row["file"], row["row"], row["id"]) for row in bad] == [
        ("metadata.jsonl", 1, "mine/0"),
        ("metadata.jsonl", 5, "mine/4"),
        ("metadata.jsonl", 12, "mine/11"),
    ]
    assert "does not exist" in bad[0]["reason"]
    assert "is HTML" in bad[1]["reason"]
    with pytest.raises(BadImageError, match=r'metadata\.jsonl, row 1 \(id "mine/0"\): .*3 bad rows'):
        build(tmp_path / "out", folder, holdout=0)


def test_a_split_may_lose_all_its_rows(tmp_path):
    folder = make_folder(tmp_path / "mine", 2, {0: None, 1: None})
    no_labels = {"labels": {"hate": None}}
    assert build(tmp_path / "out", folder, columns=no_labels, on_bad="skip", holdout=0)["train"].num_rows == 0


def test_a_bad_picture_is_named(tmp_path):
    folder = make_folder(tmp_path / "mine", 8, {5: TRUNCATED})
    message = r'metadata\.jsonl, row 6 \(id "mine/5"\): image \'5\.png\' is truncated after 70 bytes .*; re-download it or pass --on-bad skip'
    with pytest.raises(BadImageError, match=message):
        build(tmp_path / "out", folder, holdout=0)
    with pytest.raises(StorageError, match="interrupted"):
        load_corpus(tmp_path / "out")
    (folder / "5.png").write_bytes(png(5))
    with pytest.raises(StorageError, match="different result"):  # another picture: another corpus
        build(tmp_path / "out", folder, holdout=0)


def test_skipping_after_a_refusal_needs_no_new_folder(tmp_path):
    folder = make_folder(tmp_path / "mine", 8, {5: TRUNCATED})
    with pytest.raises(BadImageError):
        build(tmp_path / "out", folder, holdout=0)
    assert build(tmp_path / "out", folder, holdout=0, on_bad="skip")["train"].num_rows == 7


@pytest.mark.whole
def test_a_failure_at_any_replace_changes_nothing_in_the_end(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine", 4, {2: TRUNCATED})
    build(tmp_path / "whole", folder, on_bad="skip", holdout=0)
    expected = contents(tmp_path / "whole")
    replace, n = os.replace, 0
    while True:
        calls, n = 0, n + 1

        def failing(source, target, n=n):
            nonlocal calls
            calls += 1
            if calls == n:
                raise OSError(28, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        out = tmp_path / f"out{n}"
        try:
            build(out, folder, on_bad="skip", holdout=0)
            break
        except OSError:
            monkeypatch.setattr(os, "replace", replace)
            build(out, folder, on_bad="skip", holdout=0)
            assert contents(out) == expected
    assert n > 12


KILLED = """
import sys, time
from sae_lens_meme.corpus import build_corpus, survey
slow = survey.open_image
survey.open_image = lambda *a, **k: (time.sleep(0.02), slow(*a, **k))
print("ready", flush=True)
build_corpus(sys.argv[1], folder=sys.argv[2], progress=False, shard_size=3, holdout=0.2)
"""


@pytest.mark.whole
def test_kill_and_run_again_gives_the_same_bytes(tmp_path):
    folder = make_folder(tmp_path / "mine", 40)
    build(tmp_path / "whole", folder)
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(out), str(folder)]
    for wait in (0.05, 0.25):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        assert not (out / "_SUCCESS").exists()
    build(out, folder)
    assert contents(out) == contents(tmp_path / "whole")


def test_shards_are_cut_by_bytes_too(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine", 10)
    monkeypatch.setattr("sae_lens_meme.corpus.write.MAX_SHARD_BYTES", 1)
    corpus = build(tmp_path / "out", folder, holdout=0, shard_size=500)
    assert len(list((tmp_path / "out" / "train").glob("*.arrow"))) == 10
    assert corpus["train"]["id"][:] == [f"mine/{i}" for i in range(10)]


def test_the_card_holds_no_foreign_markup(tmp_path):
    folder = make_folder(tmp_path / "a|<script>[x](y)")
    build(tmp_path / "out", folder)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "<script" not in card
    assert "a&#124;&lt;script>&#91;x](y)" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "no source given"),
        ({"hmc": "nowhere"}, BadTableError, "no such folder"),
        ({"hmc": ".", "columns": {}}, ConfigError, "no folder is given"),
        ({"folder": ".", "preset": "intervlm"}, ConfigError, "use 'all' with a folder"),
        ({"folder": ".", "on_bad": "ignore"}, ConfigError, "on_bad is 'ignore', it must be 'raise' or 'skip'"),
        ({"folder": ".", "holdout": 0.5}, ConfigError, "holdout is 0.5, it must be less than 0.5"),
        ({"folder": ".", "preset": "al"}, ConfigError, "preset is 'al', it must be 'all' or 'intervlm'"),
        ({"fodler": "."}, ConfigError, "unknown key 'fodler'; did you mean 'folder'"),
        ({"folder": ".", "shard_size": 0}, ConfigError, "shard_size is 0, it must be 1 or more"),
    ],
)
def test_refuses_options(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        build_corpus(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_load_refuses_what_is_not_a_corpus(tmp_path):
    with pytest.raises(StorageError, match=r"no manifest\.json"):
        load_corpus(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared folder beside the checkout")
def test_206_real_memes(tmp_path):
    root = SHARED / "data" / "memegen"
    corpus = build_corpus(
        tmp_path / "out", folder=root, columns={"id": "id", "image": "image", "text": "example"}, progress=False
    )
    manifest = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    rows = by_id(corpus, ImageFeature())
    assert len(rows) == 206
    for meme in manifest:
        row = rows[f"memegen/{meme['id']}"]
        assert row["text"] == " ".join(line for line in meme["example"] if line)
        assert row["image"].size == (meme["width"], meme["height"])
        assert row["image_sha256"] == hashlib.sha256((root / meme["image"]).read_bytes()).hexdigest()
