"""What an evaluation says about a latent's name and a label's probe, for `read`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sae_lens_meme.errors import DataError
from sae_lens_meme.read.decisions import Score
from sae_lens_meme.read.reading import Name
from sae_lens_meme.storage import read_finished

NO_EVALUATION = "no evaluation was given: names and their scores are not known"


class Measured:
    """Names of latents and scores of probes; without an evaluation none is known.

    Args:
        evaluation: the result of `evaluate`, for this SAE and these embeddings.
        expected: their part of its fingerprint.

    Raises:
        StorageError: the folder is not a finished result of `evaluate`.
        DataError: it is of another SAE or of other embeddings.
    """

    def __init__(self, evaluation: Path | None, expected: dict[str, Any]):
        self.given = evaluation is not None
        self._names = self._probes = None
        if evaluation is None:
            return
        found = read_finished(evaluation, "evaluate")["fingerprint"]
        for part, value in expected.items():
            if found.get(part) != value:
                raise DataError(f"{evaluation}: is of another {part} than the one given; evaluate again")
        self._names, self._probes = (_plain(_table(evaluation / f"{name}.parquet")) for name in ("naming", "probes"))

    @classmethod
    def of_tables(cls, naming: pd.DataFrame | None, probes: pd.DataFrame | None) -> Measured:
        """From the tables of an evaluation in memory."""
        made = cls(None, {})
        made.given, made._names, made._probes = True, _plain(naming), _plain(probes)
        return made

    def name(self, latent: int) -> Name:
        if self._names is None:
            why = NO_EVALUATION if not self.given else "the evaluation has no names (evaluator naming)"
            return Name(None, None, None, None, None, False, why)
        row = self._names.loc[latent].to_dict()
        if row["name"] is None:
            return Name(None, None, None, None, None, False, f"no evidence: {row['reason']}")
        score = {key: row[key] for key in ("auroc", "auroc_low", "auroc_high", "q")}
        holds = bool(row["holds"])
        return Name(row["name"], **score, holds=holds, evidence=_evidence(score, row["holds"]))

    def probe(self, task: str) -> Score:
        return Score(*(self._scores.get((task, space)) for space in ("latents", "latents_permuted")))

    @cached_property
    def _scores(self) -> dict[tuple[str, str], float | None]:
        """By task and space."""
        if self._probes is None:
            return {}
        columns = (self._probes[name] for name in ("task", "space", "auroc_within_source"))
        return {(task, space): auroc for task, space, auroc in zip(*columns, strict=True)}


def _evidence(score: dict[str, Any], holds: Any) -> str:
    if holds is None or score["auroc"] is None:
        return "no evidence: the held-out memes allow no test of the name"
    interval = f" ({score['auroc_low']:.2f} to {score['auroc_high']:.2f})" if score["auroc_low"] is not None else ""
    measured = f"AUROC {score['auroc']:.2f}{interval} on held-out memes, q {score['q']:.1g}"
    return measured if holds else f"no evidence: {measured}"


def _table(path: Path) -> pd.DataFrame | None:
    return pd.read_parquet(path) if path.is_file() else None


def _plain(table: pd.DataFrame | None) -> Any:
    """With None for null, by latent where it has latents."""
    if table is None:
        return None
    plain: Any = table.astype(object).where(table.notna(), None)
    return plain.set_index("latent", drop=False) if "latent" in plain else plain
