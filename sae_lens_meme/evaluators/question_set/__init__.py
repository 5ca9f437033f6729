"""What decides a latent, the picture or the caption: a 2x2 of two pictures and two texts (Eric He's Standard Question Set)."""

from sae_lens_meme.evaluators.question_set.answers import answer_changes
from sae_lens_meme.evaluators.question_set.binding import concentration
from sae_lens_meme.evaluators.question_set.compute import (
    CLASSES,
    Cells,
    TwoByTwo,
    class_codes,
    effects,
    variance_shares,
)
from sae_lens_meme.evaluators.question_set.evaluator import QuestionSet, cells_of, permuted_within_items
from sae_lens_meme.evaluators.question_set.grid import (
    Grid,
    ask,
    grid_items,
    grid_shares,
    read_questions,
    standard_question_set,
)
from sae_lens_meme.evaluators.question_set.hooked import hooked_activations, hooked_answers, hooked_latents
from sae_lens_meme.evaluators.question_set.items import concept_items, fused_items, random_items
from sae_lens_meme.evaluators.question_set.quantities import table_of

__all__ = [
    "CLASSES",
    "Cells",
    "Grid",
    "QuestionSet",
    "TwoByTwo",
    "answer_changes",
    "ask",
    "cells_of",
    "class_codes",
    "concentration",
    "concept_items",
    "effects",
    "fused_items",
    "grid_items",
    "grid_shares",
    "hooked_activations",
    "hooked_answers",
    "hooked_latents",
    "permuted_within_items",
    "random_items",
    "read_questions",
    "standard_question_set",
    "table_of",
    "variance_shares",
]
