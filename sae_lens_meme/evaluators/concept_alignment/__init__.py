"""Which latents fire on which labelled concepts."""

from sae_lens_meme.evaluators.concept_alignment.compute import Pairs, association, measure_pairs, significant
from sae_lens_meme.evaluators.concept_alignment.evaluator import ConceptAlignment
from sae_lens_meme.evaluators.concept_alignment.pair import LatentConcept, concept_alignment

__all__ = [
    "ConceptAlignment",
    "LatentConcept",
    "Pairs",
    "association",
    "concept_alignment",
    "measure_pairs",
    "significant",
]
