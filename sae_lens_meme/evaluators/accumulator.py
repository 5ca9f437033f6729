"""Memes evaluated in parts: each part is encoded where it is, parts merge, the numbers come at the end.

Ranks, thresholds and fitted probes have no sufficient statistic smaller than the active latents themselves, so
these are what is accumulated: 8 bytes an active latent, while embeddings stay memory-mapped on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents, encode, require_latents_of

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.base import Evaluator
    from sae_lens_meme.evaluators.result import Result


class Accumulator:
    """The parts seen so far; make one with `Evaluator.accumulator(sae)`.

    An accumulator may be made in each of several processes, given other memes in each, and pickled back or rebuilt
    from what `Latents.save` wrote; `merge` joins them. The result is that of one run over the parts in their order.
    """

    def __init__(self, evaluator: Evaluator, sae: Any):
        self.evaluator, self.sae = evaluator, sae
        self.embeddings: list[Embeddings] = []
        self.latents: list[Latents] = []

    def accumulate(self, embeddings: Embeddings, latents: Latents | None = None) -> Accumulator:
        """Add memes that were not added before, encoded here unless their latents are given."""
        latents = encode(self.sae, embeddings, self.evaluator.hook) if latents is None else latents
        require_latents_of(latents, embeddings)
        self.embeddings.append(embeddings)
        self.latents.append(latents)
        return self

    def merge(self, other: Accumulator) -> Accumulator:
        """Add the parts of another accumulator of the same SAE, after those that are here."""
        self.embeddings += other.embeddings
        self.latents += other.latents
        return self

    def finish(self) -> Result:
        """The evaluator's result over all parts.

        Raises:
            DataError: there are no parts, a meme is in two of them, or they do not have the same columns.
        """
        if not self.embeddings:
            raise DataError(f"{self.evaluator.name}: nothing was accumulated; call accumulate(embeddings) first")
        embeddings, latents = Embeddings.concatenate(self.embeddings), Latents.concatenate(self.latents)
        return self.evaluator.evaluate(self.sae, embeddings, latents)
