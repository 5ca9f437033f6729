"""Runs to export: planted memes with an attribution, and arrays with captions of any kind or none; and the importer's rules."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic
from seen_memes import write_memes
from tiny_sae import tiny_sae

from sae_lens_meme.attribute import attribute
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.evaluators import evaluate

VALIDATOR = Path(__file__).parents[2] / "shared" / "tools" / "neuronpedia_validate.py"
FEW = {"top": 4, "intervals": 3, "per_interval": 1, "pairs": 2, "batch_size": 40, "device": "cpu", "progress": False}


def write_seen(folder: Path) -> Path:
    """Planted memes with everything that an export can show."""
    write_memes(folder)
    measured(folder, ["naming", "concept_alignment"])
    attribute(folder / "sae", folder / "embeddings", folder / "corpus", out=folder / "attribution", **FEW)
    return folder


def write_arrays(
    folder: Path, texts: Sequence[str | None] | None = None, n: int = 300, d: int = 16, d_sae: int = 24, k: int = 4
) -> Path:
    """Fused vectors and a table of labels, with or without captions."""
    folder.mkdir(parents=True, exist_ok=True)
    x = 20 * anisotropic(n, d, np.random.default_rng(0))
    split = [("train", "train", "validation", "test")[i % 4] for i in range(n)]
    hate = (x[:, 4] > np.median(x[:, 4])).astype(int)
    table = pd.DataFrame({"id": [f"m{i}" for i in range(n)], "split": split, "hate": hate})
    if texts is not None:
        table["text"] = [texts[i % len(texts)] for i in range(n)]
    table.to_parquet(folder / "rows.parquet")
    np.save(folder / "x.npy", x)
    embed_arrays(folder / "embeddings", table=folder / "rows.parquet", fused_embeds=folder / "x.npy")
    tiny_sae(x, d_sae=d_sae, k=k).save_model(str(folder / "sae"))
    measured(folder, ["naming", "concept_alignment"] if d_sae < 1000 else ["reconstruction"])
    return folder


def measured(folder: Path, only: list[str]) -> None:
    options: dict[str, Any] = {"only": only, "bootstrap": 5, "stability_seeds": 0, "progress": False}
    evaluate(folder / "sae", folder / "embeddings", out=folder / "evaluation", **options)


def inputs(run: Path, pictures: bool = True) -> dict[str, Any]:
    """What `export` takes of these folders."""
    seen = {name: run / name for name in ("attribution", "corpus") if pictures and (run / name).is_dir()}
    return {"sae": run / "sae", "embeddings": run / "embeddings", "progress": False, **seen}


def rows(source: Path, kind: str) -> list[dict[str, Any]]:
    """Of all batches; read by nothing of ours."""
    found = []
    for file in sorted((source / kind).glob("batch-*.jsonl.gz"), key=lambda path: int(path.name[6:-9])):
        found += [json.loads(line, parse_constant=_refuse) for line in gzip.decompress(file.read_bytes()).splitlines()]
    return found


def pictures(source: Path) -> dict[str, bytes]:
    found = {}
    for file in sorted((source / "multimodal").glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            found |= {f"{file.name}/{name}": archive.read(name) for name in archive.namelist()}
    return found


def complaints(source: Path) -> list[tuple[str, str, str]]:
    """Of the validator, which is not part of the package."""
    if not VALIDATOR.is_file():
        pytest.skip("the validator of Neuronpedia folders is not here; the rules below are tested by themselves")
    return _validator().validate(str(source))


def _validator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("neuronpedia_validate", VALIDATOR)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")
