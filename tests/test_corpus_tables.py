"""No caption changes in any format, and a damaged table is refused with file, row and value."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import suppress

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_lens_meme.corpus import BadRows, read_folder
from sae_lens_meme.corpus.tables import read_table
from sae_lens_meme.errors import BadTableError, ConfigError
from sae_lens_meme.labels import beyond_64_bits

NASTY = [
    *(
        "NA",
        "null",
        "None",
        "nan",
        "N/A",
        "",
        "TRUE",
        "007",
        "1e5",
        "=1+1",
        "-99",
        " padded ",
        '"',
        '""',
        "a,b",
        "a\tb",
    ),
    *(
        "line\nline",
        "line\r\nline",
        "line\rline",
        "‮עברית مرحبا",
        "😀👩‍👩‍👧",
        "\u2028 \u2029 \x85 \x1c",
        "nul\0nul",
        "\ufeffbom",
    ),
    "x" * 10_000,
]

captions = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NASTY), min_size=1, max_size=8)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_csv(path, texts, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([["id", "text"], *([str(i), text] for i, text in enumerate(texts))])


def write_jsonl(path, texts):
    lines = [json.dumps({"id": i, "text": text}, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(texts)]
    path.write_text("".join(lines), encoding="utf-8", newline="")


def write_parquet(path, texts):
    parquet.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path)


WRITERS = {
    "csv": write_csv,
    "tsv": lambda path, texts: write_csv(path, texts, "\t"),
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
@quick
@given(texts=captions)
def test_captions_come_out_as_they_went_in(suffix, texts, tmp_path):
    path = tmp_path / f"t.{suffix}"
    WRITERS[suffix](path, texts)
    assert [row["text"] for row in read_table(path).rows] == texts


@pytest.mark.parametrize("suffix", WRITERS)
def test_nasty_captions(suffix, tmp_path):
    WRITERS[suffix](tmp_path / f"t.{suffix}", NASTY)
    table = read_table(tmp_path / f"t.{suffix}")
    assert [row["text"] for row in table.rows] == NASTY
    assert [row["id"] for row in table.rows] == [str(i) for i in range(len(NASTY))]


def test_what_pandas_writes_is_read_alike(tmp_path):
    # pandas writes "" and missing alike, and does not quote a lone carriage return (refused below)
    texts = [text for text in NASTY if text not in ("", "line\rline")]
    pd.DataFrame({"text": [*texts, None], "label": [1.0] * len(texts) + [None]}).to_csv(tmp_path / "t.csv")
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("", "text", "label")
    assert [row["text"] for row in table.rows] == [*texts, None]
    assert [row["label"] for row in table.rows] == ["1.0"] * len(texts) + [None]


def test_missing_is_not_empty(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1,\n2,""\n')
    (tmp_path / "t.jsonl").write_text('{"a": 1, "b": null}\n{"a": 2, "b": ""}\n\n{"a": 3}\n')
    parquet.write_table(pa.table({"b": [None, ""]}), tmp_path / "t.parquet")
    assert [row["b"] for row in read_table(tmp_path / "t.csv").rows] == [None, ""]
    assert [row["b"] for row in read_table(tmp_path / "t.jsonl").rows] == [None, "", None]
    assert [row["b"] for row in read_table(tmp_path / "t.parquet").rows] == [None, ""]


def test_json_numbers_keep_their_spelling(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1e5, "b": 12345678901234567890, "c": true, "d": ["x", "", "y z"]}\n')
    assert dict(read_table(tmp_path / "t.jsonl").rows[0]) == {
        "a": "1e5",
        "b": "12345678901234567890",
        "c": "true",
        "d": "x y z",
    }


def test_a_float_nan_of_parquet_is_missing_and_a_picture_is_no_text(tmp_path):
    columns = {"label": [1.0, float("nan")], "image": [{"bytes": b"x", "path": "a"}] * 2}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert [dict(row) for row in read_table(tmp_path / "t.parquet").rows] == [{"label": "1.0"}, {"label": None}]


def test_byte_order_mark_crlf_and_no_last_newline(tmp_path):
    (tmp_path / "t.csv").write_bytes('\ufeffa,b\r\n1,"x\r\ny"\r\n2,ü'.encode())
    (tmp_path / "t.jsonl").write_bytes('\ufeff{"a": "1"}\r\n{"a": "2"}'.encode())
    assert [dict(row) for row in read_table(tmp_path / "t.csv").rows] == [
        {"a": "1", "b": "x\r\ny"},
        {"a": "2", "b": "ü"},
    ]
    assert [row["a"] for row in read_table(tmp_path / "t.jsonl").rows] == ["1", "2"]


INVALID = [
    ("t.csv", b"a,b\n1,x\n2\n", r"t\.csv, row 2: has 1 fields, the header has 2"),
    ("t.csv", b"a,b\n1,x,y\n", r"t\.csv, row 1: has 3 fields"),
    ("t.csv", b'a,b\n1,"x\n2,y\n', r"t\.csv, row 1: a quoted field is not closed"),
    ("t.csv", b'a,b\n1,"x"y\n', r"t\.csv, row 1: .*text follows its last quote"),
    ("t.csv", b"a,b\n1,line\rline\n", r"t\.csv, row 2: has 1 fields"),
    ("t.csv", b"a,a\n1,x\n", "column 'a' occurs more than once"),
    ("t.csv", b"", "is empty"),
    ("t.csv", b"a,b\n", "has no rows"),
    ("t.csv", "a,b\n1,caf\xe9\n".encode("latin-1"), "byte 0xe9 at offset 9 is not UTF-8"),
    ("t.csv", "a,b\n1,x\n".encode("utf-16"), "byte 0xff at offset 0 is not UTF-8"),
    ("t.jsonl", b'{"a": 1}\n{"a": \n', r"t\.jsonl, row 2: is not valid JSON"),
    ("t.jsonl", b"[1]\n", r"t\.jsonl, row 1: is not an object"),
    ("t.jsonl", b'{"a": NaN}\n', "NaN is not JSON, write null"),
    ("t.jsonl", b'{"a": "ok"}\n{"a": "x\\ud83dy"}\n', r"row 2: '\\ud83d' is half a character"),
    ("t.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', r"row 2: .*the key 'a' occurs twice"),
    ("t.jsonl", b"[" * 100_000, "row 1: is not valid JSON"),
    ("t.parquet", b"PAR1 no", "cannot be read as Parquet"),
    ("t.xlsx", b"PK", "is not one of .csv, .tsv, .jsonl, .parquet"),
]


@pytest.mark.parametrize(("name", "data", "message"), INVALID)
def test_refuses(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadTableError, match=message) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_columns_name_what_was_found(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadTableError, match="no column 'text', 'id'; it has 'a', 'b'"):
        read_table(tmp_path / "t.csv").require(["a", "text", "id"])


def test_missing_file(tmp_path):
    with pytest.raises(BadTableError, match="no such file"):
        read_table(tmp_path / "t.csv")


@quick
@given(text=st.text(st.sampled_from('ab ,"\r\n\t\0é'), max_size=40))
def test_csv_is_read_as_the_standard_library_reads_it(text, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(f"a,b\n{text}".encode())
    try:
        expected = [row for row in csv.reader(io.StringIO(f"a,b\n{text}", newline=""), strict=True) if row]
        valid = len(expected) > 1 and all(len(row) == 2 for row in expected)
    except csv.Error:
        valid = False
    if not valid:
        with pytest.raises(BadTableError):
            read_table(path)
    else:
        assert [[cell or "" for cell in row.values()] for row in read_table(path).rows] == expected[1:]


def test_a_caption_longer_than_the_limit_of_the_standard_library(tmp_path):
    write_csv(tmp_path / "t.csv", ['"x,' * 100_000])
    assert read_table(tmp_path / "t.csv").rows[0]["text"] == '"x,' * 100_000


@pytest.mark.parametrize("suffix", [*WRITERS, "arrow"])
@quick
@given(data=st.binary(max_size=200) | st.text('{}[]",:\n0aé\\', max_size=60).map(str.encode))
def test_any_bytes_are_a_table_or_one_error(suffix, data, tmp_path):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(data)
    with suppress(BadTableError):
        assert read_table(path).rows


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@quick
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_is_a_table_or_one_error(suffix, at, byte, tmp_path):
    table = pa.table({"text": ["a", None, "é" * 9], "image": [{"bytes": b"x", "path": "a"}] * 3})
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data)
    with suppress(BadTableError):
        assert read_table(path).columns


def bad_utf8(*cells: bytes) -> pa.Array:
    """A column of text whose bytes nobody has checked, as C++ writers leave it."""
    offsets = [0, *(sum(map(len, cells[: i + 1])) for i in range(len(cells)))]
    buffers = [None, pa.array(offsets, pa.int32()).buffers()[1], pa.py_buffer(b"".join(cells))]
    return pa.Array.from_buffers(pa.string(), len(cells), buffers)


def one_bad_row(name: str, path) -> None:
    """Four rows, of which the third cannot be read."""
    if name.endswith("parquet"):
        texts = bad_utf8(b"a", "é".encode(), b"caf\xe9", b"d")
        parquet.write_table(pa.table({"image": [f"{i}.png" for i in range(4)], "text": texts}), path)
        return
    lines = {
        "surrogate.jsonl": '"c\\ud83d"',
        "broken.jsonl": '"c',
        "list.jsonl": None,
        "ragged.csv": "c,d",
        "short.csv": None,
    }
    third = lines[name]
    if name.endswith("jsonl"):
        text = [f'{{"image": "{i}.png", "text": "{c}"}}' for i, c in enumerate("aéxd")]
        text[2] = "[1]" if third is None else f'{{"image": "2.png", "text": {third}}}'
    else:
        text = ["image,text", "0.png,a", "1.png,é", "2.png" if third is None else f"2.png,{third}", "3.png,d"]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


BAD_ROWS = {
    "utf8.parquet": "'text' holds the byte 0xe9, which is not UTF-8; save it as UTF-8",
    "surrogate.jsonl": "is half a character",
    "broken.jsonl": "is not valid JSON",
    "list.jsonl": "is not an object of columns",
    "ragged.csv": "has 3 fields, the header has 2",
    "short.csv": "has 1 fields, the header has 2",
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_row_that_cannot_be_read_is_named_or_skipped(name, tmp_path):
    one_bad_row(name, tmp_path / name)
    with pytest.raises(BadTableError, match=re.escape(f"{name}, row 3: ") + ".*" + BAD_ROWS[name]):
        read_table(tmp_path / name)
    with pytest.raises(BadTableError, match=rf"row 3 .*{BAD_ROWS[name]}.* or pass --on-bad skip"):
        read_folder(tmp_path / name)
    bad = BadRows("skip")
    rows = read_folder(tmp_path / name, bad=bad)
    assert [(row.image, row.text) for row in rows] == [("0.png", "a"), ("1.png", "é"), ("3.png", "d")]
    assert [(row.row, row.kind) for row in bad.rows] == [(3, "unreadable row")]


def test_a_table_of_nothing_but_bad_rows_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("image,text\n0.png\n1.png\n")
    with pytest.raises(BadTableError, match=r"t\.csv: no row can be read, the first has 1 fields"):
        read_folder(tmp_path / "t.csv", bad=BadRows("skip"))


def test_a_truncated_parquet_file_is_one_line(tmp_path):
    parquet.write_table(pa.table({"image": [f"{i}.png" for i in range(1000)]}), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    for size in (0, 3, 8, len(data) // 2, len(data) - 1):
        (tmp_path / "t.parquet").write_bytes(data[:size])
        with pytest.raises(
            BadTableError, match=r"t\.parquet: cannot be read as Parquet \(.*\); write it again"
        ) as caught:
            read_folder(tmp_path / "t.parquet", bad=BadRows("skip"))
        assert "\n" not in str(caught.value)


def test_an_id_with_a_nul_is_refused_and_a_caption_with_one_is_not(tmp_path):
    parquet.write_table(
        pa.table({"id": ["a", "b\0", "c"], "image": ["0.png"] * 3, "text": ["x\0y"] * 3}), tmp_path / "t.parquet"
    )
    with pytest.raises(BadTableError, match=r"row 2 .*the id '.*b\\x00' holds a NUL character; correct it"):
        read_folder(tmp_path / "t.parquet")
    rows = read_folder(tmp_path / "t.parquet", bad=BadRows("skip"))
    assert [(row.id.split("/")[-1], row.text) for row in rows] == [("a", "x\0y"), ("c", "x\0y")]


LARGE = [2**63, -(2**63) - 1, 10**30]


@pytest.mark.parametrize("number", LARGE)
def test_a_label_beyond_64_bits_is_refused(number, tmp_path):
    (tmp_path / "t.csv").write_text(f"image,topic\n0.png,1\n1.png,{number}\n2.png,{2**63 - 1}\n3.png,{-(2**63)}\n")
    columns = {"labels": {"topic": "topic"}}
    with pytest.raises(BadTableError, match=rf"row 2 .*topic is '{number}', allowed: an integer"):
        read_folder(tmp_path / "t.csv", columns)
    rows = read_folder(tmp_path / "t.csv", columns, BadRows("skip"))
    assert [row.labels["topic"] for row in rows] == [1, 2**63 - 1, -(2**63)]
    with pytest.raises(ConfigError, match=f"{number} does not fit 64 bits"):
        read_folder(tmp_path / "t.csv", {"labels": {"topic": {"column": "topic", "values": {"1": number}}}})
    assert beyond_64_bits([1, None, "", str(number)]) == 3
    assert beyond_64_bits(["a", str(number)]) is None, "a column of names"
