"""Planted memes only: latents against the factors that the memes were made from."""

from sae_lens_meme.evaluators.answer_key.classes import MIN_AUROC, score_classes, with_conjunctions
from sae_lens_meme.evaluators.answer_key.evaluator import AnswerKeyScores
from sae_lens_meme.evaluators.answer_key.factors import planted_values, score_answer_key

__all__ = ["MIN_AUROC", "AnswerKeyScores", "planted_values", "score_answer_key", "score_classes", "with_conjunctions"]
