"""OCR as a step: each picture once, captions left alone, words where they stand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from datasets import load_from_disk
from PIL import ImageDraw, ImageFont
from seen_memes import EMBED, save_sae
from test_cli import here

from sae_lens_meme import pipeline
from sae_lens_meme.attribute import attribute
from sae_lens_meme.config import read_yaml
from sae_lens_meme.corpus import build_corpus, load_rows
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.ocr import ENGINES, Captions, Engine, Line, Piece, read_captions, read_text, step, words_of

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
TEXTS: dict[tuple[int, ...], str] = {COLOURS["red"]: "a red cat", COLOURS["green"]: "green   frogs\tsit"}
MEMES = [  # name, colour, caption
    *(("1", "red", None), ("2", "red", None), ("3", "green", None), ("4", "blue", None)),
    *(("5", "red", " its own  caption "), ("6", "black", "another")),
]


class Fake:
    """Reads the colour of a picture, and counts."""

    def __init__(self):
        self.seen: list[tuple[int, ...]] = []
        self.fails_at: int | None = None
        self.failure: BaseException = KeyboardInterrupt()

    def __call__(self, pixels: np.ndarray) -> list[Line]:
        if len(self.seen) == self.fails_at:
            raise self.failure
        self.seen.append(tuple(pixels[0, 0].tolist()))
        text = TEXTS.get(self.seen[-1])
        return [Line(text, 0.9, (Piece(text, 0.9, (2, 3, 20, 9)),))] if text else []


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(ENGINES, "fake", Engine(lambda: made, "numpy", "pip install it"))
    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), MEMES)


def write_corpus(folder: Path, memes: list[Any]) -> Path:
    (folder / "memes").mkdir()
    with open(folder / "memes" / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "split", "hate"])
        for i, (name, colour, caption) in enumerate(memes):
            PIL.Image.new("RGB", (24, 16), COLOURS[colour]).save(folder / "memes" / f"{name}.png")
            writer.writerow([f"{name}.png", caption, "test" if name == "4" else "train", i % 2])
    build_corpus(folder / "corpus", folder=folder / "memes", progress=False)
    return folder / "corpus"


def read(corpus: Path, out: Path, **given: Any) -> Captions:
    return read_captions(corpus, out, engine="fake", progress=False, **given)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_each_picture_without_a_caption_is_read_once(corpus: Path, tmp_path: Path, fake: Fake):
    found = read(corpus, tmp_path / "ocr")
    assert sorted(fake.seen) == sorted(COLOURS[name] for name in ("red", "green", "blue"))
    by_id = {id: (row["text"], len(row["words"])) for row in found.dataset.to_list() for id in row["ids"]}
    expected = {"1": ("a red cat", 3), "2": ("a red cat", 3), "3": ("green frogs sit", 3), "4": (None, 0)}
    assert by_id == {f"memes/{name}.png": what for name, what in expected.items()}
    assert {key: found.facts[key] for key in ("n_memes", "n_pictures", "n_read")} == {
        "n_memes": 4,
        "n_pictures": 3,
        "n_read": 2,
    }
    assert load_from_disk(str(tmp_path / "ocr")).column_names == found.dataset.column_names
    fake.seen.clear()
    read(corpus, tmp_path / "ocr")
    assert fake.seen == []


def test_the_words_are_a_table_by_meme(corpus: Path, tmp_path: Path, fake: Fake):
    words: Any = read(corpus, tmp_path / "ocr", memes="all").words
    assert list(words) == ["id", "word", "confidence", "x0", "y0", "x1", "y1"]
    mine = words[words["id"] == "memes/5.png"]  # it has a caption, and its words have boxes all the same
    assert mine["word"].tolist() == ["a", "red", "cat"]
    assert mine.loc[:, ["x0", "y0", "x1", "y1"]].to_numpy().tolist() == [[2, 3, 4, 9], [6, 3, 12, 9], [14, 3, 20, 9]]


def test_a_run_killed_between_shards_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step, "SHARD", 1)
    read(corpus, tmp_path / "whole")
    fake.seen.clear()
    fake.fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        read(corpus, tmp_path / "killed")
    with pytest.raises(StorageError, match="the ocr step was interrupted"):
        Captions.load(tmp_path / "killed")
    fake.fails_at = None
    read(corpus, tmp_path / "killed")
    assert len(fake.seen) == 3
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_an_earlier_result_has_read_is_not_read_again(corpus: Path, tmp_path: Path, fake: Fake):
    earlier = read(corpus, tmp_path / "earlier")
    fake.seen.clear()
    more = read(corpus, tmp_path / "more", memes="all", reuse=tmp_path / "earlier")
    assert fake.seen == [COLOURS["black"]]
    assert more.texts.items() >= earlier.texts.items()
    with pytest.raises(ConfigError, match=r"was read by fake .*, not by rapidocr"):
        read_captions(corpus, tmp_path / "other", engine="rapidocr", reuse=tmp_path / "earlier", progress=False)


def test_a_picture_at_which_the_engine_fails_is_named_and_tried_again(corpus: Path, tmp_path: Path, fake: Fake):
    fake.fails_at, fake.failure = 1, ValueError("too\nstrange")
    found = read(corpus, tmp_path / "ocr")
    problems = {row["problem"] for row in found.dataset.to_list()}
    assert problems == {None, "ValueError: too strange"}
    assert found.facts["n_failed"] == 2  # the fake reads no more after its first failure
    note = found.fill(load_rows(corpus))[1]
    assert note == "4 of 6 memes had no caption: OCR (fake) read one for 2, found no text on 0, failed at 2"
    fake.fails_at = None
    again = read(corpus, tmp_path / "again", reuse=tmp_path / "ocr")
    assert len(fake.seen) == 3
    assert again.facts["n_failed"] == 0


def test_embeddings_take_what_was_read_for_captions_that_are_missing(corpus: Path, tmp_path: Path, fake: Fake):
    before = contents(corpus)
    read(corpus, tmp_path / "ocr")
    filled = embed_corpus(corpus, tmp_path / "filled", ocr=tmp_path / "ocr", **EMBED)
    described = {row["id"]: row for row in filled.dataset.select_columns(["id", "text", "text_origin"]).to_list()}
    for row in load_rows(corpus).remove_columns("image").to_list():
        expected = {"memes/1.png": "a red cat", "memes/2.png": "a red cat", "memes/3.png": "green frogs sit"}
        origin = "ocr" if row["id"] in expected else row["text_origin"]
        mine = described[row["id"]]
        assert (mine["text"], mine["text_origin"]) == (expected.get(row["id"], row["text"]), origin)
    assert described["memes/5.png"]["text"] == " its own  caption "
    assert described["memes/4.png"]["text_origin"] == "none"
    assert contents(corpus) == before
    assert filled.facts["corpus_notes"][-1] == (
        "4 of 6 memes had no caption: OCR (fake) read one for 3, found no text on 1"
    )

    (tmp_path / "written").mkdir()
    captions = {"1": "a red cat", "2": "a red cat", "3": "green frogs sit"}
    written = write_corpus(tmp_path / "written", [(n, colour, captions.get(n, text)) for n, colour, text in MEMES])
    same = embed_corpus(written, tmp_path / "same", **EMBED)
    for hook in filled.hooks:
        np.testing.assert_array_equal(filled.take(hook, range(6)), same.take(hook, range(6)))

    embed_corpus(corpus, tmp_path / "plain", **EMBED)
    with pytest.raises(StorageError, match=r"holds a different result .*ocr"):
        embed_corpus(corpus, tmp_path / "plain", ocr=tmp_path / "ocr", **EMBED)


def test_attribution_looks_into_the_captions_that_were_embedded(corpus: Path, tmp_path: Path, fake: Fake):
    read(corpus, tmp_path / "ocr")
    filled = embed_corpus(corpus, tmp_path / "filled", ocr=tmp_path / "ocr", **EMBED)
    save_sae(tmp_path / "sae", filled)
    found = attribute(tmp_path / "sae", tmp_path / "filled", corpus, out=tmp_path / "a", device="cpu", progress=False)
    words = {row["id"]: row["words"] for row in found.dataset.to_list()}
    assert words["memes/3.png"] == ["green", "frogs", "sit"]
    assert words["memes/6.png"] == ["another"]


def test_a_corpus_where_every_meme_has_a_caption(tmp_path: Path, fake: Fake):
    corpus = write_corpus(tmp_path, [("1", "red", "a caption")])
    assert len(read(corpus, tmp_path / "ocr").dataset) == 0
    assert fake.seen == []
    filled = embed_corpus(corpus, tmp_path / "e", ocr=tmp_path / "ocr", **EMBED)
    assert filled.texts is not None
    assert filled.texts.tolist() == ["a caption"]


def test_the_command_and_the_flag(corpus: Path, tmp_path: Path, fake: Fake, capsys: pytest.CaptureFixture[str]):
    status, out, err = here(("ocr", corpus, "--out", tmp_path / "ocr", "--engine", "fake"), capsys)
    assert status == 0, err
    assert "text on 2 of 3 pictures of 4 memes" in out
    flags = ("--model", "demo-encoder", "--device", "cpu", "--workers", 0, "--batch-size", 8)
    status, out, err = here(("embed", corpus, "--ocr", tmp_path / "ocr", "--out", tmp_path / "e", *flags), capsys)
    assert status == 0, err
    assert "OCR (fake) read one for 3, found no text on 1" in out
    assert Embeddings.load(tmp_path / "e").facts["ocr"] == "fake"
    small = ("epochs=1", "train_batch_size_tokens=2", "sae.d_sae=8", "sae.k=2")
    flags = ("--corpus", corpus, "--ocr", tmp_path / "ocr", "--model", "demo-encoder", "--out", tmp_path / "sae")
    status, out, err = here(("train", "demo.yaml", *flags, *small), capsys)
    assert status == 0, err
    assert "OCR (fake) read one for 3, found no text on 1" in out


def test_a_recipe_has_a_section_for_it(corpus: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch):
    class Enough(Exception):
        pass

    def train(*_: Any, **__: Any) -> None:
        raise Enough

    monkeypatch.setattr(pipeline, "train_step", train)
    embedding = {"model": "demo-encoder", "device": "cpu", "workers": 0, "batch_size": 8}
    recipe = {"corpus": {"folder": str(corpus.parent / "memes")}, "ocr": {"engine": "fake"}, "embed": embedding}
    recipe["train"] = read_yaml("demo.yaml")["train"]
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    with pytest.raises(Enough):
        pipeline.run(tmp_path / "r.yaml", out=tmp_path / "out")
    assert Embeddings.load(tmp_path / "out" / "embeddings").facts["ocr"] == "fake"
    for change, said in (
        ("ocr.engin=fake", "ocr: unknown key 'engin'"),
        ("embed={planted: {}}", "ocr: planted vectors have"),
    ):
        left_out = ["corpus=null"] if "planted" in change else []
        with pytest.raises(ConfigError, match=said):
            pipeline.run(tmp_path / "r.yaml", out=tmp_path / "other", overrides=[change, *left_out])


def test_an_engine_that_is_missing_or_unknown_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def missing() -> Any:
        raise ImportError("No module named 'easyocr'")

    picture = PIL.Image.new("RGB", (8, 8))
    monkeypatch.setitem(ENGINES, "easyocr", ENGINES["easyocr"]._replace(load=missing))
    with pytest.raises(ConfigError, match=r"No module named 'easyocr'.*pip install 'sae-lens-meme\[ocr\]'"):
        read_text(picture, "easyocr")
    with pytest.raises(ConfigError, match="'rapidorc'; did you mean 'rapidocr'"):
        read_text(picture, "rapidorc")


def test_a_word_has_the_box_of_its_letters():
    halves = Line(
        "IT WAS",
        0.9,
        (Piece("IT", 0.8, (10, 0, 20, 5)), Piece("W", 1, (30, 1, 34, 6)), Piece("AS", 0.4, (36, 0, 44, 5))),
    )
    it, was = words_of([halves], 100, 50)
    assert it == ("IT", pytest.approx(0.8), 10, 0, 20, 5)
    assert was == ("WAS", pytest.approx(0.6), 30, 0, 44, 6)
    joined = Line("IT WAS", 0.9, (Piece("ITWAS", 0.9, (0, 0, 50, 5)),))
    assert [word[2:] for word in words_of([joined], 100, 50)] == [(0, 0, 20, 5), (20, 0, 50, 5)]
    whole = Line("IT WAS", 0.9, (Piece("I WAS", 0.9, (0, 0, 60, 5)),))  # pieces of another spelling
    assert [word[2:] for word in words_of([whole], 40, 4)] == [(0, 0, 20, 4), (30, 0, 40, 4)]


@pytest.mark.whole
def test_rapidocr_reads_large_letters_where_they_are(tmp_path: Path):
    pytest.importorskip("rapidocr", reason="rapidocr is not installed")
    picture, font = PIL.Image.new("RGB", (400, 120), "white"), ImageFont.load_default(48)
    draw = ImageDraw.Draw(picture)
    draw.text((20, 40), "hello cats", fill="black", font=font)
    assert read_text(picture) == "hello cats"
    (hello, cats) = words_of(step.read_lines(picture), *picture.size)
    left, top, right, bottom = draw.textbbox((20, 40), "hello", font=font)
    np.testing.assert_allclose(hello[2:], (left, top, right, bottom), atol=18)
    assert cats.x0 > right - 5
    assert cats.confidence > 0.5
    assert read_text(PIL.Image.new("RGB", (64, 64), "white")) is None
