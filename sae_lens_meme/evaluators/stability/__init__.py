"""Which latents other training runs find again, and whether the significant latents are among them.

Latents are matched one to one on decoder cosines; random directions with the same mean and covariance are matched alike.
"""

from sae_lens_meme.evaluators.stability.compute import (
    Directions,
    Estimate,
    Matching,
    exact_odds,
    firing_agreement,
    largest_sum,
    match,
    mean_difference,
    random_like,
    rate_groups,
    stratified_odds,
)
from sae_lens_meme.evaluators.stability.evaluator import Stability
from sae_lens_meme.evaluators.stability.quantities import of_significance

__all__ = [
    "Directions",
    "Estimate",
    "Matching",
    "Stability",
    "exact_odds",
    "firing_agreement",
    "largest_sum",
    "match",
    "mean_difference",
    "of_significance",
    "random_like",
    "rate_groups",
    "stratified_odds",
]
