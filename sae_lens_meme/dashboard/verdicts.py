"""Plain verdicts: on the name of a latent, on the best latent of a concept, and which classifiers use a latent."""

from __future__ import annotations

from typing import Any, NamedTuple

from sae_lens_meme.dashboard.words import Words
from sae_lens_meme.evaluators.naming.compute import LEAST_AUROC
from sae_lens_meme.report.blocks import number

CHANCE = 0.5
"""AUROC of guessing: a latent whose interval holds it is not about the concept."""
GOOD, WEAK, REFUTED, UNTESTED, NONE = "good name", "weak name", "unsupported name", "untested name", "no name"
CLEARLY, WEAKLY, NONE_FOUND, NOT_MEASURED = "clearly", "weakly", "none found", "not measured"
"""How well the best latent of a concept tells it."""
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
            REFUTED,
            "on held-out memes it is not shown to say better than chance which memes fire the latent: do not rely on it",
        )
    if naming["auroc"] < LEAST_AUROC:
        return Verdict(
            WEAK, f"it says which memes fire the latent better than chance, but with an AUROC under {LEAST_AUROC:g}"
        )
    if concept is not None and concept.get("f1_test") is None:
        return Verdict(
            WEAK,
            f"it says which memes fire the latent; whether the latent finds those with {words(naming['name'])} was not measured",
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
    if best["auroc_low"] is None:
        return NOT_MEASURED, "unknown"
    if best["auroc_low"] <= CHANCE:
        return NONE_FOUND, "poor"
    return (CLEARLY, "good") if beats_always_on(best) else (WEAKLY, "fact")


def beats_always_on(row: Row) -> bool:
    """Whether the latent is a better detector of the concept than one that fires on every meme."""
    f1, always = row.get("f1_test"), row.get("f1_always_on")
    return f1 is not None and always is not None and f1 > always


USED = (
    "The classifier of a label uses a latent where taking the latent out changes the probability of its class by more than "
    "the largest step of any latent in a random direction and more than latents that fire as often; the end of the 95 % "
    "interval nearer to no change counts."
)


class Use(NamedTuple):
    """What an edit of a latent does to the classifier of one label."""

    label: str
    level: str
    """The class whose probability is read."""
    change: float
    control: float
    """The largest of the controls."""
    row: Row

    @property
    def beats(self) -> bool:
        """Not where random steps were not measured: a change without its control shows nothing."""
        return self.row.get("largest_random") is not None and least_change(self.row) > self.control

    @property
    def measured(self) -> str:
        return f"{signed(self.change)}, controls {number(self.control)}"


def uses(effects: list[Row]) -> list[Use]:
    """Of each label whose change was measured, in the order of the table."""
    return [use_of(row) for row in effects if row["kind"] == "ablation" and row.get("delta_all") is not None]


def use_of(row: Row) -> Use:
    """Of one row of `influence`, with `largest_random` of its edit and class."""
    control = max(row.get(name) or 0.0 for name in ("largest_random", "delta_matched"))
    return Use(str(row["task"]), str(row["class"]), row["delta_all"], control, row)


def least_change(row: Row) -> float:
    """The end of the interval that is nearer to no change; 0 where the interval holds no change."""
    low, high = row.get("delta_all_low"), row.get("delta_all_high")
    if low is None or high is None:
        return 0.0
    return 0.0 if low <= 0 <= high else min(abs(low), abs(high))


def signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number(abs(value))}"
