"""What `read` says about a meme in the report: its strongest latents, and what each label's probe reads from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.numbers import clean, short, shorts
from sae_lens_meme.dashboard.words import Words
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.read.names import Measured
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.read.reading import ActiveLatent, Decision
from sae_lens_meme.read.vectors import VectorReader


class Readings:
    """Of memes by their rows in the embeddings. Nothing is read where there is no SAE or no train meme."""

    def __init__(self, inputs: ReportInputs, words: Words):
        self._memes, self._latents, self._words = inputs.memes, inputs.latents, words
        self._labels = {name: inputs.memes.label(name) for name in inputs.memes.label_names}
        self._reader = None
        if inputs.sae is not None and len(inputs.memes.rows("train")):
            measured = Measured.of_tables(inputs.table("naming"), inputs.table("probes"))
            self._reader = VectorReader(
                inputs.sae, inputs.memes, inputs.latents, measured, ReadOptions(), heads=inputs.heads
            )

    @property
    def possible(self) -> bool:
        return self._reader is not None

    @property
    def no_sides(self) -> str | None:
        """Why it is not known which side decides a latent; None where it is known."""
        if self._reader is None or self._reader.exchange is not None:
            return None
        return self._reader.no_exchange

    def of(self, row: int) -> dict[str, Any] | None:
        """Columns and rows of plain values."""
        if self._reader is None:
            return None
        mine = self._latents.rows(np.array([row]))
        sides = [side for side in (IMAGE_EMBED, TEXT_EMBED) if side in self._memes.hooks]
        vectors = {side: self._memes.take(side, np.array([row])) for side in sides}
        return {
            "latents": [self._latent(found) for found in self._reader.active(mine, vectors)],
            "decisions": [self._decision(found, row) for found in self._reader.decisions(mine)],
        }

    def _latent(self, found: ActiveLatent) -> dict[str, Any]:
        sides = found.sides
        return {
            "latent": found.latent,
            "decided_by": sides.decided_by,
            "kept": None if sides.other_captions is None else shorts([sides.other_captions, sides.other_pictures]),
            "evidence": clean(found.name.evidence),
            "stronger_than": short(found.stronger_than),
        }

    def _decision(self, found: Decision, row: int) -> dict[str, Any]:
        label = self._labels[found.label]
        return {
            "label": clean(found.label),
            "decided": clean(self._words.level(found.label, found.decided)),
            "right": bool(label.values[row] == found.decided) if label.known[row] else None,
            "probability": short(found.probability),
            "prevalence": short(found.prevalence),
            "evidence": clean(found.evidence),
            "carriers": [[carrier.latent, short(carrier.contribution)] for carrier in found.carriers],
            "without": short(found.without),
            "random": shorts(found.without_random),
        }
