"""The options of a corpus: strict, light to import, and a new reader is in them as soon as it is registered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sae_lens_meme.corpus import READERS, BadRow, BadRows, Reader, Row, build_corpus
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.errors import ConfigError


def read_toy(root: Path, bad: BadRows, limit: int | None = None) -> list[Row]:
    """Every picture of a folder, called by its file name, with a caption about its size."""
    rows = []
    for number, path in enumerate(sorted(Path(root).glob("*.png")), start=1):
        if path.stem.startswith("_"):
            bad.add(BadRow(path.name, number, path.name, "is hidden", "hidden picture", "toy"))
            continue
        text, labels = f"{path.stat().st_size} bytes", {"hate": number % 2}
        rows.append(Row(f"toy/{path.name}", "toy", None, path, text, "dataset", labels, path.name, path, number))
    return rows[:limit]


TOY = Reader(
    "toy", read_toy, help="Toys: a folder of *.png.", provenance="made of squares.", note="Toys have no humor."
)


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    for i in range(5):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{'_' if i == 4 else ''}{i}.png")
    return tmp_path


def test_a_registered_reader_is_an_option_a_recipe_and_a_part_of_the_card(monkeypatch, toys: Path, tmp_path: Path):
    assert "toy" not in corpus_options().model_fields
    monkeypatch.setitem(READERS, "toy", TOY)
    field = corpus_options().model_fields["toy"]
    assert (field.description, field.default) == ("Toys: a folder of *.png.", None)
    corpus = build_corpus(tmp_path / "a", toy=toys, on_bad="skip", holdout=0, progress=False)
    assert corpus["train"]["id"][:] == [f"toy/{i}.png" for i in range(4)]
    options = corpus_options().from_mapping({"toy": str(toys), "on_bad": "skip", "holdout": 0.0})
    again = build_corpus(tmp_path / "b", options, progress=False)
    assert again["train"]["image_sha256"][:] == corpus["train"]["image_sha256"][:]
    card = (tmp_path / "a" / "README.md").read_text()
    assert "- toy: made of squares." in card
    assert "Toys have no humor." in card
    assert "- 1 row skipped: 1 hidden picture (listed in bad_rows.jsonl)" in card
    with pytest.raises(ConfigError, match="use 'all' with a toy"):
        build_corpus(tmp_path / "c", toy=toys, preset="intervlm", progress=False)


def test_a_reader_may_take_further_options(monkeypatch, toys: Path, tmp_path: Path):
    def read(root: Path, bad: BadRows, holdout: float) -> list[Row]:
        return read_toy(root, bad, limit=2 + round(10 * holdout))

    monkeypatch.setitem(READERS, "toy", TOY._replace(read=read, takes=("holdout",)))
    assert build_corpus(tmp_path / "a", toy=toys, holdout=0.0, on_bad="skip", progress=False).num_rows == {"train": 2}


def test_the_readers_come_first_and_all_options_have_help():
    fields = corpus_options().model_fields
    assert list(fields) == [*READERS, "columns", "fine_grained", "preset", "holdout", "near", "dedupe", "on_bad"]
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pridem": "x"}, "corpus: unknown key 'pridem'; did you mean 'pridemm'"),
        ({"hmc": 3}, "corpus.hmc is 3, it must be a path"),
        ({"holdout": "0.1"}, "corpus.holdout is '0.1', it must be"),
        ({"holdout": -0.1}, "corpus.holdout is -0.1, it must be"),
        ({"columns": 3}, "corpus.columns is 3, it must be"),
        ({"on_bad": True}, "corpus.on_bad is True, it must be 'raise' or 'skip'"),
    ],
)
def test_refuses(given: dict, message: str):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        corpus_options()(**given)


def test_options_are_an_object_or_keywords(tmp_path: Path):
    with pytest.raises(ConfigError, match="holdout: give the options as one object or by keyword, not both"):
        build_corpus(tmp_path, corpus_options()(hmc="x"), holdout=0.2)


def test_help_does_not_wait_for_heavy_libraries():
    heavy = {"datasets", "torch", "pandas", "pyarrow", "sae_lens"}
    code = f"import sys; from sae_lens_meme.corpus.options import CorpusOptions; print({heavy} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
