"""Polysemanticity of latents against neurons, and how the decoder's directions share the dimensions."""

from sae_lens_meme.evaluators.superposition.compute import (
    Answers,
    Geometry,
    Neurons,
    Projections,
    answers,
    expected_abs_cosine,
    feature_dimensionality,
    firing,
    geometry,
    interference,
    matched_rates,
    thresholds,
)
from sae_lens_meme.evaluators.superposition.evaluator import Superposition
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
