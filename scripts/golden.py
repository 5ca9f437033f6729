"""Record the numbers and tables of a demo run, for the test that nothing changes them unnoticed.

    python scripts/golden.py meme-demo tests/golden/demo.json

Run it again only where a commit says which number changed and why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.storage import sha256_file


def recorded(demo: Path) -> dict[str, Any]:
    """All numbers, and of every column of every table the nulls and the sum (of text: the number of distinct values)."""
    evaluation = json.loads((demo / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    tables = {
        file.stem: {name: _column(column) for name, column in pd.read_parquet(file).items()}
        for file in sorted((demo / "evaluation").glob("*.parquet"))
        if file.stem != "numbers"
    }
    return {
        "sae": sha256_file(demo / "sae" / "sae_weights.safetensors"),
        "numbers": {name: result["numbers"] for name, result in sorted(evaluation["results"].items())},
        "tables": tables,
    }


def _column(column: pd.Series) -> list[float]:
    nulls = int(column.isna().sum())
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return [len(column), nulls, float(np.abs(column.dropna().astype(float)).sum())]
    return [len(column), nulls, int(column.astype("string").nunique())]


if __name__ == "__main__":
    demo, out = map(Path, sys.argv[1:3])
    out.write_text(json.dumps(recorded(demo), indent=0, allow_nan=False) + "\n", encoding="utf-8")
