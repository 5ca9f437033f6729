"""The main job on real input, by the command line: no step by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import run_here

MEMEGEN = Path(__file__).parents[2] / "shared" / "data" / "memegen"
MAP = {"id": "id", "image": "image", "text": "example", "labels": {"review": "flag_review"}}

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(not MEMEGEN.is_dir(), reason="the real pictures (../shared/data/memegen) are not here"),
]


def cli(*arguments: object, cwd: Path) -> None:
    done = run_here(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_206_real_pictures_with_their_captions(tmp_path: Path):
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAP))
    cli("corpus", "--folder", MEMEGEN / "manifest.jsonl", "--columns", "map.yaml", "--out", "C", cwd=tmp_path)
    cli("embed", "C", "--model", "demo-encoder", "--out", "E", cwd=tmp_path)
    overrides = ("epochs=5", "train_batch_size_tokens=32", "sae.k=8")
    cli("train", "demo.yaml", "--embeddings", "E", "--out", "S", *overrides, cwd=tmp_path)
    cli("evaluate", "--sae", "S", "--embeddings", "E", "--out", "V", "--bootstrap", "20", cwd=tmp_path)
    evaluation = json.loads((tmp_path / "V" / "evaluation.json").read_text())
    assert sum(evaluation["embeddings"]["splits"].values()) == 206
    concepts = pd.read_parquet(tmp_path / "V" / "concept_alignment.parquet")
    counted = concepts[concepts["concept"] == "review=1"][["a", "c"]].sum(axis=1)
    assert set(counted) == {7}, "seven pictures are flagged"


@pytest.mark.slow
def test_memes_without_labels_are_evaluated_as_far_as_it_goes(tmp_path: Path):
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({**MAP, "labels": {}}))
    cli("corpus", "--folder", MEMEGEN / "manifest.jsonl", "--columns", "map.yaml", "--out", "C", cwd=tmp_path)
    cli("embed", "C", "--model", "demo-encoder", "--out", "E", cwd=tmp_path)
    cli("train", "demo.yaml", "--corpus", "C", "--model", "demo-encoder", "--out", "S", "epochs=1", "train_batch_size_tokens=32", cwd=tmp_path)  # fmt: skip
    cli("evaluate", "--sae", "S", "--embeddings", "E", "--out", "V", cwd=tmp_path)
    evaluation = json.loads((tmp_path / "V" / "evaluation.json").read_text())
    need_no_labels = ["reconstruction", "monosemanticity", "superposition", "cross_modal", "question_set", "naming"]
    assert list(evaluation["results"]) == need_no_labels
    assert "no label has two classes" in evaluation["skipped"]["concept_alignment"]


@pytest.mark.slow
def test_a_dozen_pictures_through_the_architecture_of_vit_l_14(tmp_path: Path):
    rows = [json.loads(line) for line in (MEMEGEN / "manifest.jsonl").read_text().splitlines()[:12]]
    (tmp_path / "memes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "images").mkdir()
    for row in rows:
        (tmp_path / row["image"]).write_bytes((MEMEGEN / row["image"]).read_bytes())
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAP))
    cli("corpus", "--folder", "memes.jsonl", "--columns", "map.yaml", "--out", "C", "--holdout", "0", cwd=tmp_path)
    cli("embed", "C", "--model", "ViT-L-14/random", "--batch-size", "4", "--out", "E", cwd=tmp_path)
    overrides = ("epochs=2", "train_batch_size_tokens=4", "sae.k=4", "sae.d_sae=64")
    cli("train", "demo.yaml", "--embeddings", "E", "--out", "S", *overrides, cwd=tmp_path)
    cli("evaluate", "--sae", "S", "--embeddings", "E", "--out", "V", "--only", "reconstruction", cwd=tmp_path)
    assert json.loads((tmp_path / "V" / "evaluation.json").read_text())["sae"]["d_in"] == 768
