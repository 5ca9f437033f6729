"""What ablating and steering a latent does to a classifier."""

from sae_lens_meme.evaluators.influence.compute import Effects, Resampling, blocks, effects_of, firing_rate_matched
from sae_lens_meme.evaluators.influence.evaluator import Influence
from sae_lens_meme.evaluators.influence.routes import (
    CosineHead,
    CosineRoute,
    embedding_route,
    head_of,
    latent_route,
    steer_through_model,
)
from sae_lens_meme.evaluators.latents import decoder_rows

__all__ = [
    "CosineHead",
    "CosineRoute",
    "Effects",
    "Influence",
    "Resampling",
    "blocks",
    "decoder_rows",
    "effects_of",
    "embedding_route",
    "firing_rate_matched",
    "head_of",
    "latent_route",
    "steer_through_model",
]
