"""The layouts of further releases, on generated files; the real fine-grained labels of Hateful Memes, where they lie."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Value, load_from_disk
from datasets import Image as ImageFeature
from PIL import Image

from sae_lens_meme.corpus import READERS, BadRows, Row, build_corpus, read_folder, read_hmc
from sae_lens_meme.errors import BadTableError, ConfigError

SHARED = Path(__file__).parents[2] / "shared"


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def files(root: Path, **content: Any) -> Path:
    """Files by their path; a list of objects is JSON Lines."""
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, list):
            data = "".join(json.dumps(row) + "\n" for row in data)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def table(*rows: tuple, tabs: bool = False) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter="\t" if tabs else ",", lineterminator="\n").writerows(rows)
    return out.getvalue()


def read(name: str, root: Path, bad: BadRows | None = None) -> list[Row]:
    return READERS[name].read(root, bad=bad)


MAMI = ("file_name", "misogynous", "shaming", "stereotype", "objectification", "violence", "Text Transcription")


def mami(root: Path, labels: str | None = "15001.jpg\t1\t0\t1\t0\t0\n") -> Path:
    train = [MAMI, ("1.jpg", 0, 0, 0, 0, 0, "one"), ("10.jpg", 1, 1, 0, 0, 1, 'two\n"lines"')]
    content = {
        "TRAINING/training.csv": table(*train, tabs=True),
        "TRAINING/1.jpg": png(0),
        "TRAINING/10.jpg": png(1),
        "test/Test.csv": table((MAMI[0], MAMI[-1]), ("15001.jpg", "three"), tabs=True),
        "test/15001.jpg": png(2),
        **({} if labels is None else {"test_labels.txt": labels}),
    }
    return files(root, **content)


def test_mami(tmp_path: Path):
    one, two, three = read("mami", mami(tmp_path))
    assert (one.id, one.split, one.text, one.picture) == ("mami/1.jpg", "train", "one", tmp_path / "TRAINING" / "1.jpg")
    assert two.text == 'two\n"lines"'
    assert two.labels == {"misogynous": 1, "shaming": 1, "stereotype": 0, "objectification": 0, "violence": 1}
    assert (three.id, three.split) == ("mami/15001.jpg", "test")
    assert three.labels == {"misogynous": 1, "shaming": 0, "stereotype": 1, "objectification": 0, "violence": 0}
    corpus = build_corpus(tmp_path / "out", mami=tmp_path, progress=False)
    assert corpus["train"]["misogynous"][:] == [0, 1]
    assert corpus["test"]["hate"][:] == [None]


def test_test_memes_of_mami_without_their_labels_have_none(tmp_path: Path):
    assert set(read("mami", mami(tmp_path / "a", labels=None))[2].labels.values()) == {None}
    with pytest.raises(BadTableError, match=r"test_labels\.txt, row 1: has 2 fields, not 6"):
        read("mami", mami(tmp_path / "b", labels="15001.jpg\t1\n"))


@pytest.mark.parametrize("names", ["annotations/{}.jsonl", "{}_v1.jsonl"])
def test_harmeme(names: str, tmp_path: Path):
    rows = [
        {"id": "a_1", "image": "a_1.png", "labels": ["not harmful"], "text": "x"},
        {"id": "a_2", "image": "a_2.png", "labels": ["somewhat harmful", "individual"], "text": "y"},
        {"id": "a_3", "image": "a_3.png", "labels": ["very harmful", "community", "society"], "text": ""},
        {"id": "a_4", "image": "a_4.png", "labels": [], "text": ""},
    ]
    root = files(tmp_path, **{names.format("train"): rows[:2], names.format("test"): rows[2:], "images/a_1.png": b""})
    one, two, three, four = read("harmeme", root)
    nobody = dict.fromkeys(("harms_individual", "harms_organization", "harms_community", "harms_society"))
    assert one.labels == {"harmful": 0, **nobody}, "whom a harmless meme harms is not 0: nobody was asked"
    assert two.labels == {"harmful": 1, **dict.fromkeys(nobody, 0), "harms_individual": 1}
    assert three.labels == {"harmful": 2, **dict.fromkeys(nobody, 0), "harms_community": 1, "harms_society": 1}
    assert four.labels == {"harmful": None, **nobody}
    assert (three.id, three.split, three.picture) == ("harmeme/a_3.png", "test", tmp_path / "images" / "a_3.png")
    files(tmp_path, **{names.format("val"): [rows[0] | {"labels": ["rather harmful"]}]})
    with pytest.raises(BadTableError, match="harmful is 'rather harmful', allowed: not harmful, somewhat harmful"):
        read("harmeme", root)


def test_whom_a_harmful_meme_harms_is_unknown_where_it_does_not_say(tmp_path: Path):
    """Its targets were 0, and so they were beside a word that is none."""
    labels = [["very harmful"], ["very harmful", "socitey"], ["individual"]]
    rows = [{"id": str(i), "image": f"{i}.png", "text": "t", "labels": label} for i, label in enumerate(labels)]
    (row,) = read("harmeme", files(tmp_path, **{"train.jsonl": rows}), bad := BadRows("skip"))
    assert dict(row.labels) == {"harmful": 2, **dict.fromkeys(name for name in row.labels if name != "harmful")}
    assert [(fault.row, fault.kind) for fault in bad.rows] == [
        (2, "unreadable harmful label"),
        (3, "unreadable harmful label"),
    ]


def test_multioff(tmp_path: Path):
    header = ("image_name", "sentence", "label")
    root = files(
        tmp_path,
        **{
            "Split Dataset/Training_meme_dataset.csv": table(header, ("a.png", "x, y", "offensive")),
            "Split Dataset/Validation_meme_dataset.csv": table(header, ("b.jpg", "z", "Non-offensiv")),
            "Split Dataset/Testing_meme_dataset.csv": table(header, ("c.jpg", "", "offensive")),
            "Labelled Images/a.png": png(0),
        },
    )
    rows = read("multioff", root)
    assert [(row.id, row.split, row.text, row.labels) for row in rows] == [
        ("multioff/a.png", "train", "x, y", {"is_offensive": 1}),
        ("multioff/b.jpg", "validation", "z", {"is_offensive": 0}),
        ("multioff/c.jpg", "test", None, {"is_offensive": 1}),
    ]
    assert rows[0].picture == tmp_path / "Labelled Images" / "a.png"


def tweet(votes: Any, text: Any = "words https://x") -> dict:
    return {"img_url": "http://x/1.jpg", "labels": votes, "labels_str": ["?"], "tweet_text": text, "tweet_url": "u"}


def mmhs150k(root: Path, tweets: Any, **ids: str) -> Path:
    splits = {f"splits/{split}_ids.txt": ids.get(split, "") for split in ("train", "val", "test")}
    return files(root, **{"MMHS150K_GT.json": json.dumps(tweets), "img_resized/1.jpg": png(1)}, **splits)


def test_mmhs150k(tmp_path: Path):
    tweets = {"1": tweet([4, 1, 1]), "2": tweet([0, 0, 5]), "3": tweet([0, 1, 2]), "4": tweet([3, 3, 3], "😀")}
    rows = read("mmhs150k", mmhs150k(tmp_path, tweets, train="1\n2\n", val="3\n", test="4\n"))
    assert [(row.id, row.split) for row in rows] == [
        ("mmhs150k/1.jpg", "train"),
        ("mmhs150k/2.jpg", "train"),
        ("mmhs150k/3.jpg", "val"),
        ("mmhs150k/4.jpg", "test"),
    ]
    assert [tuple(row.labels[name] for name in ("hate", "hate_kind", "hate_votes")) for row in rows] == [
        (1, 1, 3),
        (0, 0, 1),
        (1, None, 2),
        (1, 3, 3),
    ]
    assert rows[3].text == "😀"
    assert rows[0].picture == tmp_path / "img_resized" / "1.jpg"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (tweet([0, 9, 1]), r"row 2 .*hate_kind is 'labels: \[0, 9, 1\]'"),
        (tweet("abc"), r"row 2 .*hate_kind is"),
        ("no tweet", r"row 2 .*hate_kind is 'labels: None'"),
        (tweet([0, 0, 0], "half \ud83d"), "row 2 .*half a character"),
    ],
)
def test_a_bad_tweet_is_named_or_skipped(bad: Any, message: str, tmp_path: Path):
    root = mmhs150k(tmp_path, {"1": tweet([0, 0, 1]), "2": bad, "3": tweet([0, 0, 0])}, train="1 2", test="3")
    with pytest.raises(BadTableError, match=message):
        read("mmhs150k", root)
    assert [row.image for row in read("mmhs150k", root, BadRows("skip"))] == ["1.jpg", "3.jpg"]


def test_splits_of_mmhs150k_that_repeat_an_id_are_refused(tmp_path: Path):
    """As a download that a user reported: the files of train and test held the same ids."""
    root = mmhs150k(tmp_path, {"1": tweet([0, 0, 1])}, train="1\n", test="1\n")
    with pytest.raises(BadTableError, match=r"test_ids\.txt: id '1' is also in train_ids\.txt"):
        read("mmhs150k", root)
    (tmp_path / "splits" / "val_ids.txt").unlink()
    with pytest.raises(BadTableError, match=r"val_ids\.txt: no such file"):
        read("mmhs150k", root)
    (tmp_path / "MMHS150K_GT.json").write_text("[1")
    with pytest.raises(BadTableError, match=r"MMHS150K_GT\.json: is not valid JSON"):
        read("mmhs150k", root)


def test_memotion_2(tmp_path: Path):
    header = ("image", "image_url", "ocr_text", "humour", "sarcastic", "offensive", "motivational", "overall_sentiment")
    row = ("u", "text", "very_funny", "extremely_sarcastic", "slight", "motivational", "negative")
    root = files(
        tmp_path,
        **{
            "Memotion2/memotion_train.csv": table(header, ("a.jpg", *row)),
            "Memotion2/memotion_val.csv": table(header, ("a.jpg", *row[:3], "little_sarcastic", *row[4:])),
            "image folder/a.jpg": png(0),
        },
    )
    one, two = read("memotion2", root)
    assert (one.id, one.split, one.text) == ("memotion2/train/a.jpg", "train", "text")
    assert one.picture == tmp_path / "image folder" / "a.jpg"
    assert one.labels == {"humor": 2, "sarcasm": 3, "offensive": 1, "motivational": 1, "sentiment": -1}
    assert (two.id, two.split, two.labels["sarcasm"]) == ("memotion2/val/a.jpg", "val", 1)


@pytest.mark.parametrize("nested", [True, False])
def test_memotion_3(nested: bool, tmp_path: Path):
    header = ("", "image_url", "ocr", "overall", "humour", "sarcastic", "offensive", "motivational")
    row = ("u", "hindi अ", "positive", "funny", "twisted_meaning", "not_offensive", "not_motivational")
    folder = "trainImages/trainImages" if nested else "trainImages"
    root = files(
        tmp_path,
        **{
            "train.csv": table(header, ("0", *row), ("2", *row)),
            "val.csv": table(header[1:], row, row, tabs=True),
            f"{folder}/2.jpg": png(0),
            "valImages/1.jpg": png(1),
        },
    )
    rows = read("memotion3", root)
    assert [row.id for row in rows] == [f"memotion3/{n}.jpg" for n in ("train/0", "train/2", "val/0", "val/1")]
    assert rows[1].picture.is_file()
    assert rows[3].picture.is_file()
    assert rows[0].labels == {"humor": 1, "sarcasm": 2, "offensive": 0, "motivational": 0, "sentiment": 1}
    assert rows[0].text == "hindi अ"


def hmc(root: Path, **splits: list[tuple[str, int | None]]) -> Path:
    return files(
        root,
        **{
            f"{split}.jsonl": [
                {"id": Path(img).stem, "img": img, "text": "t"} | ({} if label is None else {"label": label})
                for img, label in rows
            ]
            for split, rows in splits.items()
        },
    )


def test_split_files_are_found_in_upper_case_as_the_first_is(tmp_path: Path):
    """Train.jsonl passed for train.jsonl and was not read."""
    root = hmc(tmp_path / "hmc", Train=[("img/1.png", 1)], Dev_Seen=[("img/2.png", 0)])
    assert [(row.id, row.split) for row in read_hmc(root)] == [("hmc/1.png", "train"), ("hmc/2.png", "dev_seen")]


def test_fine_grained_labels_join_on_the_picture(tmp_path: Path):
    root = hmc(
        tmp_path / "hmc",
        train=[("img/00001.png", 1), ("img/2.png", 0), ("img/3.png", 1), ("img/5.png", 1)],
        test=[("img/4.png", None)],
    )
    fine = [
        {"id": 1, "img": "00001.png", "gold_hate": ["hateful"], "gold_pc": ["race", "sex"], "gold_attack": ["slurs"]},
        {
            "id": 2,
            "img": "2.png",
            "gold_hate": ["not_hateful"],
            "gold_pc": ["pc_empty"],
            "gold_attack": ["attack_empty"],
        },
        {
            "id": 3,
            "img": "img/3.png",
            "gold_hate": ["hateful"],
            "gold_pc": ["religion"],
            "gold_attack": ["attack_empty"],
        },
    ]
    files(tmp_path / "fine", **{"train.json": fine})
    one, two, three, five, four = read_hmc(root, fine_grained=tmp_path / "fine")
    assert {name for name, value in one.labels.items() if value == 1} == {"hate", "pc_race", "pc_sex", "attack_slurs"}
    assert sum(value is None for value in one.labels.values()) == 0
    assert set(two.labels.values()) == {0}
    assert three.labels["pc_religion"] == 1
    assert {value for name, value in three.labels.items() if name.startswith("attack_")} == {None}
    assert five.labels == {"hate": 1, **{name: None for name in one.labels if name != "hate"}}
    assert set(four.labels.values()) == {None}
    assert [dict(row.labels) for row in read_hmc(root)] == [
        {"hate": row.labels["hate"]} for row in (one, two, three, five, four)
    ]


@pytest.mark.parametrize(
    ("cell", "value"), [("1.0", None), ("TRUE", None), (" Hateful ", None), ("0.0", 0), ("NA", None)]
)
def test_a_hateful_meme_without_a_category_is_unknown_however_hateful_is_spelled(
    cell: str, value: int | None, tmp_path
):
    """`1.0`, as pandas writes a column with gaps, was not hateful: all categories became 0."""
    root = hmc(tmp_path / "hmc", train=[("img/1.png", 1)])
    fine = files(
        tmp_path / "fine", **{"f.csv": f"img,pc,attack,hateful\nimg/1.png,pc_empty,,{cell}\n", "._f.csv": "\0"}
    )
    (row,) = read_hmc(root, fine_grained=fine)
    assert row.labels == {"hate": 1, **{name: value for name in row.labels if name != "hate"}}


def test_faults_of_fine_grained_labels(tmp_path: Path):
    root = hmc(tmp_path / "hmc", train=[("img/1.png", 1)])
    fine = files(tmp_path, **{"f.csv": "img,pc,attack\nimg/1.png,race|age,slurs\nimg/1.png,race,slurs\n"}) / "f.csv"
    with pytest.raises(BadTableError, match=r"f\.csv, row 1 .*pc is 'age', allowed: religion, .*pc_empty"):
        read_hmc(root, fine_grained=fine)
    bad = BadRows("skip")
    assert read_hmc(root, bad, fine)[0].labels["pc_race"] == 1
    assert [row.row for row in bad.rows] == [1]
    fine.write_text("img,pc,attack\nimg/1.png,race,slurs\n1.png,sex,slurs\n")
    with pytest.raises(BadTableError, match=r"row 2 .*another row has other labels for this picture"):
        read_hmc(root, fine_grained=fine)
    fine.write_text("img,pc,attack,hateful\nimg/1.png,,,hatful\n")
    with pytest.raises(
        BadTableError, match=r"f\.csv, row 1 .*hateful is 'hatful', allowed: hateful, not_hateful, 1, 0"
    ):
        read_hmc(root, fine_grained=fine)
    fine.write_text("img,pc,attack\nimg/9.png,race,slurs\n")
    with pytest.raises(BadTableError, match="none of its pictures is in the folder of Hateful Memes"):
        read_hmc(root, fine_grained=fine)
    fine.write_text("img,pc\nimg/9.png,race\n")
    with pytest.raises(BadTableError, match="has no column 'attack'"):
        read_hmc(root, fine_grained=fine)
    with pytest.raises(ConfigError, match="fine_grained: is an option of hmc, but no hmc is given"):
        build_corpus(tmp_path / "out", folder=root, fine_grained=fine)


@pytest.mark.skipif(not (SHARED / "data" / "hmc_labels").is_dir(), reason="the real fine-grained labels are not here")
def test_the_9540_real_fine_grained_rows_go_through(tmp_path: Path):
    file = SHARED / "data" / "hmc_labels" / "labels.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        real = list(csv.DictReader(lines))
    splits: dict[str, list] = {split: [] for split in ("train", "dev_seen", "dev_unseen")}
    for row in real:
        splits[row["split"]].append((row["img"], int(row["hateful"])))
    rows = read_hmc(hmc(tmp_path, **splits), fine_grained=file)
    assert len(rows) == len(real) == 9540
    count = Counter(name for row in rows for name, value in row.labels.items() if value == 1)
    assert count["hate"] == sum(row["hateful"] == "1" for row in real)
    for column in ("pc", "attack"):
        expected = Counter(f"{column}_{name}" for row in real for name in row[column].split("|"))
        del expected[f"{column}_{column}_empty"]
        assert {name: n for name, n in count.items() if name.startswith(column)} == dict(expected)
    assert sum(row.labels["attack_slurs"] is None for row in rows) == 45
    assert sum(row.labels["pc_race"] is None for row in rows) == 2


def tar(path: Path, **members: bytes | str) -> Path:
    """`a__jpg=...` adds a.jpg; a text that begins with -> is a link."""
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            if isinstance(data, str) and data.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, data[2:]
                out.addfile(info)
                continue
            data = data.encode() if isinstance(data, str) else data
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def test_webdataset_shards_are_read_where_they_lie(tmp_path: Path):
    root = tmp_path / "memes"
    root.mkdir()
    for split, start in (("train", 0), ("test", 4)):
        members: dict[str, Any] = {}
        for i in range(start, start + 4):
            members |= {f"{i:04}__png": png(i), f"{i:04}__txt": f"caption {i}", f"{i:04}__json": f'{{"hate": {i % 2}}}'}
        tar(root / f"{split}-000000.tar", **members, **{f"{start:04}.seg.bin": b"other"})
    before = sorted(root.rglob("*"))
    corpus = build_corpus(tmp_path / "out", folder=root, progress=False)
    assert sorted(root.rglob("*")) == before, "nothing is unpacked"
    assert corpus["test"]["id"][:] == [f"memes/{i:04}.png" for i in range(4, 8)]
    assert corpus["train"]["text"][:] == [f"caption {i}" for i in range(4)]
    assert corpus["train"]["hate"][:] == [0, 1, 0, 1]
    raw = corpus["test"].cast_column("image", ImageFeature(decode=False))
    assert [image["bytes"] for image in raw["image"][:]] == [png(i) for i in range(4, 8)]


def test_a_class_of_a_webdataset_is_mapped_like_a_column(tmp_path: Path):
    file = tar(tmp_path / "t.tar", a__jpg=png(0), a__cls="1", b__cls="0", b__jpg=png(1))
    rows = read_folder(file, {"labels": {"hate": "cls"}})
    assert [(row.image, row.labels["hate"]) for row in rows] == [("a.jpg", 1), ("b.jpg", 0)]


def test_what_macos_puts_into_a_tar_is_no_sample_and_its_mark_of_utf_8_no_caption(tmp_path: Path):
    """It was a sample without a picture, and refused."""
    hidden = dict.fromkeys(("__DS_Store", "___a__png", "___a__txt", "memes/___a__json"), "x")
    root = tmp_path / "memes"
    root.mkdir()
    tar(root / "t.tar", **hidden, a__png=png(0), a__txt="\ufeffone")
    assert [(row.id, row.text) for row in read_folder(root)] == [("memes/a.png", "one")]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a__png": "->/etc/passwd"}, "'a.png' is not a plain file inside the tar"),
        ({"../a__png": png(9)}, "is not a plain file inside the tar"),
        ({"/a__png": png(9)}, "is not a plain file inside the tar"),
        ({"a__png": png(9), "a__jpg": png(9)}, "'a.jpg' is a second picture of its sample"),
        ({"a__png": png(9), "a__txt": b"caf\xe9"}, "'a.txt' cannot be read"),
        ({"a__png": png(9), "a__json": "[1]"}, "it is not an object of columns"),
        ({"a__png": png(9), "a__json": '{"hate": 1, "hate": 0}'}, "the key 'hate' occurs twice"),
        ({"a__png": png(9), "a__json": "[" * 100_000}, "'a.json' cannot be read"),
        ({"a__png": png(9), "a__json": '{"text": "x\\ud83d"}'}, "half a character"),
    ],
)
def test_a_bad_sample_is_named_or_skipped(members: dict, message: str, tmp_path: Path):
    file = tar(tmp_path / "t.tar", **members, z__png=png(1), z__txt="z")
    with pytest.raises(BadTableError, match=message):
        read_folder(file)
    assert [row.text for row in read_folder(file, bad=BadRows("skip"))] == ["z"]


def test_what_is_no_tar_is_one_line(tmp_path: Path):
    whole = tar(tmp_path / "t.tar", a__png=png(0), b__png=png(1)).read_bytes()
    for data in (b"", b"no tar" * 200, __import__("gzip").compress(whole)):
        (tmp_path / "t.tar").write_bytes(data)
        with pytest.raises(BadTableError, match=r"t\.tar: (cannot be read as a tar|has no rows)"):
            read_folder(tmp_path / "t.tar")
    (tmp_path / "t.tar").write_bytes(whole[:700])
    with pytest.raises(BadTableError, match=r"t\.tar: cannot be read as a tar|truncated"):
        build_corpus(tmp_path / "out", folder=tmp_path / "t.tar", progress=False, holdout=0)


def test_a_dataset_of_the_hub_is_read_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    features = Features({"image": ImageFeature(), "caption": Value("string"), "hate": Value("int64")})
    columns = {
        "image": [{"bytes": png(i), "path": None} for i in range(4)],
        "caption": list("abcd"),
        "hate": [0, 1, None, 1],
    }
    parts = Dataset.from_dict(columns, features=features)
    DatasetDict({"train": parts.select(range(3)), "test": parts.select([3])}).save_to_disk(tmp_path / "cache")
    asked = []
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, **given: asked.append((name, given)) or load_from_disk(str(tmp_path / "cache")),
    )
    corpus = build_corpus(tmp_path / "out", hub="owner/memes", columns={"text": "caption"}, progress=False)
    assert asked == [("owner/memes", {})]
    assert corpus["train"]["text"][:] == ["a", "b", "c"]
    assert corpus["train"]["hate"][:] == [0, 1, None]
    assert corpus["test"]["source"][:] == ["owner--memes"]


def test_the_hub_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def fail(name: str, **_: Any) -> None:
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        BadTableError, match=r"hub owner/memes: cannot be loaded \(Couldn't reach the Hub\); check the name"
    ):
        build_corpus(tmp_path / "out", hub="owner/memes")
    for name in ("memes", "../x", "/etc/passwd", "https://x/y", "a/b/c"):
        with pytest.raises(ConfigError, match="give the name of a dataset as owner/name"):
            build_corpus(tmp_path / "out", hub=name)


@pytest.mark.parametrize("name", ["mami", "harmeme", "multioff", "mmhs150k", "memotion2", "memotion3"])
def test_another_folder_is_refused_with_what_was_looked_for(name: str, tmp_path: Path):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(BadTableError, match=r"looked for .*found readme\.txt"):
        read(name, tmp_path)
    with pytest.raises(BadTableError, match="no such folder"):
        read(name, tmp_path / "nowhere")
