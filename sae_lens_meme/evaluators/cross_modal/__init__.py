"""Which latents join image and text, and which memes to keep for it (SAE-V)."""

from sae_lens_meme.evaluators.cross_modal.evaluator import CrossModal
from sae_lens_meme.evaluators.cross_modal.selection import ItemScores, filter_dataset, item_scores, select
from sae_lens_meme.evaluators.cross_modal.weights import MemePairs, SideHooks, Weights, cross_modal_weights

__all__ = [
    "CrossModal",
    "ItemScores",
    "MemePairs",
    "SideHooks",
    "Weights",
    "cross_modal_weights",
    "filter_dataset",
    "item_scores",
    "select",
]
