"""What ablating and steering a latent does to a classifier."""

from sae_lens_meme.evaluators.influence.evaluator import Influence, published

__all__ = ["Influence", "published"]
