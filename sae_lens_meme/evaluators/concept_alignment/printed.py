"""The table of pairs, and what the printed rows of the best latents say."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.concept_alignment.compute import PROTOCOLS, Pairs
from sae_lens_meme.evaluators.concept_alignment.quantities import BEST, COLUMNS, HELD_OUT, NOT_HELD_OUT
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.result import Section, nullable
from sae_lens_meme.labels import SPLITS
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN


def pairs_table(pairs: Pairs) -> pd.DataFrame:
    """One row per pair, null where undefined, ordered by latent and then by concept."""
    latents, concepts = pairs.log_p.shape
    names = pd.Categorical.from_codes(np.tile(np.arange(concepts), latents), categories=list(pairs.concepts))
    fixed = {
        "latent": np.repeat(np.arange(latents), concepts),
        "concept": names,
        "protocol": pd.Categorical([pairs.protocol] * (latents * concepts), categories=list(PROTOCOLS)),
        "threshold_split": pd.array(pairs.threshold_splits * latents, dtype="string"),
    }
    return pd.DataFrame({c: fixed[c] if c in fixed else nullable(pairs.columns[c]) for c in COLUMNS})


def section_of_best(pairs: Pairs, hidden: list[str]) -> Section:
    """The note says which split chose, and which concepts have nothing to show."""
    on_train = [name for name, split in zip(pairs.concepts, pairs.threshold_splits, strict=True) if split == "train"]
    chosen = "validation memes"
    if on_train and "validation" not in pairs.threshold_splits:
        chosen = "train memes (no concept is true of a validation meme)"
    elif on_train:
        chosen += f" (train memes for {_listed(on_train)}: true of no validation meme)"
    note = (
        f"latent and threshold chosen on {chosen}; always on: a latent that fires on every meme; source only: the best rule "
        "that reads nothing but the source; chosen: F1 on the memes that chose; what it loses on test memes is selection (as in "
        "random splits of the same memes) and shift (between these two splits); AUROC: of that latent, within source"
    )
    note += f". Not shown, as no latent can be chosen: {_listed(hidden)}" if hidden else ""
    return Section(
        "Concepts: F1 on test memes of the best latent of each concept",
        note,
        "F1, test memes (AUROC: of the same latent)",
    )


def label_of(pairs: Pairs, concept: str, latent: int | None, labels: ConceptLabels, c: int) -> str:
    known, codes = labels.known[:, c] != UNKNOWN, labels.test_codes()[:, c]
    tested = "" if known[labels.splits == "test"].any() else f"; label known for {_by_split(known, labels)}"
    if not tested and pairs.columns["few"][0, c]:
        true, false = (int((codes == code).sum()) for code in (TRUE, FALSE))
        tested = f"; few: {true} true, {false} false"
    return f"{concept} ({'no latent' if latent is None else f'latent {latent}'}{tested})"


def why_undefined(pairs: Pairs, labels: ConceptLabels, c: int) -> dict[str, str]:
    """By name of a score of the best latent."""
    if pairs.protocol == "published":
        return {name: NOT_HELD_OUT if name in HELD_OUT else "the concept is true of no meme" for name in BEST}
    known, true = (_by_split(labels.known[:, c] >= code, labels) for code in (FALSE, TRUE))
    counts = f"the label is known for {known}; the concept is true of {true}"
    needs = {
        "f1_validation": "a threshold needs a true validation or train meme, and a latent that fires on one with a label",
        "f1_always_on": "a test score needs true test memes",
        "auroc": "an AUROC needs true and false test memes of one source, and a latent that has a threshold",
    }
    f1 = "a test score needs true test memes, and a latent that has a threshold"
    return {name: f"{counts}: {needs.get(name, f1)}" for name in BEST}


def _by_split(rows: np.ndarray, labels: ConceptLabels) -> str:
    return ", ".join(f"{int(rows[labels.splits == split].sum()):,} {split}" for split in SPLITS) + " memes"


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
