"""What an evaluation says about a latent's name and a label's probe, for `read`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.content import EVALUATION, table_in
from sae_lens_meme.evaluators.probes.quantities import PENALTY, WITHIN
from sae_lens_meme.read.decisions import Score
from sae_lens_meme.read.reading import Name
from sae_lens_meme.storage import read_finished, read_json

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
        self._content: dict[str, Any] = {"results": {}}
        if evaluation is None:
            return
        found = read_finished(evaluation, "evaluate")["fingerprint"]
        for part, value in expected.items():
            if found.get(part) != value:
                raise DataError(f"{evaluation}: is of another {part} than the one given; evaluate again")
        self._names, self._probes = (_plain(table_in(evaluation, name)) for name in ("naming", "probes"))
        self._content = read_json(evaluation / EVALUATION)

    @classmethod
    def of_tables(
        cls, naming: pd.DataFrame | None, probes: pd.DataFrame | None, content: dict[str, Any] | None = None
    ) -> Measured:
        """From the tables of an evaluation in memory, and its `evaluation.json`, which has the intervals."""
        made = cls(None, {})
        made.given, made._names, made._probes = True, _plain(naming), _plain(probes)
        made._content = content or made._content
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
        auroc, permuted = (self._row(task, space).get(WITHIN.key) for space in ("latents", "latents_permuted"))
        numbers = self._content["results"].get("probes", {}).get("numbers", {})
        low, high = (numbers.get(f"{task}/latents/{WITHIN.key}_{end}") for end in ("low", "high"))
        return Score(auroc, permuted, low, high)

    def penalty(self, task: str) -> float:
        """The C of the probe that was measured; 1 where none was."""
        return self._row(task, "latents").get(PENALTY.key) or 1.0

    def _row(self, task: str, space: str) -> dict[str, Any]:
        return self._probe_rows.get((task, space), {})

    @cached_property
    def _probe_rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """By task and space."""
        if self._probes is None:
            return {}
        return {(row["task"], row["space"]): row for row in self._probes.to_dict("records")}


def _evidence(score: dict[str, Any], holds: Any) -> str:
    if holds is None or score["auroc"] is None:
        return "no evidence: the held-out memes allow no test of the name"
    interval = f" ({score['auroc_low']:.2f} to {score['auroc_high']:.2f})" if score["auroc_low"] is not None else ""
    measured = f"AUROC {score['auroc']:.2f}{interval} on held-out memes, q {score['q']:.1g}"
    return measured if holds else f"no evidence: {measured}"


def _plain(table: pd.DataFrame | None) -> Any:
    """With None for null, by latent where it has latents."""
    if table is None:
        return None
    plain: Any = table.astype(object).where(table.notna(), None)
    return plain.set_index("latent", drop=False) if "latent" in plain else plain
