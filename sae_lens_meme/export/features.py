"""Rows of `features/`: statistics of a latent, its neighbours and its words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Float

from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.export.lift import LiftTable
from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.text import clean, number, numbers
from sae_lens_meme.export.write import Row

BINS, NEIGHBOURS = 50, 25
TOGETHER = 128
"""Latents whose cosines with all others are in memory at once."""


class LatentFacts:
    """What the latents of an SAE do on the memes, and where their decoder rows point.

    Args:
        decoder: [d_sae, d_in].
    """

    def __init__(self, latents: Latents, decoder: Float[np.ndarray, "d_sae d_in"]):
        self.latents = latents
        decoder = np.asarray(decoder, dtype=np.float32)
        self.norms = np.linalg.norm(decoder, axis=1)
        self.directions = decoder / np.where(self.norms > 0, self.norms, 1)[:, None]

    @cached_property
    def _columns(self):
        return self.latents.csc()

    def activations(self, latent: int) -> Float[np.ndarray, " active"]:
        """Those above 0."""
        span = slice(*self._columns.indptr[latent : latent + 2])
        return self._columns.data[span].astype(np.float64)

    def largest(self, latent: int) -> float:
        return float(self.activations(latent).max(initial=0.0))

    def firing_rate(self, latent: int) -> float:
        """Share of all memes."""
        return len(self.activations(latent)) / max(self.latents.n_samples, 1)

    def histogram(self, latent: int) -> tuple[list[int], list[float]]:
        """Memes in each of 50 equal parts of (0, the largest activation], and the middle of each part."""
        values, largest = self.activations(latent), self.largest(latent)
        heights, edges = np.histogram(values / (largest or 1.0), bins=BINS, range=(0.0, 1.0))
        return heights.tolist(), numbers((edges[:-1] + edges[1:]) / 2 * (largest or 1.0))

    def neighbours(self, latents: range) -> Iterator[tuple[list[int], list[float]]]:
        """Of each of these latents itself, then the latents with the most similar decoder rows."""
        k = min(NEIGHBOURS, len(self.directions) - 1)
        for start in range(latents.start, latents.stop, TOGETHER):
            part = range(start, min(start + TOGETHER, latents.stop))
            cosines = self.directions[part.start : part.stop] @ self.directions.T
            for latent, row in zip(part, cosines, strict=True):
                row[latent] = -np.inf
                near = np.argpartition(-row, k - 1)[:k] if k else np.empty(0, np.int64)
                near = near[np.lexsort((near, -row[near]))]
                yield [latent, *near.tolist()], [1.0, *numbers(row[near])]


def feature_rows(latents: range, facts: LatentFacts, lifts: LiftTable, names: ExportNames, hook: str) -> Iterator[Row]:
    near = facts.neighbours(latents)
    for latent, (indices, cosines), lift in zip(latents, near, lifts.of(latents), strict=True):
        heights, middles = facts.histogram(latent)
        yield {
            **names.of_row(latent),
            "sourceSetName": names.source_set,
            "creatorId": names.creator,
            "hookName": clean(hook),
            "hasVector": False,
            "maxActApprox": number(facts.largest(latent)),
            "frac_nonzero": number(facts.firing_rate(latent)),
            "freq_hist_data_bar_heights": heights,
            "freq_hist_data_bar_values": middles,
            **lift.as_row(),
            "topkCosSimIndices": indices,
            "topkCosSimValues": cosines,
        }
