"""Memes that share their picture or their caption and differ in a label: does a latent tell them apart?"""

from sae_lens_meme.evaluators.confounders.compute import choose, flip_null, paired_probe
from sae_lens_meme.evaluators.confounders.evaluator import Confounders
from sae_lens_meme.evaluators.confounders.pairs import CAPTION, GIVEN, PICTURE, ConfounderPairs, find_pairs

__all__ = [
    "CAPTION",
    "GIVEN",
    "PICTURE",
    "ConfounderPairs",
    "Confounders",
    "choose",
    "find_pairs",
    "flip_null",
    "paired_probe",
]
