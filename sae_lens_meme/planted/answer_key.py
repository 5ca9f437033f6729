"""The answer key of a planted corpus: every meme's true factors and labels, and what causes what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_lens_meme.errors import StorageError
from sae_lens_meme.labels import LABELS
from sae_lens_meme.planted.causes import CAUSES, NOISE, true_labels
from sae_lens_meme.planted.factors import CROSS_MODAL, SEVERAL, TEXTUAL, VISUAL
from sae_lens_meme.planted.rows import PlantedMeme
from sae_lens_meme.storage import read_json

FACTORS, CAUSES_FILE, PLACES = "factors.parquet", "causes.json", "places.parquet"
KINDS: Mapping[str, str] = {
    **dict.fromkeys(VISUAL, "visual"),
    **dict.fromkeys(TEXTUAL, "textual"),
    **dict.fromkeys(CROSS_MODAL, "cross-modal"),
}
"""Whether the picture, the caption, or only both together show a factor."""


@dataclass(frozen=True)
class AnswerKey:
    """What is true of every meme, and where it shows."""

    factors: pd.DataFrame
    """One row a meme: `id` as the corpus has it, a column a factor, and `true_<label>` columns.

    `prop` and `phrase` hold a tuple of values, each of which is a factor of its own."""
    kinds: Mapping[str, str]  # factor -> visual | textual | cross-modal
    causes: Mapping[str, Mapping[str, Any]]  # label -> {"kind", "factors", "noise"}
    places: pd.DataFrame
    """Where each factor shows: box in the picture, words of the caption (see `planted.places`)."""


def read_answer_key(path: str | Path) -> AnswerKey:
    """The answer key in the folder `path` (the `answer_key` of `PlantedPaths`).

    Raises:
        StorageError: the folder is not an answer key.
    """
    path = Path(path)
    for name in (FACTORS, CAUSES_FILE, PLACES):
        if not (path / name).is_file():
            raise StorageError(f"{path}: is not an answer key (no {name}); write the planted corpus again")
    causes = read_json(path / CAUSES_FILE)
    try:
        factors = pd.read_parquet(path / FACTORS).astype({"true_target": "Int64"})  # null where there is no hate
        factors = factors.assign(**{name: factors[name].map(tuple) for name in SEVERAL})
        return AnswerKey(factors, causes["factors"], causes["labels"], pd.read_parquet(path / PLACES))
    except Exception as error:  # of damaged files pandas and pyarrow raise a dozen classes
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"{path}: is a damaged answer key ({reason}); write the planted corpus again") from None


def causes_as_json() -> dict[str, Any]:
    return {
        "note": "No meme is hateful: 'hate' is the name of a column, true where the caption's mood and the faces clash.",
        "labels": {label: {**cause, "noise": NOISE[label]} for label, cause in CAUSES.items()},
        "factors": dict(KINDS),
    }


def write_factors(memes: Iterable[PlantedMeme], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([_row(meme) for meme in memes], schema=_schema()), path)


def _row(meme: PlantedMeme) -> dict[str, Any]:
    truth = {f"true_{label}": value for label, value in true_labels(meme.factors).items()}
    return {"id": meme.id, "source": meme.source, **meme.factors.row(), **truth}


def _schema() -> pa.Schema:
    integers, truths = ("bursts", "figures", "distance"), ("clash", "mismatch", "far")
    types = dict.fromkeys(integers, pa.int64()) | dict.fromkeys(truths, pa.bool_())
    types |= dict.fromkeys(SEVERAL, pa.list_(pa.string()))
    kinds = {name: types.get(name, pa.string()) for name in KINDS}
    labels = {f"true_{label}": pa.int64() for label in LABELS}
    return pa.schema({"id": pa.string(), "source": pa.string(), **kinds, **labels})
