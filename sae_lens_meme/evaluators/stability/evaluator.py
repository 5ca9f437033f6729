"""Stability as an evaluator: the other SAEs are given once, firing and significance come from the memes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment import association
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.reconstruction.statistics import Reference
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.stability.compare import Memes, require_comparable
from sae_lens_meme.evaluators.stability.seeds import THRESHOLDS, require_others, stability
from sae_lens_meme.metrics.contingency import Counter
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg


class Stability(Evaluator):
    """`stability` of an SAE, with the memes at hand: firing rates, agreement of firing, significant latents.

    Args:
        embeddings: the memes.
        others: SAEs of other seeds on the same hook, by name.
        concepts: of which latents are significant, where there is no `alignment`; default `concepts.default_concepts`.
        controls: names in `others` that are no other seed, such as an SAE trained on shuffled data.
        alignment: result or table of concept alignment of the SAE that is measured; default: measured here, if
            there are labels.
        zscored: compare directions after dividing each dimension by its standard deviation over the train rows,
            which is the space that the SAE was trained in.
        threshold, thresholds, alpha, n_bootstrap, seed: of `stability`.
    """

    name = "stability"

    def __init__(
        self,
        embeddings: Embeddings,
        others: Mapping[str, Any],
        concepts: Iterable[str | Concept] | None = None,
        *,
        controls: Collection[str] = (),
        alignment: Result | pd.DataFrame | None = None,
        zscored: bool = False,
        threshold: float = 0.7,
        thresholds: Sequence[float] = THRESHOLDS,
        alpha: float = 0.05,
        n_bootstrap: int = 200,
        seed: int = 0,
        hook: str | None = None,
    ):
        super().__init__(embeddings, hook=hook)
        require_others(others, controls, threshold, thresholds)
        self.concepts = None if concepts is None else concepts_of(embeddings, concepts)
        self.others, self.controls, self.alignment, self.zscored = dict(others), tuple(controls), alignment, zscored
        self.options: dict[str, Any] = {"threshold": threshold, "thresholds": thresholds, "alpha": alpha}
        self.options |= {"n_bootstrap": n_bootstrap, "seed": seed}

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        for name, other in self.others.items():
            require_comparable(sae, name, other)
        encoded = self._encoded if embeddings is self.embeddings else self._encode(embeddings)
        strata = np.unique(embeddings.sources, return_inverse=True)[1]
        alignment = self.alignment
        if alignment is None:
            alignment = _significance(embeddings, latents, self.concepts)
        return stability(
            sae,
            self.others,
            controls=self.controls,
            alignment=alignment,
            latents=latents,
            other_latents=encoded,
            memes=Memes(strata, np.argsort(embeddings.ids, kind="stable")),
            scale=self._scale(sae, embeddings) if self.zscored else None,
            **self.options,
        )

    @cached_property
    def _encoded(self) -> dict[str, Latents]:
        return self._encode(self.embeddings)

    def _encode(self, embeddings: Embeddings) -> dict[str, Latents]:
        return {name: encode(other, embeddings, self.hook) for name, other in self.others.items()}

    def _scale(self, sae: Any, embeddings: Embeddings) -> Float[np.ndarray, " d_in"]:
        hook, rows = hook_of(sae, embeddings, self.hook), embeddings.rows("train")
        deviation = np.sqrt(Reference.of(batch for _, batch in embeddings.batches(hook, rows)).variance)
        return np.where(deviation > 0, deviation, 1.0)


def _significance(
    embeddings: Embeddings, latents: Latents, concepts: tuple[Concept, ...] | None
) -> pd.DataFrame | None:
    """As concept alignment has it under the corrected protocol, without what is not needed here."""
    try:
        targets = ConceptLabels.of(embeddings, concepts_of(embeddings, concepts))
    except ConfigError:
        return None
    log_p = association(Counter(latents.csc(), targets.known, targets.sources).count(), "corrected")
    q = benjamini_hochberg(log_p)
    return pd.DataFrame({"latent": np.repeat(np.arange(len(q)), q.shape[1]), "q_global": q.ravel()})
