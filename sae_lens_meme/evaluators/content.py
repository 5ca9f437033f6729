"""`evaluation.json`: its content, and its schema (docs/evaluation.md, evaluation.schema.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.labels import SPLITS

SCHEMA = 2
"""The version of `evaluation.json`: bumped when a key changes meaning or is removed, not when one is added."""
EVALUATION = "evaluation.json"


def content_of(context: Context) -> dict[str, Any]:
    """Strict JSON values: no NaN, null where undefined, with a reason."""
    cfg, memes = context.sae.cfg, context.embeddings
    content = {
        "schema": SCHEMA,
        "sae": {
            "architecture": cfg.architecture(),
            "training_architecture": cfg.metadata.training_architecture,
            "hook": cfg.metadata.hook_name,
            "d_in": cfg.d_in,
            "d_sae": cfg.d_sae,
            "k": getattr(cfg, "k", None),
        },
        "embeddings": {
            **{key: memes.facts.get(key) for key in ("model", "fusion", "dtype")},
            "n_samples": len(memes),
            "splits": {split: len(memes.rows(split)) for split in SPLITS},
            "fingerprint": memes.fingerprint,
        },
        "options": context.options.recorded(),
        "skipped": context.skipped,
        "results": {name: result.to_dict() for name, result in context.results.items()},
    }
    if context.answer_key is not None:
        content["answer_key"] = dict(context.answer_key.kinds)
    results = context.results.values()
    return {
        **content,
        "warnings": context.warnings,
        "table": [row for result in results for row in result.rows()],
        "sections": [section for result in results for section in result.sections()],
    }


def numbers_table(content: dict[str, Any]) -> pd.DataFrame:
    """Tidy table: one row per number of the evaluation, with its reason and its meaning."""
    rows = [
        (name, key, value, result["reasons"].get(key), result["explain"][key])
        for name, result in content["results"].items()
        for key, value in result["numbers"].items()
    ]
    table = pd.DataFrame(rows, columns=["evaluator", "number", "value", "reason", "explain"])
    return table.astype({"value": "Float64", "reason": "string"})


def table_of_latents(evaluation: str | Path, name: str) -> pd.DataFrame | None:
    """The table of that evaluator, if it says which latent a row is about."""
    path = Path(evaluation) / f"{name}.parquet"
    return pd.read_parquet(path) if path.is_file() and "latent" in pq.read_schema(path).names else None
