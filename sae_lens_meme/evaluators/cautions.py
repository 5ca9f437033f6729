"""What an evaluation has left out or assumed, in sentences: printed once, under "What to distrust"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.hooks.names import PLANTED_ENCODERS
from sae_lens_meme.provenance import import_notes, training_rows_known

FEW_COPIES = 0.99
"""Fewer groups than this share of the memes are worth a sentence."""
FEW_TEST_MEMES = 500
"""With fewer, a latent that fires on 1 % of the memes has fewer than five test memes."""


def cautions(sae: Any, embeddings: Embeddings) -> list[str]:
    """About the memes and the SAE; empty where there is nothing to say."""
    of_corpus = embeddings.facts.get("corpus_notes")  # where `embed` read a corpus
    drawn = embeddings.facts.get("model") in PLANTED_ENCODERS
    found = [
        *(["The demo encoder knows only drawn memes: these numbers say nothing about real ones."] if drawn else []),
        *_of_splits(embeddings),
        *_of_left_out(embeddings),
        *_of_groups(embeddings),
        *(
            [f"{line[:1].upper()}{line[1:]}." for line in of_corpus]
            if of_corpus is not None
            else _of_captions(embeddings)
        ),
        *_of_labels(embeddings),
    ]
    of_sae = [import_notes(sae), training_rows_known(sae, embeddings)]
    return found + [line for line in of_sae if line]


def _of_splits(embeddings: Embeddings) -> Iterator[str]:
    split, rows = embeddings.held_out()
    if split is None:
        yield "No memes are held out: every score is measured on memes that the SAE was trained on."
        return
    if split == "validation":
        yield "There are no test memes: scores are measured on validation memes, some of which were also used to choose latents and thresholds."
    if len(rows) < FEW_TEST_MEMES:
        yield f"{len(rows)} {split} memes: intervals for rare latents are unreliable."
    if split == "test" and not len(embeddings.rows("validation")):
        yield (
            "There are no validation memes: thresholds and latents were chosen on train memes."
            if len(embeddings.rows("train"))
            else "There are test memes only: no threshold is chosen, and a latent only on memes that also measure it."
        )


def _of_left_out(embeddings: Embeddings) -> Iterator[str]:
    if n := len(embeddings.left_out):
        yield (
            f"{n:,} held-out memes are left out of validation and test: their group (picture, near picture, caption, "
            "template) is also in an earlier split. Counts over all memes still include them."
        )


def _of_groups(embeddings: Embeddings) -> Iterator[str]:
    """About the memes that scores are measured on; about all memes where only the others have groups."""
    split, rows = embeddings.held_out()
    for what, groups in ((f"{split} memes", embeddings.groups[rows]), ("memes", embeddings.groups)):
        if (n := len(np.unique(groups))) < FEW_COPIES * len(groups):
            yield (
                f"{len(groups):,} {what} are {n:,} group{'s'[: n != 1]} (copies, templates, pairs): intervals and permutations are over "
                "groups, tests of association over one meme per group."
            )
            return


def _of_captions(embeddings: Embeddings) -> Iterator[str]:
    if embeddings.texts is None:
        return
    test = [text for text in embeddings.texts[embeddings.rows("test")] if text]
    shared = sum(text in set_of for set_of in [set(embeddings.texts[embeddings.rows("train")])] for text in test)
    if shared:
        yield f"{shared:,} of {len(test):,} test captions are also in train."


def _of_labels(embeddings: Embeddings) -> Iterator[str]:
    test = embeddings.rows("test")
    untested = [name for name in embeddings.label_names if not np.any(embeddings.label(name).known[test])]
    if len(test) and untested:
        yield f"No test meme has a known label of {', '.join(untested)}: nothing can be said on held-out memes about {'it' if len(untested) == 1 else 'them'}."
