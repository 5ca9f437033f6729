"""Which sections of the report cannot be, and why: a sentence each."""

from __future__ import annotations

from sae_lens_meme.dashboard.inputs import Inputs
from sae_lens_meme.report.blocks import visible

_NEEDED = {
    "concept_alignment": "Bars of concepts",
    "influence": "Bars of what an edit of a latent does to a classifier",
    "naming": "Names of latents",
    "question_set": "Whether picture or caption drives a latent",
    "stability": "Whether a latent comes again with another seed",
    "monosemanticity": "Whether the memes of a latent look alike",
    "cross_modal": "The cross-modal weight of a latent",
}


def missing(inputs: Inputs) -> dict[str, str]:
    """What is missing, by the thing that is."""
    found: dict[str, str] = {}
    if inputs.corpus is None:
        found["pictures"] = "Pictures are not shown: no corpus was given (--corpus), only embeddings."
    if not any(caption for caption in inputs.captions):
        found["captions"] = "Captions are not shown: none of these memes has one."
    if inputs.attribution is None:
        found["attribution"] = (
            "Words and regions are not marked: no attribution was given (`attribute` makes one, --attribution)."
        )
    if not inputs.memes.label_names:
        found["labels"] = "Labels are not shown: these memes have none."
    skipped = inputs.evaluation["skipped"]
    for name, what in _NEEDED.items():
        if name not in inputs.tables:
            reason = visible(skipped.get(name, "the evaluation left it out")).rstrip(".")
            found[name] = f"{what}: not measured ({reason})."
    return found
