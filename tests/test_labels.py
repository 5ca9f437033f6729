"""What a cell says: one rule for missing values, whole numbers and names of splits, whoever holds the cell."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, Value

from sae_lens_meme.corpus import parse_label
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError

SPELLINGS = [
    "",
    " ",
    "NA",
    "na",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "-NaN",
    "null",
    "NULL",
    "None",
    "none",
    "<NA>",
    "#N/A",
    "NaT",
]
GAPS = [i % 3 == 0 for i in range(12)]
TRUE = [i % 2 for i in range(12)]


def in_memory(name: str, cells: list, kind: Value | ClassLabel) -> Embeddings:
    features = {"id": Value("string"), name: kind, "hook_fused": Array2D((1, 2), "float32")}
    data = {
        "id": [f"m{i}" for i in range(len(cells))],
        name: cells,
        "hook_fused": np.ones((len(cells), 1, 2), np.float32),
    }
    return Embeddings.from_dataset(Dataset.from_dict(data, features=Features(features)))


def with_gaps(missing: object, kind: type) -> list:
    return [missing if gap else kind(value) for gap, value in zip(GAPS, TRUE, strict=True)]


KINDS = {
    "int": (with_gaps(None, int), Value("int64")),
    "small int": (with_gaps(None, int), Value("uint8")),
    "float": (with_gaps(None, float), Value("float64")),
    "float NaN": (with_gaps(float("nan"), float), Value("float32")),
    "bool": (with_gaps(None, bool), Value("bool")),
    "class": (with_gaps(-1, int), ClassLabel(names=["no", "yes"])),
    "class of other words": (with_gaps(-1, int), ClassLabel(names=["off", "on"])),
    "class in other order": (
        [-1 if g else 1 - v for g, v in zip(GAPS, TRUE, strict=True)],
        ClassLabel(names=["yes", "no"]),
    ),
    "class called NA": (with_gaps(2, int), ClassLabel(names=["no", "yes", "NA"])),
    "class None": (with_gaps(None, int), ClassLabel(num_classes=2)),
    "truth": ([None if g else ("False", "true")[v] for g, v in zip(GAPS, TRUE, strict=True)], Value("string")),
    **{f"text {spelling!r}": (with_gaps(spelling, str), Value("string")) for spelling in SPELLINGS},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_in_memory_is_known_where_it_says_something(kind: str):
    label = in_memory("hate", *KINDS[kind]).label("hate")
    assert label.known.tolist() == [not gap for gap in GAPS]
    assert label.values.dtype == np.int64
    assert label.values[label.known].tolist() == [value for gap, value in zip(GAPS, TRUE, strict=True) if not gap]
    assert label.classes == [0, 1]


def test_pandas_and_numpy_columns_with_gaps():
    frame = pd.DataFrame({"id": [f"m{i}" for i in range(12)]})
    frame["masked"] = pd.array([None if gap else value for gap, value in zip(GAPS, TRUE, strict=True)], dtype="Int64")
    frame["floats"] = np.where(GAPS, np.nan, TRUE)
    frame["objects"] = pd.Series(with_gaps(None, float), dtype=object)
    frame["mixed"] = [f"{value}.0" if not gap else "NA" for gap, value in zip(GAPS, TRUE, strict=True)]
    dataset = Dataset.from_pandas(frame.iloc[::-1]).add_column("hook_fused", [[[1.0, 1.0]]] * 12)  # type: ignore[call-arg]
    embeddings = Embeddings.from_dataset(dataset.cast_column("hook_fused", Array2D((1, 2), "float32")))  # type: ignore[arg-type]
    assert embeddings.label_names == ("masked", "floats", "objects", "mixed")  # and not the index of pandas
    for name in embeddings.label_names:
        label = embeddings.label(name)
        assert label.known.tolist() == [not gap for gap in reversed(GAPS)], name
        assert label.classes == [0, 1], name


def test_words_stay_words_and_a_missing_word_is_missing():
    label = in_memory("kind", ["cat", "N/A", None, "7", "dog"], Value("string")).label("kind")
    assert label.known.tolist() == [True, False, False, True, True]
    assert label.classes == ["7", "cat", "dog"]


def test_a_negative_level_is_a_level_and_a_negative_code_is_an_error():
    sentiment = in_memory("sentiment", [-2, -1, 0, None, 2], Value("int64")).label("sentiment")
    assert (sentiment.classes, sentiment.known.sum()) == ([-2, -1, 0, 2], 4)
    assert in_memory("topic", [-1, 3], Value("int64")).label("topic").classes == [-1, 3]
    for name, code in (("hate", -1), ("hate", -99), ("sentiment", -99)):
        with pytest.raises(
            DataError, match=f"{name} is {code} in 2 of 4 rows, which is not one of its levels; write null"
        ):
            in_memory(name, [0, 1, code, code], Value("int64")).label(name)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_memory_arrays_and_readers_agree(spelling: str, tmp_path):
    cells = with_gaps(spelling, str)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": i, "hate": c}) + "\n" for i, c in enumerate(cells)))
    np.save(tmp_path / "x.npy", np.ones((12, 2), np.float32))
    from_table = embed_arrays(out=tmp_path / "e", fused_embeds=tmp_path / "x.npy", table=tmp_path / "t.jsonl").label(
        "hate"
    )
    from_memory = in_memory("hate", cells, Value("string")).label("hate")
    read = [parse_label("hate", cell) for cell in cells]
    assert from_table.known.tolist() == from_memory.known.tolist() == [value is not None for value in read]
    assert from_table.values.tolist() == from_memory.values.tolist()


@pytest.mark.parametrize("names", [["train", "val", "test"], ["Train", "DEV", "Test"], ["training", " valid ", "TEST"]])
def test_splits_in_memory(names: list[str]):
    expected = ["train", "validation", "test"]
    assert in_memory("split", names, Value("string")).splits.tolist() == expected
    assert in_memory("split", [0, 1, 2], ClassLabel(names=names)).splits.tolist() == expected
    assert in_memory("split", names, Value("string")).rows("validation").tolist() == [1]


@pytest.mark.parametrize("unknown", ["holdout", "NA", "", "tset"])
def test_an_unknown_split_in_memory_is_named(unknown: str):
    with pytest.raises(DataError, match=rf"row 1 \(id 'm1'\): split is '{unknown}', none of train, validation, test"):
        in_memory("split", ["train", unknown], Value("string")).rows("train")


HOSTILE = [
    "a\0b",
    "ends in zero\0",
    "\x1b[31mred\x07",
    "‮gnp",
    "x" * 200_000,
    "[link=javascript:alert(1)]x[/link]",
    'a,b\n"c',
]


def test_hostile_ids_and_labels_are_data():
    embeddings = in_memory("kind", HOSTILE, Value("string"))
    assert embeddings.label("kind").values.tolist() == HOSTILE
    ids = Embeddings.from_dataset(embeddings.dataset.remove_columns("id").rename_column("kind", "id")).ids
    assert ids.tolist() == HOSTILE
    assert ids.nbytes < 1000  # numpy's own strings would all be as wide as the longest
