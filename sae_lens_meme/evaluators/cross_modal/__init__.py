"""Which latents join image and text, and which memes to keep for it (SAE-V)."""

from sae_lens_meme.evaluators.cross_modal.evaluator import CrossModal
from sae_lens_meme.evaluators.cross_modal.patch_filter import compare_patch_filters, kept_right, still_classified
from sae_lens_meme.evaluators.cross_modal.patches import blank, keep_patches, patch_cosines, patch_scores
from sae_lens_meme.evaluators.cross_modal.selection import (
    ItemScores,
    filter_dataset,
    item_scores,
    require_share,
    select,
)
from sae_lens_meme.evaluators.cross_modal.token_weights import scores_of_tokens
from sae_lens_meme.evaluators.cross_modal.tokens import (
    TokenItemScores,
    kinds_of,
    token_chance,
    token_item_scores,
    token_omega,
)
from sae_lens_meme.evaluators.cross_modal.weights import MemePairs, SideHooks, Weights, cross_modal_weights
from sae_lens_meme.hooks.patches import anyres_boxes

__all__ = [
    "CrossModal",
    "ItemScores",
    "MemePairs",
    "SideHooks",
    "TokenItemScores",
    "Weights",
    "anyres_boxes",
    "blank",
    "compare_patch_filters",
    "cross_modal_weights",
    "filter_dataset",
    "item_scores",
    "keep_patches",
    "kept_right",
    "kinds_of",
    "patch_cosines",
    "patch_scores",
    "require_share",
    "scores_of_tokens",
    "select",
    "still_classified",
    "token_chance",
    "token_item_scores",
    "token_omega",
]
