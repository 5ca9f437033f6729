"""Evaluators: each takes an SAE and embeddings, offline or as SAELens' evaluator callable."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "AnswerKeyScores": "sae_lens_meme.evaluators.answer_key",
    "Baselines": "sae_lens_meme.evaluators.concept_alignment.baselines",
    "ConceptAlignment": "sae_lens_meme.evaluators.concept_alignment",
    "CrossModal": "sae_lens_meme.evaluators.cross_modal",
    "Evaluator": "sae_lens_meme.evaluators.base",
    "Influence": "sae_lens_meme.evaluators.influence",
    "Latents": "sae_lens_meme.evaluators.latents",
    "Monosemanticity": "sae_lens_meme.evaluators.monosemanticity",
    "Naming": "sae_lens_meme.evaluators.naming",
    "Probes": "sae_lens_meme.evaluators.probes",
    "QuestionSet": "sae_lens_meme.evaluators.question_set",
    "Reconstruction": "sae_lens_meme.evaluators.reconstruction",
    "Result": "sae_lens_meme.evaluators.result",
    "Stability": "sae_lens_meme.evaluators.stability",
    "StockEvals": "sae_lens_meme.evaluators.stock",
    "encode": "sae_lens_meme.evaluators.latents",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """numba and scikit-learn take seconds to import: nothing does so before it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
