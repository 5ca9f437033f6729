"""Files whose bytes were changed by chance: of each picture pixels or a refusal that names it, of each table the right rows or one."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset

from sae_lens_meme.corpus import read_folder
from sae_lens_meme.corpus.build import Pictures
from sae_lens_meme.corpus.tables import read_table
from sae_lens_meme.errors import BadImageError, MemeError
from sae_lens_meme.images import MAX_PIXELS

SUFFIXES = ("csv", "tsv", "jsonl", "parquet")
CAPTIONS = [
    'a, "b"',
    "line\nline",
    "NA",
    "",
    None,
    "007",
    "1e5",
    "=1+1",
    "مرحبا 😀",
    "\u2028x",
    " padded ",
    "tab\there",
]
ROWS = [
    {"image": f"{i}.png", "text": text, "hate": str(i % 2), "split": ("train", "test")[i % 2]}
    for i, text in enumerate(CAPTIONS)
]
BITS = [
    *(bytes([b]) for b in b'",\t\n\r\\{}[]:0\xff\x00\xed'),
    b'""',
    b"null",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"-1",
    b"NaN",
]


KINDS = ["flip", "letter", "letter", "over", "put", "take", "double", "end", "syntax", "syntax"]


def mutated(good: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits flipped, bytes written over, put in, taken out or doubled, or the end cut off."""
    data = bytearray(good)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 4])):
        place, n = chance.randrange(len(data) + 1), chance.choice([1, 1, 2, 4, 16, 64])
        kind = chance.choice(KINDS)
        if kind == "flip" and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == "letter":
            data[place : place + 1] = chance.choice(b"aeZ019 ,").to_bytes(1, "big")
        elif kind == "over":
            data[place : place + n] = chance.randbytes(n)
        elif kind == "put":
            data[place:place] = chance.randbytes(n)
        elif kind == "take":
            del data[place : place + n]
        elif kind == "double":
            data[place:place] = data[place : place + n]
        elif kind == "syntax":
            data[place:place] = chance.choice(BITS)
        elif kind == "end" and chance.random() < 0.2:
            del data[place:]
    return bytes(data)


def pictures() -> Iterator[bytes]:
    """Each format, and each way in which it keeps pixels."""
    rng = np.random.default_rng(0)
    colour = PIL.Image.fromarray(rng.integers(0, 256, (17, 23, 3), dtype=np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # on its side
    grey16 = PIL.Image.fromarray(rng.integers(0, 65536, (9, 8)).astype(np.uint16))
    palette = colour.convert("P", palette=PIL.Image.Palette.ADAPTIVE)
    frames = {"save_all": True, "append_images": [colour.rotate(90)]}
    ways: list[tuple[Any, str, dict[str, Any]]] = [
        *((colour, kind, {}) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")),
        *((colour.convert("RGBA"), "PNG", {}), (palette, "PNG", {"transparency": 3}), (grey16, "PNG", {})),
        *((colour.convert("1"), "PNG", {}), (palette, "BMP", {}), (colour.convert("CMYK"), "JPEG", {})),
        *((colour, "JPEG", {"progressive": True, "exif": exif}), (colour, "WEBP", {"lossless": True, "exif": exif})),
        *((colour, "GIF", frames), (colour, "WEBP", frames)),
    ]
    for image, kind, options in ways:
        file = io.BytesIO()
        image.save(file, kind, **options)
        yield file.getvalue()


def check_pictures(n: int) -> dict[str, int]:
    """As `embed`, `ocr` and `attribute` read the pictures of a corpus."""
    good, chance, found = list(pictures()), random.Random(0), {"pixels": 0, "refused": 0}
    for start in range(0, n, 500):
        files = [mutated(good[i % len(good)], chance) for i in range(start, min(start + 500, n))]
        rows = {"id": [f"meme {i}" for i in range(len(files))], "image": [{"bytes": x, "path": None} for x in files]}
        opened = Pictures(Dataset.from_dict(rows))
        for i in range(len(files)):
            try:
                image = opened[i]
            except BadImageError as error:
                found["refused"] += one_line(error, f"image 'meme {i}'")
            else:
                assert image.mode == "RGB"
                assert len(image.tobytes()) == 3 * image.width * image.height <= 3 * MAX_PIXELS
                found["pixels"] += 1
    return found


def one_line(error: MemeError, name: str) -> bool:
    message = str(error)
    assert name in message
    assert len(message.splitlines()) == 1, message
    return True


def write_tables(folder: Path) -> dict[str, Path]:
    files = {suffix: folder / f"memes.{suffix}" for suffix in SUFFIXES}
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        quoted = [["" if v is None else '"' + v.replace('"', '""') + '"' for v in row.values()] for row in ROWS]
        lines = [delimiter.join(row) + "\n" for row in [list(ROWS[0]), *quoted]]
        files[suffix].write_text("".join(lines), encoding="utf-8", newline="")
    files["jsonl"].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), files["parquet"])
    return files


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def read_by_others(content: bytes, suffix: str) -> list[dict[str, str]]:
    """What Python's `csv` and `json`, or Arrow, read; what is missing as ""."""
    if suffix == "parquet":
        rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    elif suffix == "jsonl":
        lines = [line for line in content.decode("utf-8").removeprefix("\ufeff").split("\n") if line.strip()]
        rows = [json.loads(line, parse_int=str, parse_float=str, object_pairs_hook=_distinct) for line in lines]
    else:
        text = io.StringIO(content.decode("utf-8").removeprefix("\ufeff"), newline="")
        records = [r for r in csv.reader(text, delimiter="\t" if suffix == "tsv" else ",", strict=True) if r]
        assert {len(record) for record in records} == {len(records[0])}
        rows = [dict(zip(records[0], record, strict=True)) for record in records[1:]]
    names = dict.fromkeys(name for row in rows for name in row)
    texts = [name for name in names if not any(isinstance(row.get(name), bytes) for row in rows)]  # bytes are pictures
    return [{name: _text(row.get(name)) for name in texts} for row in rows]


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_table(path: Path, content: bytes) -> bool:
    """Whether it was read; a refusal names the file. Where it was read, others read the same."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        table, rows = read_table(path), read_folder(path)
    except MemeError as error:
        return not one_line(error, path.name)
    expected = read_by_others(content, path.suffix[1:])
    assert [{name: cell or "" for name, cell in row.items()} for row in table.rows] == expected
    assert [row.text or "" for row in rows] == [row.get("text", "") for row in expected]
    assert [row.row for row in rows] == list(range(1, len(expected) + 1))
    return True


def check_tables(folder: Path, n: int) -> dict[str, int]:
    chance, found = random.Random(0), {"rows": 0, "refused": 0}
    for suffix, path in write_tables(folder).items():
        good = path.read_bytes()
        assert check_table(path, good), suffix
        for _ in range(n // len(SUFFIXES)):
            found["rows" if check_table(path, mutated(good, chance)) else "refused"] += 1
    return found


def test_mutated_pictures_give_pixels_or_are_refused_by_name():
    found = check_pictures(500)
    assert min(found.values()) > 50, found


def test_mutated_tables_give_the_right_rows_or_are_refused(tmp_path: Path):
    found = check_tables(tmp_path, 200)
    assert min(found.values()) > 20, found


@pytest.mark.slow
def test_ten_thousand_mutated_pictures():
    print(check_pictures(10_000))


@pytest.mark.slow
def test_eight_thousand_mutated_tables(tmp_path: Path):
    print(check_tables(tmp_path, 8_000))
