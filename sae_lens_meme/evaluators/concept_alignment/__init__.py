"""Which latents fire on which labelled concepts."""

from sae_lens_meme.evaluators.concept_alignment.evaluator import ConceptAlignment, LatentConcept, concept_alignment

__all__ = ["ConceptAlignment", "LatentConcept", "concept_alignment"]
