"""One plain verdict on the name of a latent, and one on the best latent of a concept, each with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

from sae_lens_meme.dashboard.words import Words
from sae_lens_meme.evaluators.naming.compute import LEAST_AUROC
from sae_lens_meme.report.blocks import number

CHANCE = 0.5
"""AUROC of guessing: a latent whose interval holds it is not about the concept."""
GOOD, WEAK, REFUTED, UNTESTED, NONE = "good name", "weak name", "unsupported name", "untested name", "no name"
TONES = {GOOD: "good", WEAK: "fact", REFUTED: "poor", UNTESTED: "unknown", NONE: "poor"}

Row = dict[str, Any]


class Verdict(NamedTuple):
    word: str
    reason: str
    """Without a full stop."""

    @property
    def tone(self) -> str:
        return TONES[self.word]


def of_name(naming: Row | None, concept: Row | None, words: Words) -> Verdict:
    """
    Args:
        naming: the latent's row of `naming`.
        concept: where a concept is its name, their row of `concept_alignment`.
    """
    if naming is None:
        return Verdict(NONE, "latents were not named in this evaluation")
    if not naming.get("name"):
        return Verdict(NONE, naming.get("reason") or "nothing fits")
    if naming.get("auroc") is None:
        return Verdict(UNTESTED, "the held-out memes allow no test of it")
    if not naming.get("holds"):
        return Verdict(
            REFUTED, "on held-out memes it says no better than chance which memes fire the latent: do not use it"
        )
    if naming["auroc"] < LEAST_AUROC:
        return Verdict(
            WEAK, f"it says which memes fire the latent better than chance, but with an AUROC under {LEAST_AUROC:g}"
        )
    if concept is not None and not beats_always_on(concept):
        return Verdict(
            WEAK,
            f"it says which memes fire the latent, but the latent does not find the memes with {words(naming['name'])}: "
            f"its F1 of {number(concept.get('f1_test'))} is no better than {number(concept.get('f1_always_on'))} of always "
            "saying yes",
        )
    return Verdict(GOOD, "it says on held-out memes which of them fire the latent")


def of_concept(best: Row) -> tuple[str, str]:
    """How well a latent tells the memes with a concept from those without: a word, and its tone."""
    if (best["auroc_low"] or 0) <= CHANCE:
        return "none found", "poor"
    return ("clearly", "good") if beats_always_on(best) else ("weakly", "fact")


def beats_always_on(row: Row) -> bool:
    """Whether the latent is a better detector of the concept than one that fires on every meme."""
    f1, always = row.get("f1_test"), row.get("f1_always_on")
    return f1 is not None and always is not None and f1 > always
