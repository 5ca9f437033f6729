"""What a corpus says of itself: rows skipped and why, classes that would be lost, copies, and its export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from sae_lens_meme.corpus import build_corpus, corpus_notes, export_table, load_rows
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.errors import BadTableError, ConfigError, StorageError
from sae_lens_meme.storage import read_manifest


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)


def make(root: Path, rows: list[dict], broken: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> Path:
    """A folder of memes; `seed` of a row is the content of its picture."""
    lines = []
    for i, row in enumerate(rows):
        row = {"image": f"{i}.png", "text": f"caption {i}", **row}
        picture(root / row["image"], row.pop("seed", i))
        lines.append(json.dumps(row) + "\n")
    for name in broken:
        (root / name).write_bytes(b"<html>")
    for name in missing:
        (root / name).unlink()
    (root / "metadata.jsonl").write_text("".join(lines))
    return root


def build(folder: Path, out: Path, **options):
    return build_corpus(out, folder=folder, progress=False, **({"holdout": 0, "on_bad": "skip"} | options))


def test_what_is_skipped_is_counted_by_reason(tmp_path):
    rows = [{"hate": i % 2, "split": "train"} for i in range(40)]
    rows[3]["hate"] = "perhaps"
    rows[4]["split"] = "somewhere"
    rows[5]["image"] = "../5.png"
    rows[6]["split"] = None
    rows.append({**rows[7], "image": "7.png", "text": "caption 7", "seed": 7})  # the same row again
    rows.append({**rows[8], "image": "8.png", "text": "something else", "seed": 8})  # the same id, another meme
    folder = make(tmp_path / "mine", rows, broken=("9.png", "10.png"), missing=("11.png",))
    corpus = build(folder, tmp_path / "out")
    assert corpus["train"].num_rows == 42 - 10
    assert "mine/7.png" in corpus["train"]["id"][:]
    assert "mine/8.png" not in corpus["train"]["id"][:]
    facts = read_manifest(tmp_path / "out")["facts"]
    assert facts["skipped"] == {
        "repeated id": 3,
        "broken picture": 2,
        "unreadable hate label": 1,
        "bad picture path": 1,
        "missing split": 1,
        "unknown split": 1,
        "missing picture": 1,
    }
    line = corpus_notes(tmp_path / "out")[0]
    assert line == (
        "10 rows skipped: 3 repeated ids, 2 broken pictures, 1 unreadable hate label, 1 bad picture path, 1 missing split, "
        "1 unknown split, 1 missing picture (listed in bad_rows.jsonl)"
    )
    assert f"- {line}" in (tmp_path / "out" / "README.md").read_text()
    listed = [json.loads(line) for line in (tmp_path / "out" / "bad_rows.jsonl").read_text().splitlines()]
    assert len(listed) == 10
    assert {row["kind"] for row in listed} == set(facts["skipped"])


def test_a_corpus_of_sound_rows_has_nothing_to_say(tmp_path):
    build(make(tmp_path / "mine", [{"hate": i % 2} for i in range(4)]), tmp_path / "out", on_bad="raise")
    assert corpus_notes(tmp_path / "out") == []
    assert "Train and test share no picture and no caption." in (tmp_path / "out" / "README.md").read_text()


def test_what_was_not_read_is_said(tmp_path):
    rows = [{"label": 1, "set": "train", "source": "a", "Unnamed: 0": 0} | {f"|{k}": 0 for k in range(9)}] * 2
    folder = make(tmp_path / "mine", [dict(row) for row in rows])
    build(folder, tmp_path / "out")
    note = (
        "no labels were read of mine; columns of mine that were not read (a column map names them): "
        "'label', 'set', 'source', '|0', '|1', '|2' and 6 more"
    )
    assert corpus_notes(tmp_path / "out") == [note]
    assert f"- {note.replace('|', '&#124;')}" in (tmp_path / "out" / "README.md").read_text()
    columns = {"split": "set", "source": None, "labels": {"label": "label"} | {f"x{k}": f"|{k}" for k in range(9)}}
    build(folder, tmp_path / "mapped", columns=columns)
    assert corpus_notes(tmp_path / "mapped") == []


@pytest.mark.parametrize("cause", ["other label", "picture", "own spelling"])
def test_a_class_is_never_lost_whole(cause: str, tmp_path):
    """Every meme of one class has a fault that `skip` would pass over."""
    rows: list[dict] = [{"hate": i % 2, "humor": 1, "kind": i % 3} for i in range(30)]
    for i in range(0, 30, 2):
        rows[i] |= {"humor": "?"} if cause == "other label" else {"hate": "nope"} if cause == "own spelling" else {}
    broken = tuple(f"{i}.png" for i in range(0, 30, 2)) if cause == "picture" else ()
    folder = make(tmp_path / "mine", rows, broken=broken)
    lost = "hate 'nope'" if cause == "own spelling" else r"hate 0 \(no\)"
    reason = {"other label": "humor is '\\?'", "picture": "is HTML", "own spelling": "hate is 'nope'"}[cause]
    message = rf"mine: skipping would lose all 15 rows with {lost}; the first is metadata\.jsonl, row 1 .*{reason}"
    with pytest.raises(BadTableError, match=message):
        build(folder, tmp_path / "out")
    with pytest.raises(StorageError, match=r"interrupted|not a result"):
        load_rows(tmp_path / "out")


def test_a_class_is_not_lost_behind_another_source(tmp_path):
    rows = [{"hate": i % 2, "source": "ab"[i // 20]} for i in range(40)]
    for i in range(0, 20, 2):
        rows[i]["humor"] = "?"
    columns = {"source": "source", "labels": {"humor": "humor"}}
    with pytest.raises(BadTableError, match=r"a: skipping would lose all 10 rows with hate 0 \(no\)"):
        build(make(tmp_path / "mine", rows), tmp_path / "out", columns=columns)


def test_a_split_is_not_lost_whole_for_its_name(tmp_path):
    rows = [{"split": "train" if i < 20 else "holdout"} for i in range(30)]
    with pytest.raises(
        BadTableError, match=r"lose all 10 rows with split 'holdout'.*split is 'holdout', allowed: train"
    ):
        build(make(tmp_path / "mine", rows), tmp_path / "out")


def test_one_corrupt_value_is_skipped(tmp_path):
    rows = [{"hate": "18b0" if i == 3 else i % 2} for i in range(8)]
    assert build(make(tmp_path / "mine", rows), tmp_path / "out")["train"].num_rows == 7


def splits_of(out: Path) -> dict[str, str]:
    rows = load_rows(out)
    return dict(zip(rows["id"][:], rows["split"][:], strict=True))


def test_copies_of_a_picture_get_one_split_and_the_others_keep_theirs(tmp_path):
    alone = [{"image": f"{i}.png", "seed": i} for i in range(60)]
    build(make(tmp_path / "alone" / "mine", alone), tmp_path / "a", holdout=0.25)
    copies = [{"image": f"copy{i}.png", "seed": i} for i in range(30)]
    build(make(tmp_path / "both" / "mine", [*copies, *alone]), tmp_path / "b", holdout=0.25)
    before, after = splits_of(tmp_path / "a"), splits_of(tmp_path / "b")
    assert {after[f"mine/copy{i}.png"] for i in range(30)} == {"train", "validation", "test"}
    for i in range(60):
        assert after[f"mine/{i}.png"] == before[f"mine/{i}.png"]
        assert i >= 30 or after[f"mine/copy{i}.png"] == after[f"mine/{i}.png"]
    assert read_manifest(tmp_path / "b")["facts"]["shared_pictures"]["test"][0] == 0


def test_a_copy_follows_the_split_that_its_source_gives(tmp_path):
    folder = tmp_path / "sources"
    given = [{"image": f"{i}.png", "seed": i, "split": ("train", "dev", "test")[i % 3]} for i in range(12)]
    make(folder / "given", given)
    lines = "".join(f"0,{i}.jpg,a,meme {i},funny,general,slight,motivational,positive\n" for i in range(12))
    for i in range(12):
        (folder / "given" / f"{i}.png").read_bytes()
        (folder / "memotion").mkdir(exist_ok=True)
        (folder / "memotion" / f"{i}.jpg").write_bytes((folder / "given" / f"{i}.png").read_bytes())
    header = ",image_name,text_ocr,text_corrected,humour,sarcasm,offensive,motivational,overall_sentiment\n"
    (folder / "memotion" / "labels.csv").write_text(header + lines)
    build_corpus(tmp_path / "out", folder=folder / "given", memotion=folder / "memotion", holdout=0.1, progress=False)
    splits = splits_of(tmp_path / "out")
    assert all(splits[f"memotion/{i}.jpg"] == splits[f"given/{i}.png"] for i in range(12))


def test_pictures_and_captions_that_given_splits_share_are_counted(tmp_path):
    split = ["train"] * 6 + ["val"] * 4 + ["test"] * 5
    seeds = [*range(6), 0, 1, 8, 9, 2, 3, 4, 13, 14]
    texts = [
        "same" if i in (0, 6, 10, 11) else None if i == 14 else "" if i in (1, 13) else f"text {i}" for i in range(15)
    ]
    rows = [
        {"split": s, "seed": seed, "text": t, "hate": 0 if i < 9 else None}
        for i, (s, seed, t) in enumerate(zip(split, seeds, texts, strict=True))
    ]
    build(make(tmp_path / "mine", rows), tmp_path / "out")
    facts = read_manifest(tmp_path / "out")["facts"]
    assert facts["shared_pictures"] == {"validation": [2, 4], "test": [3, 5]}
    assert facts["shared_captions"] == {"validation": [1, 4], "test": [2, 3]}  # no caption is not a shared caption
    assert facts["without_caption"] == 1
    notes = corpus_notes(tmp_path / "out")
    assert notes == [
        "2 of 4 validation pictures are also in train",
        "3 of 5 test pictures are also in train",
        "1 of 4 validation captions is also in train",
        "2 of 3 test captions are also in train",
        "no test rows with hate: scores of these have no held-out test",
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(f"- {note}\n" in card for note in notes)
    assert "Memes without a caption (`text` is empty, `text_origin` is `none`): 1." in card


NASTY = [
    "NA",
    "",
    None,
    "a,b",
    '"',
    "line\nline",
    "line\r\nline",
    "line\rline",
    "=1+1",
    "007",
    "😀",
    "x" * 10_000,
    "a\0b",
    " ",
]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_exported_table_is_read_back_beside_arrays(suffix: str, tmp_path):
    rows = [
        {"text": text, "hate": (0, 1, None)[i % 3], "kind": i % 4, "split": ("train", "val", "test")[i % 3]}
        for i, text in enumerate(NASTY)
    ]
    build(make(tmp_path / "mine", rows), tmp_path / "out", columns={"labels": {"kind": "kind"}}, on_bad="raise")
    table = tmp_path / "tables" / f"t.{suffix}"
    assert export_table(tmp_path / "out", table) == len(NASTY)
    np.save(tmp_path / "x.npy", np.ones((len(NASTY), 3), np.float32))
    read = embed_arrays(out=tmp_path / "e", fused_embeds=tmp_path / "x.npy", table=table)
    corpus = load_rows(tmp_path / "out")
    assert read.texts is not None
    texts = dict(zip(read.ids, read.texts, strict=True))
    assert [texts[f"mine/{i}.png"] for i in range(len(NASTY))] == NASTY
    assert read.ids.tolist() == corpus["id"][:]
    assert read.splits.tolist() == corpus["split"][:]
    assert read.sources.tolist() == corpus["source"][:]
    assert len(set(read.groups)) == len(set(corpus["group"][:])) < len(NASTY)
    for name in ("hate", "kind"):
        label = read.label(name)
        assert [int(v) if k else None for v, k in zip(label.values, label.known, strict=True)] == corpus[name][:]


def test_an_export_replaces_nothing_unasked(tmp_path):
    build(make(tmp_path / "mine", [{}]), tmp_path / "out")
    (tmp_path / "t.parquet").write_text("mine")
    with pytest.raises(StorageError, match="is there already; pass --overwrite"):
        export_table(tmp_path / "out", tmp_path / "t.parquet")
    export_table(tmp_path / "out", tmp_path / "t.parquet", overwrite=True)
    assert parquet.read_table(tmp_path / "t.parquet").num_rows == 1
    with pytest.raises(ConfigError, match=r"a table is written as \.csv or \.parquet"):
        export_table(tmp_path / "out", tmp_path / "t.xlsx")


def test_hostile_names_and_captions_are_data(tmp_path):
    hostile = ["\x1b[31m", "[link=x]y[/link]", "<script>alert(1)</script>", "{{ 7 * 7 }}", "‮gnp", "y" * 50_000]
    rows = [{"id": text, "text": text, "source": text[:200], "split": "train"} for text in hostile]
    folder = make(tmp_path / "mine", rows, broken=("5.png",))
    corpus = build(folder, tmp_path / "out", columns={"source": "source"})
    assert corpus["train"]["text"][:] == hostile[:5]
    assert corpus["train"]["id"][:] == [f"{text[:200]}/{text}" for text in hostile[:5]]
    card = (tmp_path / "out" / "README.md").read_text()
    assert not {"\x1b", "‮"} & set(card)
    assert "<script" not in card
    assert "{{ 7 * 7 }}" in card
    with pytest.raises(BadTableError, match="allowed: ") as caught:
        build(make(tmp_path / "two", [{"hate": "\x1b" * 9000}]), tmp_path / "b", on_bad="raise")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_hint_for_a_copy_with_fewer_labels_works(tmp_path):
    root = tmp_path / "sentiment only"
    picture(root / "images" / "a.png", 0)
    (root / "labels.csv").write_text(
        "index,Image_Name,text_ocr,text_corrected,overall_sentiment\n0,a.png,c,d,negative\n"
    )
    with pytest.raises(BadTableError, match=r"--folder .* --columns FILE") as caught:
        build_corpus(tmp_path / "out", memotion=root, progress=False)
    (tmp_path / "map.yaml").write_text(str(caught.value).partition("that holds ")[2])
    corpus = build_corpus(tmp_path / "out", folder=root, columns=tmp_path / "map.yaml", progress=False, holdout=0)
    assert (corpus["train"]["sentiment"][:], corpus["train"]["text"][:]) == ([-1], ["d"])
