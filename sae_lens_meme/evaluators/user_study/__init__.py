"""The metric benchmark of sae-for-vlm: which of two neurons users called more focused, and which a metric prefers.

Its folder holds `pairs.csv` (1,000 pairs of neurons, the users' choice, two published scores of each), `top16_images.csv`
(the pictures that users saw) and `activations.csv` (each neuron on 50,000 pictures, from which new metrics are made).
"""

from sae_lens_meme.evaluators.user_study.agreement import SPARSITY, monosemanticity_of, sparsity, user_agreement
from sae_lens_meme.evaluators.user_study.step import compare_with_users
from sae_lens_meme.evaluators.user_study.study import UserStudy, read_scores

__all__ = [
    "SPARSITY",
    "UserStudy",
    "compare_with_users",
    "monosemanticity_of",
    "read_scores",
    "sparsity",
    "user_agreement",
]
