"""Polysemanticity of latents against neurons, and how the decoder's directions share the dimensions."""

from sae_lens_meme.evaluators.superposition.answers import Answers, answers, at_rates, matched_rates, signed_neurons
from sae_lens_meme.evaluators.superposition.evaluator import Superposition
from sae_lens_meme.evaluators.superposition.geometry import (
    Geometry,
    expected_abs_cosine,
    feature_dimensionality,
    geometry,
    interference,
    random_directions,
)

__all__ = [
    "Answers",
    "Geometry",
    "Superposition",
    "answers",
    "at_rates",
    "expected_abs_cosine",
    "feature_dimensionality",
    "geometry",
    "interference",
    "matched_rates",
    "random_directions",
    "signed_neurons",
]
