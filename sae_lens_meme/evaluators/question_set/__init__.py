"""What decides a latent, the picture or the caption: a 2x2 of two pictures and two texts (Eric He's Standard Question Set)."""

from sae_lens_meme.evaluators.question_set.answer_key import score_classes, with_conjunctions
from sae_lens_meme.evaluators.question_set.contrasts import Cells, Effects, effects
from sae_lens_meme.evaluators.question_set.evaluator import QuestionSet
from sae_lens_meme.evaluators.question_set.fusion import fuse_through
from sae_lens_meme.evaluators.question_set.items import concept_items

__all__ = [
    "Cells",
    "Effects",
    "QuestionSet",
    "concept_items",
    "effects",
    "fuse_through",
    "score_classes",
    "with_conjunctions",
]
