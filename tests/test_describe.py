"""The description of a corpus: its counts, its sentences, its figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from datasets import Dataset
from scipy.stats.contingency import association
from test_cli import here

from sae_lens_meme.corpus import build_corpus, load_rows
from sae_lens_meme.describe import Description, describe_corpus
from sae_lens_meme.describe.description import cooccurrence
from sae_lens_meme.errors import DataError

N = 60
LONG = "word " * 90


def write_source(folder: Path, seed: int, labels: list[str]) -> None:
    """Rows whose second label, where there is one, copies the first; a third of the captions is missing."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "split", *labels])
        for i in range(N):
            size = (20, 60) if i < 10 else (40, 40)
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
            hate, chance = int(rng.integers(2)), int(rng.integers(2))
            caption = None if i % 3 == 0 else LONG if i == 1 else f"caption {i}"
            known = {"hate": hate, "humor": 1 - hate, "motivational": chance}
            writer.writerow([f"{i}.png", caption, "test" if i % 5 == 0 else "train", *(known[name] for name in labels)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    write_source(folder / "memes", 0, ["hate", "humor", "motivational"])
    build_corpus(folder / "corpus", folder=folder / "memes", progress=False)
    return folder / "corpus"


@pytest.fixture(scope="module")
def described(corpus: Path) -> Description:
    return describe_corpus(corpus, progress=False)


def only(described: Description, name: str) -> dict[str, Any]:
    (row,) = described.tables[name].records()
    return row


def test_rows_and_what_is_missing(described: Description):
    assert only(described, "rows") == {
        "source": "memes",
        "memes": N,
        "groups": N,
        "train": 48,
        "validation": 0,
        "test": 12,
    }
    row = only(described, "known")
    assert (row["memes"], row["caption"], row["hate"], row["sarcasm"]) == (N, 40, N, 0)
    assert "never known: target, stance, offensive, sentiment, sarcasm" in described.tables["known"].conclusion


def test_captions_beyond_the_context(described: Description):
    row = only(described, "captions")
    assert (row["captions"], row["over 77"], row["most tokens"]) == (40, 1, 92)
    assert row["most letters"] == len(LONG)  # to the letter: its last space too
    said = described.tables["captions"].conclusion
    assert "1 of 40 captions (2.5%) are longer than the 77 tokens" in said
    assert "20 memes have no caption" in said
    assert sum(described.histograms["tokens"]["counts"]) == 40


def test_pictures_that_a_crop_cuts(described: Description):
    row = only(described, "pictures")
    assert (row["pictures"], row["width"], row["over a quarter cut"]) == (N, 40, 10)
    assert row["mean share cut"] == pytest.approx(10 * (2 / 3) / N)
    assert "10 of 60 pictures (17%; 10 of them tall" in described.tables["pictures"].conclusion


def test_a_picture_is_measured_upright(corpus: Path):
    picture = PIL.Image.new("RGB", (60, 20))
    exif = PIL.Image.Exif()
    exif[274] = 6
    file = corpus.parent / "turned.jpg"
    picture.save(file, exif=exif)
    rows = load_rows(corpus).remove_columns("image").select([0])
    turned = rows.add_column("image", [{"bytes": file.read_bytes(), "path": "turned.jpg"}])  # pyright: ignore[reportCallIssue]
    from datasets import Image

    row = only(describe_corpus(turned.cast_column("image", Image()), progress=False), "pictures")
    assert (row["width"], row["height"]) == (20, 60)


def test_labels_that_go_together_beside_permuted_ones(described: Description):
    rows = {row["labels"]: row for row in described.tables["cooccurrence"].records()}
    assert rows["hate, humor"]["V"] == pytest.approx(1)
    assert rows["hate, humor"]["V permuted"] < 0.3
    assert rows["hate, humor"]["q"] <= 0.05
    assert rows["hate, motivational"]["q"] > 0.05
    assert "1 of 3 pairs of labels go together" in described.tables["cooccurrence"].conclusion
    assert "most hate, humor" in described.tables["cooccurrence"].conclusion


def test_labels_that_only_share_a_source_do_not_go_together(corpus: Path):
    """Both labels are 1 in one source and 0 in the other: together over all memes, and not within a source."""
    rows: Any = load_rows(corpus)
    second = np.arange(N) < N // 2
    noise = [np.arange(N) % 10 == 0, np.arange(N) % 7 == 1]
    cells = [(second ^ flip).astype(int).tolist() for flip in noise]
    rows = rows.remove_columns(["source", "hate", "humor", "motivational"])
    rows = rows.add_column("source", np.where(second, "a", "b").tolist())
    rows = rows.add_column("hate", cells[0]).add_column("humor", cells[1])
    (row,) = (r for r in describe_corpus(rows, progress=False).tables["cooccurrence"].records() if r["V"] is not None)
    assert row["V"] > 0.5
    assert row["V permuted"] > 0.5
    assert row["q"] > 0.05


def test_equal_labels_are_found_among_many_and_chance_is_that_of_permutations():
    rng, n = np.random.default_rng(0), 300
    memes = pd.DataFrame({"id": np.arange(n), "group": np.arange(n), "source": np.repeat(["a", "b"], [100, 200])})
    for j in range(15):
        memes[f"l{j:02}"] = rng.integers(0, 3, n)
    memes["l01"] = memes["l00"]
    table = cooccurrence(memes, [f"l{j:02}" for j in range(15)])
    assert table.conclusion.startswith(
        "1 of 105 pairs of labels go together within their sources (q <= 0.05), most l00"
    )
    row = next(row for row in table.records() if row["labels"] == "l03, l04")
    x, y = memes["l03"].to_numpy(), memes["l04"].to_numpy()
    observed = naive_v(x, y)
    naive = [naive_v(x, y[np.concatenate([rng.permutation(100), 100 + rng.permutation(200)])]) for _ in range(400)]
    assert row["V"] == pytest.approx(observed)
    assert row["V permuted"] == pytest.approx(np.mean(naive), rel=0.1)
    assert row["p"] == pytest.approx(np.mean(np.array(naive) >= observed), abs=0.1)


def naive_v(x: np.ndarray, y: np.ndarray) -> float:
    return float(association(pd.crosstab(x, y).to_numpy(), method="cramer"))


def test_a_meme_without_a_group_is_its_own(corpus: Path):
    rows: Any = load_rows(corpus).remove_columns("group")
    once = describe_corpus(rows, progress=False)
    groups = describe_corpus(rows.add_column("group", [None, None, "x", "x"] + [None] * (N - 4)), progress=False)
    assert only(once, "rows")["groups"] == N
    assert only(groups, "rows")["groups"] == N - 1
    assert {row["groups"] for row in groups.tables["cooccurrence"].records()} == {N - 1}


def test_copies_are_counted_once(corpus: Path):
    rows = load_rows(corpus)
    once: Any = describe_corpus(rows, progress=False).tables["cooccurrence"].records()
    copies = Dataset.from_list(
        [{**row, "id": f"{row['id']}-{i}"} for row in rows.to_list() for i in range(3)], features=rows.features
    )
    many: Any = describe_corpus(copies, progress=False).tables["cooccurrence"].records()
    assert [row["groups"] for row in many] == [row["groups"] for row in once] == [N] * 3
    assert [row["memes with both"] for row in many] == [3 * N] * 3
    assert [row["V"] for row in many] == pytest.approx([row["V"] for row in once])


def test_the_command_prints_each_sentence_and_writes_json_and_a_figure(
    corpus: Path, described: Description, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status, out, err = here(("describe", corpus, "--out", tmp_path / "d"), capsys)
    assert status == 0, err
    for table in described.tables.values():
        assert table.title in out
        assert table.conclusion in out
    content = json.loads((tmp_path / "d" / "description.json").read_text())
    assert content["tables"]["rows"]["rows"] == described.tables["rows"].records()
    assert PIL.Image.open(tmp_path / "d" / "corpus.png").size[0] > 1000
    assert (tmp_path / "d" / "corpus.svg").is_file()


def test_what_is_no_corpus_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status, _, err = here(("describe", tmp_path), capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert "is not a result of 'corpus'" in err
    with pytest.raises(DataError, match="has no column source"):
        describe_corpus(
            Dataset.from_dict({"id": ["a"], "image": [None], "text": [""], "text_origin": ["none"], "split": ["train"]})
        )
