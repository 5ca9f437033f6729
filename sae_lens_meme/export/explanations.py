"""Rows of `explanations/`: names that hold on memes not used to choose them, with the class effects of the latent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.export.features import LatentFacts
from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.text import clean, identity, number
from sae_lens_meme.export.write import Row
from sae_lens_meme.projection import project

MOST_EFFECTS = 6
_OF_NAME = ("latent", "name", "kind", "auroc", "auroc_low", "auroc_high", "f1", "f1_always_on", "q")
PLACEHOLDER = "[1" + ",0" * 255 + "]"
"""Neuronpedia searches explanations by the vectors of an embedding model that only it can run. Without any vector an
explanation is not shown in all lists; this one is alike for all, so that no search prefers one to another."""


class Explanations:
    """Args:
    naming: the table of the evaluator naming, None where it was not run.
    alignment: that of concept_alignment, the corrected protocol.
    """

    def __init__(
        self,
        naming: Any,
        alignment: Any,
        facts: LatentFacts,
        seed: int,
    ):
        self._held = _held(naming)
        self._measured = alignment is not None
        kept = alignment[(alignment["q_global"] < 0.05).fillna(False)] if alignment is not None else None
        self._effects = {} if kept is None else {int(i): rows for i, rows in kept.groupby("latent")}
        self._facts, self._seed = facts, seed

    def __bool__(self) -> bool:
        return bool(self._held)

    def rows(self, latents: range, names: ExportNames) -> Iterator[Row]:
        for latent in latents:
            if latent not in self._held:
                continue
            name, (x, y) = self._held[latent], self._map[latent]
            yield {
                "id": identity(names.neuronpedia_id, latent, name["name"]),
                **names.of_row(latent),
                "authorId": names.creator,
                "description": describe(name),
                "notes": clean(f"{score(name)} {self._effects_of(latent)}"),
                "embedding": PLACEHOLDER,
                "umap_x": number(x),
                "umap_y": number(y),
                "umap_log_feature_sparsity": number(math.log10(max(self._facts.firing_rate(latent), 1e-12))),
            }

    @cached_property
    def _map(self) -> dict[int, np.ndarray]:
        """Places of the latents with a name, by the cosine of their decoder rows."""
        latents = sorted(self._held)
        directed = [latent for latent in latents if self._facts.norms[latent] > 0]
        points = project(self._facts.directions[directed], seed=self._seed) if directed else np.empty((0, 2))
        return dict.fromkeys(latents, np.zeros(2)) | dict(zip(directed, points, strict=True))

    def _effects_of(self, latent: int) -> str:
        if not self._measured:
            return "Class effects were not measured."
        kept = self._effects.get(latent)
        if kept is None:
            return "No class effect is significant (q < .05 over all pairs)."
        shown = [_effect(row) for row in kept.sort_values("q_global").head(MOST_EFFECTS).to_dict("records")]
        more = f"; and {len(kept) - MOST_EFFECTS} more" if len(kept) > MOST_EFFECTS else ""
        return f"Class effects (q < .05 over all pairs): {'; '.join(shown)}{more}."


def describe(name: dict[str, Any]) -> str:
    text = clean(name["name"])
    return f"caption says “{text}”" if name["kind"] == "word" else text


def score(name: dict[str, Any]) -> str:
    """What the name is worth on memes not used to choose it."""
    auroc = _interval(name["auroc"], name["auroc_low"], name["auroc_high"])
    return (
        f"On held-out memes the name tells firing with AUROC {auroc}, F1 {_short(name['f1'])} "
        f"(always on: {_short(name['f1_always_on'])}), q {_short(name['q'])}."
    )


def _effect(row: dict[str, Any]) -> str:
    odds = _interval(row["odds_ratio"], row["odds_ratio_low"], row["odds_ratio_high"])
    return (
        f"{row['concept']}: odds ratio {odds}, F1 on test memes {_short(row['f1_test'])} "
        f"(always on: {_short(row['f1_always_on'])}), q {_short(row['q_global'])}"
    )


def _interval(value: Any, low: Any, high: Any) -> str:
    ends = "" if pd.isna(low) or pd.isna(high) else f" ({_short(low)} to {_short(high)})"
    return f"{_short(value)}{ends}"


def _short(value: Any) -> str:
    return "undefined" if pd.isna(value) else f"{float(value):.2g}"


def _held(naming: Any) -> dict[int, dict[str, Any]]:
    if naming is None:
        return {}
    kept = naming[naming["holds"].fillna(False).astype(bool) & naming["name"].notna()]
    return {int(row["latent"]): row for row in kept[list(_OF_NAME)].to_dict("records")}
