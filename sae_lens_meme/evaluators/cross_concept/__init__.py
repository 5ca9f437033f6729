"""Which latents serve which concepts together."""

from sae_lens_meme.evaluators.cross_concept.compute import (
    LabelOverlap,
    Shared,
    from_labels_alone,
    label_overlap,
    shared_latents,
)
from sae_lens_meme.evaluators.cross_concept.evaluator import CrossConcept

__all__ = ["CrossConcept", "LabelOverlap", "Shared", "from_labels_alone", "label_overlap", "shared_latents"]
