"""What the report cannot show: one plain sentence each, with the reason and what would make it possible."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.tokens import Tokens
from sae_lens_meme.report.blocks import visible
from sae_lens_meme.row_kind import TOKEN

_WANTED = {
    "concept_alignment": ("which latent is most about which concept", "give the memes labels and evaluate again"),
    "influence": ("what an edit of a latent does to a classifier", "give the memes labels and evaluate again"),
    "naming": ("what latents are called", "give the memes captions or labels and evaluate again"),
    "question_set": (
        "whether picture or caption drives a latent",
        "embed with image and text embeddings, and train the SAE on their fusion",
    ),
    "stability": ("whether a latent reappears with another seed", "evaluate with --stability-seeds 1"),
    "monosemanticity": ("whether the memes of a latent look alike", "evaluate it (--only monosemanticity)"),
    "cross_modal": ("how near picture and caption of a latent's memes are", "embed with image and text embeddings"),
    "subgroups": (
        "whether some memes are treated worse",
        "give the memes labels or groups with at least 20 test memes",
    ),
    "probes": ("what each label's classifier reads from the latents", "give the memes labels and evaluate again"),
}
"""Of each evaluator that the report always speaks of: what it shows, and what it needs."""
_ALSO = {
    "contest": ("what neurons and other simple units recover", "give the memes labels"),
    "confounders": (
        "whether a latent tells apart memes that share picture or caption",
        "add such memes, or give pairs of ids (`evaluate confounders.pairs=FILE`)",
    ),
    "baselines": ("how many pairs random directions find", "give the memes labels"),
    "stock_evals": ("what a classifier loses with the SAE spliced in", "give the memes labels"),
    "cross_concept": ("which concepts share latents", "give the memes two labels or more"),
    "answer_key": ("how far planted factors are found", "only planted memes have an answer key (--answer-key)"),
    "attribution": (
        "whether words and regions are the planted ones",
        "only planted memes have an answer key (--answer-key and --attribution)",
    ),
}
"""Of the others, where they were tried."""


def missing(inputs: ReportInputs) -> dict[str, str]:
    """What is missing, by the thing that is."""
    kind = inputs.memes.row_kind
    return {name: kind.said(line) for name, line in _missing(inputs).items()}


def _missing(inputs: ReportInputs) -> dict[str, str]:
    found: dict[str, str] = {}
    of_tokens = inputs.memes.row_kind == TOKEN
    if inputs.corpus is None:
        found["pictures"] = "Pictures are not shown: no corpus was given (--corpus), only embeddings."
    if not any(caption for caption in inputs.captions):
        found["captions"] = f"Captions are not shown: none of these {inputs.memes.row_kind.all_shown} has one."
    if of_tokens:
        found |= dict(Tokens(inputs).missing())
    elif inputs.attribution is None:
        found["attribution"] = (
            "Words and regions are not marked: no attribution was given (`attribute` makes one, --attribution)."
        )
    if not inputs.memes.label_names:
        found["labels"] = "Labels are not shown: these memes have none."
    skipped = inputs.evaluation["skipped"]
    for name, (what, needs) in _WANTED.items():
        if name not in inputs.tables:
            found[name] = _sentence(what, skipped.get(name, "the evaluation left it out"), needs)
    for name, reason in skipped.items():
        if name not in _WANTED:
            what, needs = _ALSO.get(name, (f"what {name.replace('_', ' ').replace('/', ' with ')} gives", ""))
            found[f"evaluate {name}"] = _sentence(what, reason, needs)
    return found


def _sentence(what: Any, why: str, needs: str) -> str:
    remedy = f"; to change that, {needs}" if needs else ""
    return visible(f"The report cannot say {what}, because {str(why).rstrip('.')}{remedy}.")
