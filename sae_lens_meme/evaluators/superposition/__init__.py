"""Polysemanticity of latents against neurons, and how the decoder's directions share the dimensions."""

from sae_lens_meme.evaluators.superposition.answers import (
    Answers,
    Neurons,
    Projections,
    answers,
    firing,
    matched_rates,
    thresholds,
)
from sae_lens_meme.evaluators.superposition.evaluator import Superposition
from sae_lens_meme.evaluators.superposition.geometry import (
    Geometry,
    expected_abs_cosine,
    feature_dimensionality,
    geometry,
    interference,
)
from sae_lens_meme.metrics.directions import random_directions

__all__ = [
    "Answers",
    "Geometry",
    "Neurons",
    "Projections",
    "Superposition",
    "answers",
    "expected_abs_cosine",
    "feature_dimensionality",
    "firing",
    "geometry",
    "interference",
    "matched_rates",
    "random_directions",
    "thresholds",
]
