"""`evaluation.json`: its content, and its schema (docs/evaluation.md, evaluation.schema.json)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.labels import SPLITS
from sae_lens_meme.row_kind import TOKEN

SCHEMA = 2
"""The version of `evaluation.json`: bumped when a key changes meaning or is removed, not when one is added."""
EVALUATION, LATENTS = "evaluation.json", "latents.safetensors"


def content_of(context: Context) -> dict[str, Any]:
    """Strict JSON values: no NaN, null where undefined, with a reason; of token rows the sentences speak of tokens."""
    cfg, memes = context.sae.cfg, context.embeddings
    said = memes.row_kind.said
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
            **_pictures(memes),
            "splits": {split: len(memes.rows(split)) for split in SPLITS},
            "fingerprint": memes.fingerprint,
        },
        "options": context.options.recorded(),
        "skipped": _told(context.skipped, said),
        "results": {name: _of_rows(result.to_dict(), said) for name, result in context.results.items()},
    }
    if context.answer_key is not None:
        content["answer_key"] = dict(context.answer_key.kinds)
    results = context.results.values()
    return {
        **content,
        "warnings": _told(context.warnings, said),
        "table": [_row(row, said) for result in results for row in result.rows()],
        "sections": _told([section for result in results for section in result.sections()], said),
    }


def _pictures(memes: Embeddings) -> dict[str, Any]:
    """Of token rows what they are, and of how many pictures."""
    if memes.row_kind != TOKEN:
        return {}
    return {"rows": TOKEN.many, "n_pictures": len(set(memes.dataset.with_format(None)["item"][:]))}


def _of_rows(result: dict[str, Any], said: Callable[[str], str]) -> dict[str, Any]:
    """Numbers and their keys stay; what is said of them is said of the rows."""
    return {key: value if key in ("name", "numbers") else _told(value, said) for key, value in result.items()}


def _row(row: dict[str, Any], said: Callable[[str], str]) -> dict[str, Any]:
    """The names of controls are the heads of columns."""
    return {**_told(row, said), "controls": {said(name): value for name, value in row["controls"].items()}}


def _told(value: Any, said: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return said(value)
    if isinstance(value, dict):
        return {key: _told(inner, said) for key, inner in value.items()}
    return [_told(inner, said) for inner in value] if isinstance(value, (list, tuple)) else value


def numbers_table(content: dict[str, Any]) -> pd.DataFrame:
    """Tidy table: one row per number of the evaluation, with its reason and its meaning."""
    rows = [
        (name, key, value, result["reasons"].get(key), result["explain"][key])
        for name, result in content["results"].items()
        for key, value in result["numbers"].items()
    ]
    table = pd.DataFrame(rows, columns=["evaluator", "number", "value", "reason", "explain"])
    return table.astype({"value": "Float64", "reason": "string"})


def table_in(evaluation: Path, name: str) -> pd.DataFrame | None:
    """The table of that evaluator; None where it did not run or has none.

    Raises:
        StorageError: the file is damaged.
    """
    file = evaluation / f"{name}.parquet"
    try:
        return pd.read_parquet(file) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise StorageError(f"{file}: cannot be read ({' '.join(str(error).split())[:200]}); evaluate again") from None


def corrected(pairs: pd.DataFrame | None) -> pd.DataFrame | None:
    """Of the table of `concept_alignment` the corrected protocol: the published one holds no memes out. None without any."""
    mine = None if pairs is None else pairs.loc[pairs["protocol"] == "corrected", :]
    return None if mine is None or mine.empty else mine


def table_of_latents(evaluation: str | Path, name: str) -> pd.DataFrame | None:
    """The table of that evaluator, if it says which latent a row is about."""
    path = Path(evaluation) / f"{name}.parquet"
    return pd.read_parquet(path) if path.is_file() and "latent" in pq.read_schema(path).names else None
