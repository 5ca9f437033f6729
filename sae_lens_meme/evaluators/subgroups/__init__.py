"""Auditing: whether a classifier treats the memes of a subgroup worse, and which latents carry the difference."""

from sae_lens_meme.evaluators.subgroups.compute import Ablated, Audit, ablated, audit, carried, gap_log_p, matched_draws
from sae_lens_meme.evaluators.subgroups.evaluator import Subgroups
from sae_lens_meme.evaluators.subgroups.questions import (
    AuditQuestion,
    Subgroup,
    caption_holds,
    questions_of,
    subgroups_of,
)

__all__ = [
    "Ablated",
    "Audit",
    "AuditQuestion",
    "Subgroup",
    "Subgroups",
    "ablated",
    "audit",
    "caption_holds",
    "carried",
    "gap_log_p",
    "matched_draws",
    "questions_of",
    "subgroups_of",
]
