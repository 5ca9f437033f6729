"""Which latents other training runs find again, and whether the significant latents are among them.

Latents are matched one to one on decoder cosines; random directions with the same mean and covariance are matched alike.
"""

from sae_lens_meme.evaluators.stability.compute import (
    Directions,
    firing_agreement,
    largest_sum,
    match,
    random_like,
    rate_groups,
)
from sae_lens_meme.evaluators.stability.evaluator import Stability
from sae_lens_meme.evaluators.stability.quantities import of_significance

__all__ = [
    "Directions",
    "Stability",
    "firing_agreement",
    "largest_sum",
    "match",
    "of_significance",
    "random_like",
    "rate_groups",
]
