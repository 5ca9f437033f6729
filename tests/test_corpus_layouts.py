"""Where the pictures are: embedded in a table, beside it, in a folder beside it; in the layouts of the Hub."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from sae_lens_meme.corpus import BadRows, build_corpus, corpus_notes, read_folder
from sae_lens_meme.errors import BadImageError, BadTableError, ConfigError

N = 12
HATE = [-1 if i % 5 == 4 else i % 2 for i in range(N)]


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def memes(rows: range = range(N), paths: bool = False, **more: list) -> Dataset:
    """Pictures as the Hub has them: bytes in a column, with or without a name, and a label of type ClassLabel."""
    columns = {
        "image": [{"bytes": png(i), "path": f"{i}.png" if paths else None} for i in rows],
        "text": [f"caption {i}" for i in rows],
        "hate": [HATE[i] for i in rows],
        **more,
    }
    features = {"image": ImageFeature(), "text": Value("string"), "hate": ClassLabel(names=["no", "yes"])}
    return Dataset.from_dict(columns, features=Features(features | {name: Value("string") for name in more}))


def build(folder: Path, out: Path, **options) -> dict[str, dict]:
    """The rows of a corpus by caption."""
    corpus = build_corpus(out, folder=folder, progress=False, **({"holdout": 0} | options))
    parts = [part.cast_column("image", ImageFeature(decode=False)).to_list() for part in corpus.values()]
    return {row["text"]: row for part in parts for row in part}


def check(rows: dict[str, dict], splits: list[str] | None = None) -> None:
    assert len(rows) == N
    for i in range(N):
        row = rows[f"caption {i}"]
        assert row["image"]["bytes"] == png(i)
        assert row["image_sha256"] == hashlib.sha256(png(i)).hexdigest()
        assert row["hate"] == (None if HATE[i] < 0 else HATE[i])
        assert row["split"] == (splits[i] if splits else "train")


@pytest.mark.parametrize("paths", [True, False])
def test_parquet_with_pictures(paths: bool, tmp_path):
    file = tmp_path / "hub" / "memes.parquet"
    file.parent.mkdir()
    memes(paths=paths).to_parquet(file, batch_size=5)
    rows = build(file, tmp_path / "file")
    check(rows)
    assert rows["caption 3"]["id"] == ("hub/3.png" if paths else "hub/memes/4")
    check(build(file.parent, tmp_path / "folder"))
    train = build(file, tmp_path / "split", columns={"id": "text"}, holdout=0.3)
    assert {row["id"] for row in train.values()} == {f"hub/caption {i}" for i in range(N)}
    assert {row["split"] for row in train.values()} == {"train", "validation", "test"}


SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3


def parts() -> DatasetDict:
    return DatasetDict({"train": memes(range(6)), "val": memes(range(6, 9)), "test": memes(range(9, 12))})


def test_what_save_to_disk_writes(tmp_path):
    memes().save_to_disk(tmp_path / "one", num_shards=3)
    check(build(tmp_path / "one", tmp_path / "a"))
    parts().save_to_disk(tmp_path / "splits")
    check(build(tmp_path / "splits", tmp_path / "b"), SPLITS)
    memes().select([*range(6), *range(6)]).select(range(6)).save_to_disk(tmp_path / "chosen")
    assert len(build(tmp_path / "chosen", tmp_path / "c")) == 6


def test_the_files_of_a_hub_repository(tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split, part in parts().items():
        for shard in range(2):
            name = f"{split}-{shard:05}-of-00002.parquet"
            part.shard(2, shard).to_parquet(tmp_path / "hub" / "data" / name)
    rows = build(tmp_path / "hub", tmp_path / "out")
    check(rows, SPLITS)
    assert rows["caption 0"]["id"] == "hub/data/train-00000-of-00002/1"


HUB = {
    "older": "data/{}-00000-of-00001-0a1b2c3d4e5f6a7b.parquet",
    "converted": "default/{}/0000.parquet",
    "one configuration": "{}/0000.parquet",
    "numbered": "{}_1.parquet",
    "COCO": "{}2017.parquet",
}


@pytest.mark.parametrize("name", HUB.values(), ids=HUB)
def test_the_files_of_a_hub_repository_by_other_names(name: str, tmp_path):
    for split, part in parts().items():
        file = tmp_path / "hub" / name.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        part.to_parquet(file)
    rows = build(tmp_path / "hub", tmp_path / "out")
    check(rows, SPLITS)
    assert rows["caption 0"]["id"] == f"hub/{name.format('train').removesuffix('.parquet')}/1"


def test_two_configurations_are_not_one_data_set(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "0000.parquet").touch()
    with pytest.raises(BadTableError, match="holds several data sets: a, b; give the folder of one"):
        read_folder(tmp_path)


def test_a_shard_without_a_split_among_shards_with_one_is_named(tmp_path):
    """It was left out, or the splits of all were."""
    for name in ("train-000.tar", "extra-000.tar", "test-000.tar", "._hidden.tar"):
        (tmp_path / name).touch()
    with pytest.raises(BadTableError, match=r"test-000\.tar names a split, but not extra-000\.tar; rename"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("files", "unread"),
    [
        (("train.csv", "labels.csv", "sample_submission.csv", "test.csv"), "'labels.csv', 'sample_submission.csv'"),
        (("data/train.csv", "data/train_2.csv", "data/rest.csv"), "'data/rest.csv'"),
        (("train/metadata.csv", "annotators/metadata.csv"), "'annotators/metadata.csv'"),
        ([f"{name}.csv" for name in ["train", *"abcdefgh"]], "'a.csv', 'b.csv', 'c.csv', 'd.csv', 'e.csv', 'f.csv' and 2 more"),
    ],
)  # fmt: skip
def test_a_table_without_a_split_among_tables_with_one_is_said_not_to_be_read(files: list[str], unread: str, tmp_path):
    for i, name in enumerate((*files, "._hidden.csv")):
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"image,hate\n{i}.png,1\n" if name.startswith((*SPLITS, "data/train")) else "\0")
        (file.parent / f"{i}.png").write_bytes(png(i))
    rows = read_folder(tmp_path / "mine")
    assert {row.file.relative_to(tmp_path / "mine").as_posix() for row in rows} == {
        name for name in files if name.startswith((*SPLITS, "data/train"))
    }
    build_corpus(tmp_path / "out", folder=tmp_path / "mine", progress=False)
    note = f"files of mine that were not read (their names are not those of splits): {unread}"
    assert note in corpus_notes(tmp_path / "out")
    assert f"- {note}" in (tmp_path / "out" / "README.md").read_text()


def test_tables_beside_the_metadata_are_said_not_to_be_read(tmp_path):
    for name in ("metadata.csv", "metadata.jsonl", "train.csv", "._hidden.csv"):
        (tmp_path / name).write_text("file_name\n0.png\n")
    bad = BadRows()
    assert [row.file.name for row in read_folder(tmp_path, bad=bad)] == ["metadata.csv"]
    assert f"files of {tmp_path.name} that were not read (metadata.csv is): 'metadata.jsonl', 'train.csv'" in bad.notes


@pytest.mark.parametrize("name", ["memes.csv", ".memes.csv"])
def test_the_only_table_of_a_folder(name: str, tmp_path):
    """Beside what macOS puts beside each file."""
    (tmp_path / name).write_text("image\n0.png\n")
    (tmp_path / f"._{name}").write_bytes(b"\0")
    assert [row.file.name for row in read_folder(tmp_path)] == [name]


@pytest.mark.parametrize("parts", [("train_1", "train_2", "test"), ("train-1", "train-2", "test-1"), ("train1", "train2", "test")])  # fmt: skip
def test_numbered_parts_of_a_split(parts: tuple[str, ...], tmp_path):
    for i, part in enumerate(parts):
        (tmp_path / f"{part}.csv").write_text(f"image\n{i}.png\n")
    (tmp_path / "._train_1.csv").write_bytes(b"\0")
    assert [row.split and row.split[:4] for row in read_folder(tmp_path)] == ["test", "trai", "trai"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_imagefolder_with_one_metadata_file_a_split(suffix: str, tmp_path):
    for split, part in parts().items():
        folder = tmp_path / "mine" / split
        folder.mkdir(parents=True)
        lines = []
        for i, text in enumerate(part["text"]):  # every split has its own 0.png
            (folder / f"{i}.png").write_bytes(png(int(text.split()[1])))
            lines.append({"file_name": f"{i}.png", "text": text, "hate": ["no", "yes", ""][part["hate"][i]]})
        table = {
            "jsonl": "".join(json.dumps(line) + "\n" for line in lines),
            "csv": "file_name,text,hate\n" + "".join(",".join(line.values()) + "\n" for line in lines),
        }
        (folder / f"metadata.{suffix}").write_text(table[suffix])
    rows = build(tmp_path / "mine", tmp_path / "out")
    check(rows, SPLITS)
    assert rows["caption 6"]["id"] == "mine/val/0.png"
    (tmp_path / "mine" / "val" / f"metadata.{suffix}").unlink()
    with pytest.raises(BadTableError, match=r"val: has no metadata\.csv or .*, but test has; add it"):
        read_folder(tmp_path / "mine")


def test_a_caption_that_is_an_object_is_named(tmp_path):
    row = {"file_name": "0.png", "text": {"en": "hi"}, "more": {"no": "caption"}}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadTableError, match=r"row 1 .*the caption is the object .*'en': 'hi'.*; map a column of text"):
        read_folder(tmp_path / "t.jsonl")


def test_a_class_means_what_its_name_says(tmp_path):
    names = ["oppose", "neutral", "support"]
    features = Features(
        {"image": ImageFeature(), "stance": ClassLabel(names=names), "kind": ClassLabel(names=["a", "b"])}
    )
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)]
    dataset = Dataset.from_dict({"image": images, "stance": [0, 1, 2], "kind": [1, 0, -1]}, features=features)
    dataset.to_parquet(tmp_path / "t.parquet")
    rows = read_folder(tmp_path / "t.parquet", {"labels": {"kind": "kind"}})
    assert [dict(row.labels) for row in rows] == [
        {"stance": 2, "kind": 1},
        {"stance": 0, "kind": 0},
        {"stance": 1, "kind": None},
    ]
    rows = read_folder(tmp_path / "t.parquet", {"labels": {"kind": {"column": "kind", "values": {"a": 7, "b": 9}}}})
    assert [row.labels["kind"] for row in rows] == [9, 7, None]
    table = parquet.read_table(tmp_path / "t.parquet")
    parquet.write_table(table.set_column(1, "stance", pa.array([0, 3, 1])), tmp_path / "t.parquet")
    with pytest.raises(BadTableError, match=r"row 2.*'stance' is 3, its classes are 0 to 2 \(-1: missing\)"):
        read_folder(tmp_path / "t.parquet")


def test_a_broken_embedded_picture_is_named_and_a_missing_one_too(tmp_path):
    images = [{"bytes": png(0), "path": "0.png"}, {"bytes": png(1)[:60], "path": "1.png"}, {"bytes": b"", "path": None}]
    features = Features({"image": ImageFeature(), "text": Value("string")})
    Dataset.from_dict({"image": images, "text": list("abc")}, features=features).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadImageError, match=r"t\.parquet, row 2 .*truncated after 60 bytes"):
        build(tmp_path / "t.parquet", tmp_path / "a")
    rows = build(tmp_path / "t.parquet", tmp_path / "b", on_bad="skip")
    assert list(rows) == ["a"]


def test_pictures_that_a_table_only_names(tmp_path):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "0.png").write_bytes(png(0))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    image = pa.array([{"bytes": None, "path": "pics/0.png"}], kind)
    parquet.write_table(pa.table({"image": image, "text": ["a"]}), tmp_path / "t.parquet")
    assert build(tmp_path / "t.parquet", tmp_path / "out")["a"]["image"]["bytes"] == png(0)


def test_a_column_of_pictures_is_no_caption(tmp_path):
    memes().to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadTableError, match="column 'image' holds pictures, not text"):
        read_folder(tmp_path / "t.parquet", {"text": "image"})


def a_table(root: Path, pictures: Path, name: str = "{}.png") -> None:
    root.mkdir(exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(3):
        (pictures / f"{i}.png").write_bytes(png(i))
        lines.append(f"{name.format(i)},caption {i}\n")
    (root / "metadata.csv").write_text("image,text\n" + "".join(lines))


@pytest.mark.parametrize("folder", [".", "images", "img", "Some Pictures"])
def test_pictures_in_a_folder_that_the_table_does_not_name(folder: str, tmp_path):
    root = tmp_path / "mine"
    for decoy in ("a", "zzz"):
        (root / decoy).mkdir(parents=True)
    a_table(root, root / folder)
    rows = build(root, tmp_path / "out")
    assert [rows[f"caption {i}"]["image"]["bytes"] for i in range(3)] == [png(i) for i in range(3)]
    assert rows["caption 0"]["id"] == "mine/0.png"


def test_the_column_map_names_the_folder_of_the_pictures(tmp_path):
    root = tmp_path / "mine"
    a_table(root, root / "a" / "deep" / "folder")
    with pytest.raises(BadImageError, match=r"'0\.png' does not exist"):
        build(root, tmp_path / "x")
    for given in ("a/deep/folder", str(root / "a" / "deep" / "folder")):
        rows = build(root, tmp_path / "out", columns={"pictures": given})
        assert rows["caption 2"]["image"]["bytes"] == png(2)
    with pytest.raises(
        ConfigError, match=r"pictures is 'b', which is not a folder in .*mine; it has a/, metadata\.csv"
    ):
        read_folder(root, {"pictures": "b"})
    with pytest.raises(ConfigError, match="pictures is 3; give the name of a folder"):
        read_folder(root, {"pictures": 3})


@pytest.mark.parametrize("name", ["{}.png", "img/{}.png"])
def test_a_folder_of_pictures_may_be_a_link_but_not_lead_on(name: str, tmp_path):
    root = tmp_path / "mine"
    a_table(root, tmp_path / "elsewhere", name)
    (root / "img").symlink_to(tmp_path / "elsewhere")
    assert build(root, tmp_path / "out")["caption 1"]["image"]["bytes"] == png(1)
    (tmp_path / "elsewhere" / "2.png").unlink()
    (tmp_path / "secret.png").write_bytes(png(9))
    (tmp_path / "elsewhere" / "2.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(BadTableError, match="is a link that leads outside 'img'"):
        read_folder(root)


def test_a_release_with_a_linked_folder_of_pictures(tmp_path):
    (tmp_path / "hmc").mkdir()
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(png(i))
    (tmp_path / "hmc" / "img").symlink_to(tmp_path / "pictures")
    lines = [json.dumps({"id": i, "img": f"img/{i}.png", "label": i, "text": "a"}) + "\n" for i in range(2)]
    (tmp_path / "hmc" / "train.jsonl").write_text("".join(lines))
    corpus = build_corpus(tmp_path / "out", hmc=tmp_path / "hmc", progress=False)
    assert corpus["train"]["id"][:] == ["hmc/0.png", "hmc/1.png"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"state.json": "{}"}, r"state\.json: is not what save_to_disk writes"),
        ({"dataset_dict.json": '{"splits": [1]}'}, r"dataset_dict\.json: is not what save_to_disk writes"),
        ({"dataset_dict.json": "["}, r"dataset_dict\.json: is not what save_to_disk writes"),
        ({"state.json": '{"_data_files": [{"filename": "../../x.arrow"}]}'}, r"mine/x\.arrow: no such file"),
        ({"state.json": '{"_data_files": [{"filename": "x.arrow"}]}', "x.arrow": "ARROW"}, "cannot be read as Arrow"),
        ({"train.csv": "image\n", "test.csv": "image\na.png\n"}, r"train\.csv: has no rows"),
        ({"a.txt": ""}, r"looked for metadata\.csv or .*found a\.txt"),
    ],
)
def test_refuses_folders(files: dict[str, str], message: str, tmp_path):
    (tmp_path / "mine").mkdir()
    for name, text in files.items():
        (tmp_path / "mine" / name).write_text(text)
    with pytest.raises(BadTableError, match=message):
        read_folder(tmp_path / "mine")


def test_a_saved_split_that_is_gone_is_named(tmp_path):
    parts().save_to_disk(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "test")
    with pytest.raises(BadTableError, match=r"test/state\.json: is not what save_to_disk writes"):
        read_folder(tmp_path / "mine")


@pytest.mark.parametrize("names", [["hateful", "not_hateful"], ["no", "yes"], ["none", "mild", "severe"]])
def test_what_the_codes_of_a_class_are_taken_for_is_said(names: list[str], tmp_path):
    """0 of `hateful` became hate=0 without a word, and 2 of three classes a level that hate does not have."""
    kinds = Features({"image": ImageFeature(), "hate": ClassLabel(names=names)})
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(2)], "hate": [0, 1]}
    Dataset.from_dict(columns, features=kinds).save_to_disk(tmp_path / "mine")
    bad = BadRows()
    if len(names) > 2:
        with pytest.raises(
            BadTableError, match=r"the class 'severe' of column 'hate' is code 2, which is no level of hate; say"
        ):
            read_folder(tmp_path / "mine")
        mapped = {"labels": {"hate": {"column": "hate", "values": {"none": 0, "mild": 1, "severe": 1}}}}
        assert [row.labels["hate"] for row in read_folder(tmp_path / "mine", mapped)] == [0, 1]
        return
    assert [row.labels["hate"] for row in read_folder(tmp_path / "mine", bad=bad)] == [0, 1]
    note = "hate is the code of its class, whose name is none of its levels: 0 of 'hateful', 1 of 'not_hateful' (a column map with values says otherwise)"
    assert bad.notes == ([note] if names[0] == "hateful" else [])
    mapped = {"labels": {"hate": {"column": "hate", "values": {names[0]: 1, names[1]: 0}}}}
    bad = BadRows()
    assert [row.labels["hate"] for row in read_folder(tmp_path / "mine", mapped, bad)] == [1, 0]
    assert bad.notes == []
