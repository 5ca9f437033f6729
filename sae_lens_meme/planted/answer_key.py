"""The answer key of a planted corpus: every meme's true factors and labels, and what causes what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_lens_meme.errors import StorageError
from sae_lens_meme.labels import LABELS
from sae_lens_meme.planted.causes import NOISE
from sae_lens_meme.planted.rows import PlantedMeme
from sae_lens_meme.planted.worlds import WORLDS
from sae_lens_meme.storage import read_json

FACTORS, CAUSES_FILE, PLACES = "factors.parquet", "causes.json", "places.parquet"


@dataclass(frozen=True)
class AnswerKey:
    """What is true of every meme, and where it shows."""

    factors: pd.DataFrame
    """One row per meme: `id` as the corpus has it, a column per factor, and `true_<label>` columns.

    A factor that may hold several values at once (props of the crowded world) has a tuple of them."""
    kinds: Mapping[str, str]  # factor -> visual | textual | cross-modal | shared (of planted vectors: in both)
    causes: Mapping[str, Mapping[str, Any]]  # label -> {"kind", "factors", "noise"}
    places: pd.DataFrame | None = None
    """Where each factor shows: box in the picture, words of the caption (see `planted.places`); planted vectors have none."""


def read_answer_key(path: str | Path) -> AnswerKey:
    """The answer key in the folder `path` (the `answer_key` of `PlantedPaths`, or that of planted vectors).

    Raises:
        StorageError: the folder is not an answer key.
    """
    path = Path(path)
    for name in (FACTORS, CAUSES_FILE):
        if not (path / name).is_file():
            raise StorageError(f"{path}: is not an answer key (no {name}); write the planted corpus again")
    causes = read_json(path / CAUSES_FILE)
    try:
        factors = pd.read_parquet(path / FACTORS)
        if "true_target" in factors.columns:
            factors = factors.astype({"true_target": "Int64"})  # null where there is no hate
        several = [name for name in causes["factors"] if isinstance(factors[name].iloc[0], np.ndarray)]
        factors = factors.assign(**{name: factors[name].map(tuple) for name in several})
        places = pd.read_parquet(path / PLACES) if (path / PLACES).is_file() else None
        return AnswerKey(factors, causes["factors"], causes["labels"], places)
    except Exception as error:  # of damaged files pandas and pyarrow raise a dozen classes
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"{path}: is a damaged answer key ({reason}); write the planted corpus again") from None


def causes_as_json(world: str) -> dict[str, Any]:
    labelling, kinds = WORLDS[world].labelling, WORLDS[world].kinds
    return {
        "note": WORLDS[world].note,
        "labels": {label: {**cause, "noise": NOISE[label]} for label, cause in labelling.causes.items()},
        "factors": dict(kinds),
    }


def write_factors(memes: Sequence[PlantedMeme], path: Path) -> None:
    schema = _schema(WORLDS[memes[0].world].kinds)
    pq.write_table(pa.Table.from_pylist([_row(meme) for meme in memes], schema=schema), path)


def _row(meme: PlantedMeme) -> dict[str, Any]:
    truth = {f"true_{label}": value for label, value in WORLDS[meme.world].labelling.truth(meme.factors).items()}
    return {"id": meme.id, "source": meme.source, **meme.factors.row(), **truth}


def _schema(kinds: Mapping[str, str]) -> pa.Schema:
    types = {
        **dict.fromkeys(("bursts", "figures", "distance"), pa.int64()),
        **dict.fromkeys(("clash", "mismatch", "far"), pa.bool_()),
        **dict.fromkeys(("prop", "phrase", "joke"), pa.list_(pa.string())),
    }
    columns = {name: types.get(name, pa.string()) for name in kinds}
    labels = {f"true_{label}": pa.int64() for label in LABELS}
    return pa.schema({"id": pa.string(), "source": pa.string(), **columns, **labels})
