"""Which latents fire on which labelled concepts."""

from sae_lens_meme.evaluators.concept_alignment.compute import (
    Pairs,
    association,
    best_latents,
    measure_pairs,
    significant,
)
from sae_lens_meme.evaluators.concept_alignment.counts import PairCounts
from sae_lens_meme.evaluators.concept_alignment.curse import Curse, curse_of
from sae_lens_meme.evaluators.concept_alignment.evaluator import ConceptAlignment
from sae_lens_meme.evaluators.concept_alignment.pair import LatentConcept, concept_alignment

__all__ = [
    "ConceptAlignment",
    "Curse",
    "LatentConcept",
    "PairCounts",
    "Pairs",
    "association",
    "best_latents",
    "concept_alignment",
    "curse_of",
    "measure_pairs",
    "significant",
]
