"""The readers on the original layouts and their dialects, and on tables of one's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from sae_lens_meme.corpus import BadRows, column_map, parse_label, read_folder, read_hmc, read_memotion, read_pridemm
from sae_lens_meme.corpus.merge import unique
from sae_lens_meme.corpus.rows import safe_path
from sae_lens_meme.corpus.tables import Table
from sae_lens_meme.errors import BadTableError, ConfigError

SHARED = Path(__file__).parents[2] / "shared"


def write(root: Path, **files: str) -> Path:
    """`name__csv="..."` writes name.csv."""
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_bytes(text.encode())
    return root


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


PRIDEMM = "name,hate,target,stance,humour,split,text\n"


def test_pridemm(tmp_path):
    root = write(
        tmp_path,
        PrideMM__csv=PRIDEMM + "img_1.png,1,2.0,0,1,train,na\nimg_2.png,0,,2,0,val,none\nimg_3.png,1,0,1,1,test,None\n",
    )
    (root / "Images").mkdir()
    one, two, three = read_pridemm(root)
    assert (one.id, one.split, one.text, one.picture) == (
        "pridemm/img_1.png",
        "train",
        "na",
        root / "Images" / "img_1.png",
    )
    assert one.labels == {"hate": 1, "target": 2, "stance": 0, "humor": 2}
    assert two.labels == {"hate": 0, "target": None, "stance": 2, "humor": 0}
    assert [(row.text, row.text_origin) for row in (two, three)] == [(None, "none")] * 2


@pytest.mark.parametrize("folder", ["Images", "images", "img", ""])
def test_pridemm_columns_in_any_order_and_pictures_in_any_known_folder(folder, tmp_path):
    root = write(tmp_path, pridemm__csv="text,split,humour,stance,target,hate,name\nhello,train,0,1,,0,a.png\n")
    (root / folder).mkdir(exist_ok=True)
    (row,) = read_pridemm(root)
    assert row.labels == {"hate": 0, "target": None, "stance": 1, "humor": 0}
    assert row.picture == root / folder / "a.png"


def test_hmc_finds_pictures_through_img(tmp_path):
    root = write(
        tmp_path,
        train__jsonl=jsonl({"id": 8291, "img": "img/08291.png", "label": 1, "text": "a"}),
        dev_seen__jsonl=jsonl({"id": "01234", "img": "img/01234.png", "label": 0, "text": ""}),
        dev__jsonl=jsonl({"id": "01234", "img": "img/01234.png", "label": 0, "text": ""}),
        dev_unseen__jsonl=jsonl({"id": "01235", "img": "img/01235.png", "label": 0, "text": "c"}),
        test__jsonl=jsonl({"id": "16395", "img": "img/16395.png", "text": "d"}),
    )
    (root / "img").mkdir()
    rows = read_hmc(root)
    assert [(row.id, row.split, row.labels["hate"]) for row in rows] == [
        ("hmc/08291.png", "train", 1),
        ("hmc/01234.png", "dev_seen", 0),
        ("hmc/01235.png", "dev_unseen", 0),
        ("hmc/16395.png", "test", None),
    ]
    assert rows[0].picture == root / "img" / "08291.png"
    assert (rows[1].text, rows[1].text_origin) == ("", "dataset")


MEMOTION = ",image_name,text_ocr,text_corrected,humour,sarcasm,offensive,motivational,overall_sentiment\n"


def test_memotion(tmp_path):
    root = write(
        tmp_path,
        labels__csv=MEMOTION
        + "0,image_1.jpg,OCR,fixed,hilarious,general,not_offensive,not_motivational,very_positive\n"
        + "1,image_2.JPG,OCR,,not_funny,twisted_meaning,hateful_offensive,motivational,very_negative\n"
        + "2,image_3.jpe,,,funny,not_sarcastic,slight,motivational,neutral\n",
    )
    one, two, three = read_memotion(root)
    assert one.labels == {"humor": 3, "sarcasm": 1, "offensive": 0, "motivational": 0, "sentiment": 2}
    assert two.labels == {"humor": 0, "sarcasm": 2, "offensive": 3, "motivational": 1, "sentiment": -2}
    assert [row.text for row in (one, two, three)] == ["fixed", "OCR", None]
    assert [row.text_origin for row in (one, two, three)] == ["dataset", "dataset", "none"]
    assert {row.split for row in (one, two, three)} == {None}


def test_the_earlier_memotion_release_and_its_corrupt_sentiment(tmp_path):
    header = "Image_name,Image_URL,OCR_extracted_text,Corrected_text,Humour,Sarcasm,Offensive,Motivational,Overall_Sentiment\r\n"
    good = 'a.jpg,u,x,"two\r\nlines",Not_funny,general,slight,motivational,Positive\r\n'
    corrupt = "b.jpg,u,x,y,funny,general,slight,motivational,18b0\r\n"
    root = write(tmp_path, data__csv=header + good + corrupt)
    with pytest.raises(BadTableError, match=r'data\.csv, row 2 \(id "b\.jpg"\): sentiment is \'18b0\', allowed: -2'):
        read_memotion(root)
    bad = BadRows("skip")
    (row,) = read_memotion(root, bad)
    assert row.text == "two\r\nlines"
    assert row.labels["sentiment"] == 1
    assert [(one.file, one.row, one.id) for one in bad.rows] == [("data.csv", 2, "b.jpg")]


def test_folder_with_the_imagefolder_convention(tmp_path):
    root = write(tmp_path / "mine", metadata__csv="file_name,text,hate,split\nsub/a.png,NA,yes,dev\nb.png,,,test\n")
    one, two = read_folder(root)
    assert (one.id, one.source, one.text, one.split, one.labels) == (
        "mine/sub/a.png",
        "mine",
        "NA",
        "dev",
        {"hate": 1},
    )
    assert (two.text, two.text_origin, two.labels) == (None, "none", {"hate": None})


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_folder_reads_the_same_rows_in_every_format(suffix, tmp_path):
    data = {"key": ["1", "2"], "pic": ["a.png", "b.png"], "lines": ["x\ny", "NA"], "kind": ["cat", "dog"]}
    root = tmp_path / "mine"
    root.mkdir()
    frame, path = pd.DataFrame(data), root / f"table.{suffix}"
    if suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == "parquet":
        parquet.write_table(pa.table(data), path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    labels = {"animal": {"column": "kind", "values": {"cat": 0, "dog": 1}}}
    rows = read_folder(path, {"id": "key", "image": "pic", "text": "lines", "labels": labels})
    assert [(row.id, row.text, dict(row.labels)) for row in rows] == [
        ("mine/1", "x\ny", {"animal": 0}),
        ("mine/2", "NA", {"animal": 1}),
    ]


def test_an_unknown_spelling_is_no_class_that_is_called_none():
    """Its number is None, whose name was looked up among the spellings."""
    values = {"None": 0, "Mild": 1, "2": 2}
    assert [parse_label("severity", cell, values) for cell in ("None", " Mild ", "2.0", "NA", None)] == [
        0,
        1,
        2,
        None,
        None,
    ]
    with pytest.raises(BadTableError, match="severity is 'Milt', allowed: None, Mild, 2; correct the value"):
        parse_label("severity", "Milt", values)


def test_column_map_from_yaml(tmp_path):
    (tmp_path / "map.yaml").write_text(
        "image: pic\ntext: caption\nlabels:\n  hate: bad\n  topic: {column: t, values: {7: 1, 'yes': 2}}\n"
    )
    mapping = column_map(tmp_path / "map.yaml", Table(Path("t.csv"), ("pic", "caption", "bad", "t"), []))
    assert (mapping.image, mapping.text, mapping.split, mapping.labels["hate"].column) == (
        "pic",
        ("caption",),
        None,
        "bad",
    )
    assert mapping.labels["topic"].values == {"7": 1, "yes": 2}


TABLE = Table(Path("t.csv"), ("pic", "hate"), [])
BAD_MAPS = [
    ({"imgae": "pic"}, ConfigError, "unknown key 'imgae'; did you mean 'image'"),
    ({"image": "pic", "hate": "hate"}, ConfigError, "hate is a label; write it below labels:"),
    ({"image": ["pic"]}, ConfigError, "give the name of one column"),
    ({"image": "pic", "labels": ["hate"]}, ConfigError, "give a map"),
    ({"image": "pic", "labels": {"text": "hate"}}, ConfigError, "'text' cannot be the name of a label"),
    ({"image": "pic", "labels": {"hook_x": "hate"}}, ConfigError, "cannot be the name"),
    ({"image": "pic", "labels": {"a": {"column": "hate", "vals": {}}}}, ConfigError, "label a is"),
    ({"image": "pic", "labels": {"a": {"column": "hate", "values": {"x": "y"}}}}, ConfigError, "to an integer"),
    ({"image": "pic", "labels": {"a": {"column": "hate", "values": {True: 1}}}}, ConfigError, "quote it"),
    ({"image": "picture"}, BadTableError, "no column 'picture'; it has 'pic', 'hate'"),
    (None, BadTableError, "no column is named 'image' or 'file_name'"),
]


@pytest.mark.parametrize(("columns", "error", "message"), BAD_MAPS)
def test_refuses_column_maps(columns, error, message):
    with pytest.raises(error, match=message):
        column_map(columns, TABLE)


def test_own_names_are_the_default_and_null_turns_them_off():
    table = Table(Path("t.csv"), ("file_name", "text", "caption", "hate", "stance", "split", "source"), [])
    mapping = column_map({"text": "caption", "split": None, "labels": {"stance": None}}, table)
    assert (mapping.image, mapping.text, mapping.split, mapping.source) == ("file_name", ("caption",), None, None)
    assert list(mapping.labels) == ["hate"]
    assert column_map(None, table).split == "split"


HEADERS = [
    ("Text", {"text": "Text"}, 'text: "Text"'),
    (" split", {"split": None}, 'split: " split"'),
    ("HATE", {"labels": {"hate": "HATE"}}, 'labels: {hate: "HATE"}'),
]


@pytest.mark.parametrize(("column", "columns", "hint"), HEADERS)
def test_a_column_that_is_called_almost_as_ours_is_named(column, columns, hint):
    table = Table(Path("t.csv"), ("image", column, "Source", "Group"), [])  # `source` would not be read either
    with pytest.raises(BadTableError) as caught:
        column_map(None, table)
    name = column.strip().lower()
    said = f"t.csv: the header has {column!r} for {name!r}; rename it, or say in the column map {hint} (null: not read)"
    assert str(caught.value) == said
    column_map(columns, table)
    column_map({"labels": {"topic": column}}, table)
    assert column_map(None, Table(Path("t.csv"), ("image", column, name), [])).unread == (column,)


@pytest.mark.parametrize("cell", ["", "NA", "nan", "None"])
def test_a_missing_source_is_that_of_the_folder(cell: str, tmp_path):
    root = write(tmp_path / "mine", t__csv=f",file_name,src,hate\n7,a.png,web,1\n8,b.png,{cell},1\n9,c.png,{cell},?\n")
    bad = BadRows("skip")
    rows = read_folder(root, {"source": "src"}, bad)
    assert [(row.id, row.source) for row in rows] == [("web/a.png", "web"), ("mine/b.png", "mine")]
    assert [row.source for row in bad.rows] == ["mine"]


def test_a_map_that_names_its_labels_leaves_the_others_unread():
    columns = ("Image_name", "Corrected_text", "Humour", "Sarcasm", "Offensive", "Overall_Sentiment")
    wanted = {"image": "Image_name", "text": "Corrected_text", "labels": {"sentiment": "Overall_Sentiment"}}
    mapping = column_map(wanted, Table(Path("t.csv"), columns, []))
    assert (list(mapping.labels), mapping.unread) == (["sentiment"], ("Humour", "Sarcasm", "Offensive"))
    with pytest.raises(BadTableError, match="has 'Split' for 'split'; rename it"):
        column_map(wanted, Table(Path("t.csv"), (*columns, "Split"), []))


def test_yaml_cannot_run_code(tmp_path):
    (tmp_path / "map.yaml").write_text("image: !!python/object/apply:os.system ['echo']\n")
    with pytest.raises(ConfigError, match="is not plain YAML"):
        column_map(tmp_path / "map.yaml", TABLE)


VALID_LABELS = [("hate", "1.0", 1), ("hate", " yes ", 1), ("sentiment", "-2", -2), ("sarcasm", "general", 1)]
VALID_LABELS += [
    ("topic", "17", 17),
    ("review", "True", 1),
    ("review", "false", 0),
    ("hate", None, None),
    ("hate", "", None),
    ("hate", "true", 1),
    *(("hate", spelling, None) for spelling in ("NA", "n/a", "NaN", "nan", " NULL ", "None", "<NA>")),
    ("humor", "Very_Funny", 2),
]
INVALID_LABELS = [("hate", "2"), ("hate", "-99"), ("hate", "0.5"), ("sentiment", "-99")]
INVALID_LABELS += [("target", "1e0"), ("topic", "cat"), ("stance", "true"), ("stance", "９9")]


@pytest.mark.parametrize(("label", "cell", "value"), VALID_LABELS)
def test_labels(label, cell, value):
    assert parse_label(label, cell) == value


@pytest.mark.parametrize(("label", "cell"), INVALID_LABELS)
def test_refuses_labels(label, cell):
    with pytest.raises(BadTableError, match=f"{label} is .*allowed: "):
        parse_label(label, cell)


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/passwd", "a\\b.png", "file:///x", "http://x/y.png", "a\0.png", ""]
)
def test_refuses_paths_that_lead_out(name, tmp_path):
    with pytest.raises(BadTableError, match="is not a plain path inside"):
        safe_path(tmp_path, name, "Images/")


def test_refuses_links_that_lead_out_and_follows_the_others(tmp_path):
    (tmp_path / "outside.png").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "in.png").touch()
    os.symlink(tmp_path / "outside.png", root / "out.png")
    os.symlink(root / "in.png", root / "also.png")
    os.symlink(tmp_path, root / "up")
    os.symlink(root, tmp_path / "link-to-root")
    for name in ("out.png", "up/outside.png"):
        with pytest.raises(BadTableError, match="leads out"):
            safe_path(root, name)
    assert safe_path(root, "also.png").exists()
    assert safe_path(tmp_path / "link-to-root", "猫/ü.png").name == "ü.png"


def test_duplicate_ids_are_named(tmp_path):
    lines = "".join(f"{i}.png\n{i}.png\n" for i in range(7))
    rows = read_folder(write(tmp_path / "m", metadata__csv="file_name\n" + lines))
    with pytest.raises(
        BadTableError, match=r"7 ids occur more than once: 'm/0\.png', .*'m/4\.png' \(the first in .* row 1 and"
    ):
        unique(rows)


MISSING = [
    (read_pridemm, {}, r"looked for PrideMM\.csv, found readme\.txt"),
    (read_pridemm, {"PrideMM__csv": "name,hate\na,1\n"}, "no column .*'target'.*it has 'name', 'hate'"),
    (read_hmc, {"dev__jsonl": "{}\n"}, r"looked for train\.jsonl, found dev\.jsonl, readme\.txt"),
    (read_hmc, {"train__jsonl": '{"img": "a"}\n'}, "no column 'text'"),
    (read_memotion, {}, r"looked for labels\.csv or one \*\.csv"),
    (read_folder, {"a__csv": "", "b__csv": ""}, r"looked for metadata\.csv"),
    (read_pridemm, {"PrideMM__csv": PRIDEMM + ",1,2,0,1,train,x\n"}, r"row 1 \(id \"\"\): image path '' is not"),
    (read_pridemm, {"PrideMM__csv": PRIDEMM + "a.png,7,2,0,1,train,x\n"}, r"row 1 \(id \"a.png\"\): hate is '7'"),
    (read_folder, {"metadata__csv": "id,image\n,a.png\n"}, "column 'id' is empty"),
]


@pytest.mark.parametrize(("reader", "files", "message"), MISSING)
def test_refuses_layouts(reader, files, message, tmp_path):
    root = write(tmp_path, readme__txt="", **files)
    with pytest.raises(BadTableError, match=message):
        reader(root)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared folder beside the checkout")
def test_the_fine_grained_labels_of_the_challenge():
    path = SHARED / "data" / "hmc_labels" / "labels.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    attack = {name: i for i, name in enumerate(sorted(frame["attack"].unique()))}
    labels = {"hate": "hateful", "attack": {"column": "attack", "values": attack}}
    rows = read_folder(path, {"image": "img", "split": "split", "source": "split", "labels": labels})
    assert len(rows) == 9540
    assert [row.labels["hate"] for row in rows] == frame["hateful"].astype(int).tolist()
    assert [row.labels["attack"] for row in rows] == frame["attack"].map(attack).tolist()
    unique(rows)  # dev_seen and dev_unseen share memes: here the source tells them apart
