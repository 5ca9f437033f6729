"""Copies and near copies: found, counted by source, one group, one split; dropped from train, or left out of scores."""

from __future__ import annotations

import io
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import make_embeddings
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from sae_lens_meme.corpus import build_corpus, corpus_notes, load_rows
from sae_lens_meme.corpus.survey import differing_bits, near_pairs, perceptual_hashes
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import BadTableError, ConfigError
from sae_lens_meme.evaluators.cautions import cautions
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.steps import corpus_step
from sae_lens_meme.storage import read_manifest


def scene(seed: int) -> Image.Image:
    """A picture with shapes, as photographs and drawings have and noise has not."""
    coarse = np.random.default_rng(seed).integers(30, 220, (10, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "JPEG": lambda image: as_jpeg(image, 30),
    "half the size": lambda image: image.resize((60, 45)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_that_was_saved_again_is_near_and_another_picture_is_not(how: str):
    originals = [perceptual_hashes(scene(seed)) for seed in range(40)]
    copies = [perceptual_hashes(COPIES[how](scene(seed))) for seed in range(40)]
    hashes = [code for code in [*originals, *copies] if code is not None]
    assert len(hashes) == 80
    pairs = {tuple(pair) for pair in near_pairs(hashes, 4).tolist()}
    assert pairs <= {(i, i + 40) for i in range(40)}
    assert len(pairs) >= 36


def test_a_plain_picture_is_near_nothing():
    assert perceptual_hashes(Image.new("RGB", (50, 50), "white")) is None
    nearly = Image.fromarray(np.random.default_rng(0).integers(254, 256, (50, 50, 3), dtype=np.uint8))
    assert perceptual_hashes(nearly) is None


@given(st.integers(0, 8), st.integers(0, 2**32))
def test_pairs_are_those_of_a_comparison_of_all(most: int, seed: int):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, (4, 2), dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (60, 2, 12), dtype=np.uint64)
    used = np.arange(12) < rng.integers(0, 12, (60, 2, 1))
    hashes = base[rng.integers(0, 4, 60)] ^ np.bitwise_xor.reduce(np.where(used, flips, np.uint64(0)), axis=2)
    expected = [
        [i, j]
        for i in range(60)
        for j in range(i + 1, 60)
        if int(hashes[i, 0] ^ hashes[j, 0]).bit_count() <= most
        and int(hashes[i, 1] ^ hashes[j, 1]).bit_count() <= 2 * most
    ]
    assert near_pairs([tuple(row) for row in hashes.tolist()], most).tolist() == expected


def test_bits_are_counted():
    one = np.array([0, 2**64 - 1, 5, 2**63], dtype=np.uint64)
    assert differing_bits(one, np.zeros(4, dtype=np.uint64)).tolist() == [0, 64, 2, 1]


@pytest.mark.slow
def test_200_000_hashes_take_seconds_and_every_planted_pair_is_found():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (200_000, 2), dtype=np.uint64)
    source, copies = rng.choice(198_000, 2000, replace=False), np.arange(198_000, 200_000)
    flips = np.uint64(1) << np.stack([rng.permutation(64)[:4] for _ in range(2000)]).astype(np.uint64)
    hashes[copies] = hashes[source]
    hashes[copies, 0] ^= np.bitwise_or.reduce(flips, axis=1)
    start = time.perf_counter()
    pairs = near_pairs([tuple(row) for row in hashes.tolist()], 4)
    seconds = time.perf_counter() - start
    planted = {tuple(sorted(pair)) for pair in zip(source.tolist(), copies.tolist(), strict=True)}
    assert {tuple(pair) for pair in pairs.tolist()} == planted
    assert seconds < 60


def write(root: Path, rows: Iterable[dict]) -> Path:
    """A folder of memes; `scene` of a row is its picture, `copy` how it was saved again."""
    root.mkdir(parents=True)
    lines = []
    for i, row in enumerate(rows):
        image = scene(row.pop("scene", 100 + i))
        image = COPIES[how](image) if (how := row.pop("copy", None)) else image
        image.save(root / f"{i:02}.png")
        lines.append(json.dumps({"image": f"{i:02}.png", "text": f"caption {i}", "hate": i % 2, **row}) + "\n")
    (root / "metadata.jsonl").write_text("".join(lines))
    return root


def leaking(root: Path) -> Path:
    """Ten train memes; of the test memes one shares each thing with train, and the last two nothing."""
    train: list[dict] = [{"split": "train", "scene": i, "template": f"t{i}", "site": "a"} for i in range(10)]
    test: list[dict] = [{"split": "test", "template": f"u{i}", "site": "ab"[i % 2]} for i in range(6)]
    test[0]["scene"] = 0
    test[1] |= {"scene": 1, "copy": "JPEG"}
    test[2]["text"] = "Caption  2"
    test[3]["template"] = "t3"
    validation = [{"split": "val", "template": "u4", "site": "a"}]
    return write(root, [*train, *test, *validation])


COLUMNS = {"group": "template", "source": "site"}


def test_what_held_out_memes_share_with_train_is_counted_by_source(tmp_path: Path):
    build_corpus(tmp_path / "out", folder=leaking(tmp_path / "mine"), columns=COLUMNS, progress=False)
    facts = read_manifest(tmp_path / "out")["facts"]
    counts = {"memes": 3, "picture": 0, "near picture": 0, "caption": 0, "group": 0, "any": 0}
    assert facts["leaks"] == {
        "validation": {"a": counts | {"memes": 1}},
        "test": {
            "a": counts | {"picture": 1, "near picture": 1, "caption": 1, "any": 2},
            "b": counts | {"near picture": 1, "group": 1, "any": 2},
        },
    }
    assert facts["shared_pictures"]["test"] == [1, 6]
    notes = corpus_notes(tmp_path / "out")
    assert notes == [
        "1 of 6 test pictures is also in train",
        "1 of 6 test captions is also in train",
        "4 of 6 test memes are in a group (picture, near picture, caption or column) that is also in train, 2 of them a near"
        " picture (a 2 of 3, b 2 of 3)",
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| test | b | 3 | 0 | 1 | 0 | 1 | 2 |" in card
    rows = load_rows(tmp_path / "out")
    group = dict(zip(rows["id"][:], rows["group"][:], strict=True))
    assert [group[f"{'ab'[i % 2]}/{10 + i}.png"] for i in range(4)] == [f"a/0{i}.png" for i in range(4)]


def test_dedupe_drops_from_train_and_from_validation_and_never_from_test(tmp_path: Path):
    folder = leaking(tmp_path / "mine")
    corpus = build_corpus(tmp_path / "out", folder=folder, columns=COLUMNS, dedupe=True, progress=False)
    assert corpus["train"]["id"][:] == [f"a/0{i}.png" for i in range(4, 10)]
    assert corpus["test"].num_rows == 6
    assert corpus["validation"].num_rows == 0, "its template is in test"
    lines = [json.loads(line) for line in (tmp_path / "out" / "duplicates.jsonl").read_text().splitlines()]
    assert {line["id"]: (line["kind"], line["reason"]) for line in lines} == {
        "a/00.png": ("picture", "has the picture of 'a/10.png', which is in test"),
        "a/01.png": ("near picture", "has nearly the picture of 'b/11.png', which is in test"),
        "a/02.png": ("caption", "has the caption of 'a/12.png', which is in test"),
        "a/03.png": ("group", "has the group of 'b/13.png', which is in test"),
        "a/16.png": ("group", "has the group of 'a/14.png', which is in test"),
    }
    facts = read_manifest(tmp_path / "out")["facts"]
    assert all(source["any"] == 0 for split in facts["leaks"].values() for source in split.values())
    assert facts["dropped"]["dedupe: has the picture of a held-out meme"] == 1
    assert sum(facts["dropped"].values()) == 5
    assert "- dedupe: has the picture of a held-out meme: 1 rows" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "bad_rows.jsonl").read_text(), "they are not faulty"


def test_what_was_left_out_is_said_in_the_last_lines_and_once_in_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = str(leaking(tmp_path / "mine"))
    corpus_step({"folder": folder, "columns": COLUMNS, "dedupe": True}, out=tmp_path / "out")
    assert "  5 rows left out: dedupe: has the picture of a held-out meme (1), " in capsys.readouterr().out
    assert (tmp_path / "out" / "README.md").read_text().count("dedupe: has the picture") == 1
    corpus_step({"folder": folder, "columns": COLUMNS}, out=tmp_path / "all")
    assert "left out" not in capsys.readouterr().out


def test_a_chain_is_dropped_whole(tmp_path: Path):
    rows = [
        {"split": "train", "text": "x", "scene": 0},
        {"split": "train", "scene": 0},
        {"split": "test", "text": "X"},
        {"split": "train"},
    ]
    build_corpus(tmp_path / "out", folder=write(tmp_path / "mine", rows), dedupe=True, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "duplicates.jsonl").read_text().splitlines()]
    assert [(line["id"], line["kind"]) for line in lines] == [("mine/00.png", "caption"), ("mine/01.png", "chain")]
    assert lines[1]["reason"] == "is joined by other memes to 'mine/02.png', which is in test"


def test_dedupe_that_leaves_no_train_meme_is_refused(tmp_path: Path):
    rows = [{"split": split, "text": "x"} for split in ("train", "test")]
    with pytest.raises(BadTableError, match="every train meme is in a group that is also held out"):
        build_corpus(tmp_path / "out", folder=write(tmp_path / "mine", rows), dedupe=True, progress=False)


def test_near_copies_get_one_split_and_the_distance_is_part_of_the_corpus(tmp_path: Path):
    rows = [{"scene": i % 40, "copy": "JPEG" if i >= 40 else None} for i in range(80)]
    folder = write(tmp_path / "mine", rows)
    corpus = build_corpus(tmp_path / "out", folder=folder, holdout=0.3, progress=False)
    split = {identity: name for name, part in corpus.items() for identity in part["id"][:]}
    together = [split[f"mine/{i:02}.png"] == split[f"mine/{i + 40:02}.png"] for i in range(40)]
    assert sum(together) >= 38
    apart = build_corpus(tmp_path / "exact", folder=folder, holdout=0.3, near=0, progress=False)
    assert read_manifest(tmp_path / "exact")["facts"]["n_groups"] > read_manifest(tmp_path / "out")["facts"]["n_groups"]
    assert sum(len(part) for part in apart.values()) == 80
    with pytest.raises(ConfigError, match=r"corpus\.near is 9, it must be 8 or less"):
        build_corpus(tmp_path / "x", folder=folder, near=9)


class Unsigned(defaultdict):
    """The metadata of an SAE that says nothing of its training."""

    __getattr__ = defaultdict.__getitem__


SAE = SimpleNamespace(cfg=SimpleNamespace(metadata=Unsigned(lambda: None)))


def grouped(groups: list[str], splits: list[str]) -> Embeddings:
    x = np.random.default_rng(0).normal(size=(len(groups), 4)).astype(np.float32)
    embeddings = make_embeddings({"hook_fused": x}, splits=splits)
    return Embeddings.from_dataset(
        concatenate_datasets([embeddings.dataset, Dataset.from_dict({"group": groups})], axis=1)
    )


def test_contaminated_memes_are_left_out_of_the_splits_and_counted():
    splits = ["train", "train", "validation", "validation", "test", "test", "test"]
    memes = grouped(["a", "b", "a", "c", "c", "b", "d"], splits)
    assert memes.contaminated.tolist() == [2, 4, 5]
    clean = memes.without_contaminated()
    assert {split: clean.rows(split).tolist() for split in ("train", "validation", "test")} == {
        "train": [0, 1],
        "validation": [3],
        "test": [6],
    }
    assert memes.rows("test").tolist() == [4, 5, 6]
    assert (len(clean), clean.fingerprint) == (7, memes.fingerprint)
    assert any(line.startswith("3 held-out memes are left out") for line in cautions(SAE, clean))
    assert not any("left out" in line for line in cautions(SAE, memes))


def test_leaving_out_is_recorded_only_where_it_is_asked_for():
    memes = grouped(["a", "a", "b"], ["train", "test", "test"])
    for asked, tested in ((False, [1, 2]), (True, [2])):
        made = {"options": EvaluateOptions(exclude_leaks=asked).recorded()}
        assert memes.as_evaluated(made).rows("test").tolist() == tested, "what reads an evaluation has its splits"
    assert memes.as_evaluated({}).rows("test").tolist() == [1, 2], "of an earlier release"
    assert "exclude_leaks" not in EvaluateOptions().recorded()
    assert EvaluateOptions(exclude_leaks=True).recorded()["exclude_leaks"] is True
