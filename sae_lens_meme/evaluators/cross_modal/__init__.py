"""Which latents join image and text, and which memes to keep for it (SAE-V)."""

from sae_lens_meme.evaluators.cross_modal.evaluator import CrossModal
from sae_lens_meme.evaluators.cross_modal.scores import ItemScores, item_scores
from sae_lens_meme.evaluators.cross_modal.selection import filter_dataset, select
from sae_lens_meme.evaluators.cross_modal.weights import Weights, cross_modal_weights

__all__ = [
    "CrossModal",
    "ItemScores",
    "Weights",
    "cross_modal_weights",
    "filter_dataset",
    "item_scores",
    "select",
]
