"""The code in CONTRIBUTING.md runs and passes what it says that it passes; the version is the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from arrays import make_embeddings
from conformance import check_evaluator
from evaluations import small_memes
from hooked_model_conformance import check_hooked_model
from PIL import Image
from tiny_sae import tiny_sae

import sae_lens_meme
from sae_lens_meme import evaluators, hooks
from sae_lens_meme.corpus import READERS, build_corpus

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(name: str) -> dict[str, Any]:
    """The names that a block of the page defines."""
    (code,) = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```\n<!-- end -->", PAGE, re.DOTALL)
    defined: dict[str, Any] = {"__name__": f"contributing_{name}"}
    exec(compile(code, f"CONTRIBUTING.md, {name}", "exec", dont_inherit=True), defined)
    return defined


@pytest.fixture
def rare() -> Iterator[Any]:
    yield example("evaluator")["Rare"]
    evaluators.unregister("rare")


def test_the_evaluator_conforms_and_counts(rare):
    x, embeddings = small_memes()
    sae = tiny_sae(x, d_sae=24, k=4)
    result = check_evaluator(evaluators.find("rare"), sae, embeddings)
    fires = (sae.encode(torch.tensor(x[embeddings.splits == "test"], dtype=torch.float32)) > 0).float().mean(dim=0)
    assert result.numbers["share_rare"] == pytest.approx((fires <= 0.01).float().mean().item())
    everything = rare(embeddings, at_most=0.5).evaluate(sae)
    assert everything.numbers["share_rare"] == pytest.approx((fires <= 0.5).float().mean().item())


def test_the_reader_makes_a_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("funny_1", "plain_2", "odd_3"):
        Image.new("RGB", (4, 4), (len(name), ord(name[0]), 0)).save(tmp_path / f"{name}.png")
    monkeypatch.setitem(READERS, "zoo", None)  # taken out again
    example("reader")
    corpus = build_corpus(tmp_path / "C", zoo=tmp_path, holdout=0, on_bad="skip", progress=False)
    assert corpus["train"]["humor"][:] == [1, 0]
    assert corpus["train"]["hate"][:] == [None, None]
    assert "'odd' is not funny or plain" in (tmp_path / "C" / "bad_rows.jsonl").read_text()


def test_the_model_conforms():
    try:
        model = example("model")["Concatenated"]()
        rng = np.random.default_rng(0)
        vectors = {f"hook_{side}_embed": rng.standard_normal((20, 12)) for side in ("image", "text")}
        check_hooked_model(model.attach(hooks.EmbeddingSource(make_embeddings(vectors, labels={"hate": [0, 1] * 10}))))
        assert hooks.find("Concatenated") is type(model)
    finally:
        hooks.unregister("Concatenated")


def test_the_version_is_written_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == sae_lens_meme.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", changes, re.MULTILINE)
    assert (
        released and released[0] == sae_lens_meme.__version__
    ) or f"Version {sae_lens_meme.__version__} has not been released yet" in changes
    assert (
        "\nversion = "
        not in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool.setuptools.dynamic]")[0]
    )
