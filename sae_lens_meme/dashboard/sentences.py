"""What the tables say about one latent, as answers to a reader's questions. Each sentence contains its control."""

from __future__ import annotations

from typing import Any, NamedTuple

from sae_lens_meme.dashboard.verdicts import Use, Verdict, signed, uses
from sae_lens_meme.dashboard.words import Words, listed, several
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.report.blocks import number, visible

DENSE = 0.1
"""A latent that fires on a larger share of the memes is called dense: SAEBench's bound."""

_SIDES = {IMAGE_EMBED: "Pictures", TEXT_EMBED: "Captions", "cross_modal": "Pictures with captions"}

Row = dict[str, Any]


class Answer(NamedTuple):
    """`tone` is good, poor or unknown: whether the control is beaten; or fact, where there is nothing to beat."""

    question: str
    text: str
    tone: str


def about(naming: Row | None, verdict: Verdict, words: Words) -> Answer:
    """The name, one verdict on it, and the numbers behind it."""
    question = "What is it about?"
    if naming is None:
        return Answer(question, f"Not measured: {verdict.reason}.", "unknown")
    if not naming.get("name"):
        return Answer(question, _sentence(f"Nothing that we could name: {verdict.reason}"), verdict.tone)
    name = f"“{words(naming['name'])}”, {'a word of captions' if naming.get('kind') == 'word' else 'a label'}."
    said = _sentence(f"{verdict.word[:1].upper()}{verdict.word[1:]}: {verdict.reason}")
    if naming.get("auroc") is None:
        return Answer(question, f"{name} {said}", verdict.tone)
    evidence = (
        f"From the name to the latent: AUROC {number(naming['auroc'])}{_interval(naming, 'auroc')} on "
        f"{several(int(naming['n']), 'held-out meme')}, where guessing gives 0.5; q {chance(naming.get('q'))}."
    )
    return Answer(question, f"{name} {said} {evidence}", verdict.tone)


def frequency(firing: int, n: int, largest: float) -> Answer:
    question = "How often does it fire?"
    if not firing:
        return Answer(question, f"Never: it is dead on these {several(n, 'meme')}.", "poor")
    text = f"On {firing:,} of {several(n, 'meme')} ({firing / n:.1%}), at most with {number(largest)}."
    if firing / n > DENSE:
        text = f"{text} It is dense: over {DENSE:.0%} of the memes fire it, which is not a fault."
    return Answer(question, text, "fact")


def drives(row: Row | None) -> Answer:
    question = "What drives it?"
    if row is None or row.get("image_share") is None:
        reason = (row or {}).get("reason") or "whether picture or caption decides it was not measured"
        return Answer(question, _sentence(f"Not known: {reason}"), "unknown")
    kinds = {
        "visual": "The picture",
        "textual": "The caption",
        "cross-modal": "Picture and caption together",
    }
    share = (
        f"of its change when captions are exchanged the picture explains {number(row['image_share'])}, the caption "
        f"{number(row['text_share'])}, only both together {number(row['interaction_share'])}"
    )
    if row.get("class") not in kinds:
        return Answer(question, f"Undecided: {share}.", "unknown")
    binds = ""
    if row["class"] == "cross-modal":
        binds = (
            ", and it binds one feature of each"
            if row.get("binds")
            else "; no single feature of each is bound, which random directions look like too"
        )
    return Answer(
        question, f"{kinds[row['class']]}: {share}{binds}.", "fact" if not binds or row.get("binds") else "poor"
    )


def used(effects: list[Row], words: Words) -> Answer:
    """`effects`: the published row of each label; the control of each beside it."""
    question = "Which classifiers use it?"
    found = uses(effects)
    if not found:
        return Answer(question, "Not measured: no ablation in this evaluation.", "unknown")
    using = [use for use in found if use.beats]
    shown = max(using or found, key=lambda use: abs(use.change))
    row = shown.row
    effect = (
        f"Taking it out changes the probability of {words(f'{shown.label}={shown.level}')} by {signed(shown.change)}"
        f"{_interval(row, 'delta_all')} over {several(int(row['n']), 'meme')}; as large a step in a random direction changes "
        f"it by {number(row.get('delta_random'))} (the largest of any latent's: {number(row.get('largest_random'))}), a "
        f"latent that fires as often by {number(row.get('delta_matched'))}."
    )
    if not using:
        return Answer(
            question,
            f"None of {several(len(found), 'label')}: it is not shown to move more than the controls. {effect}",
            "poor",
        )
    others = [visible(use.label) for use in found if not use.beats]
    rest = f", not {listed(others)}" if others else ""
    return Answer(question, f"{_of(using)}{rest}. {effect}", "good")


def _of(using: list[Use]) -> str:
    which = listed([visible(use.label) for use in using])
    return f"{'That' if len(using) == 1 else 'Those'} of {which}"


def again(row: Row | None) -> Answer:
    question = "Does it reappear with another seed?"
    if row is not None and row.get("alive") is False:
        return Answer(question, "Not measured: it is dead, and only living latents are compared.", "unknown")
    if row is None or row.get("stable") is None:
        return Answer(question, "Not measured: no SAE with another seed was compared.", "unknown")
    text = f"the cosine of its decoder with its partner is {number(row.get('mean_cosine'))} on average over other runs (0 in one without a partner), where 0.7 counts as the same"
    if row.get("mean_cosine") is None:
        text = "no latent of another SAE is left to be its partner"
    if row["stable"]:
        return Answer(question, f"Yes: {text}.", "good")
    return Answer(question, f"No: {text}. Another training run would give other latents here.", "poor")


def alike(rows: list[Row]) -> Answer:
    """Each side by itself: a latent of pictures need not fire on captions that are alike."""
    question = "Do its memes look alike?"
    known = [row for row in rows if row.get("ms") is not None]
    if not known:
        reason = rows[0].get("reason") if rows else "monosemanticity was not measured"
        return Answer(question, _sentence(f"Not known: {reason or 'too few memes fire it'}"), "unknown")
    beaten = [row.get("q") is not None and row["q"] < 0.05 for row in known]
    parts = [
        f"{_SIDES.get(str(row['reference']), visible(str(row['reference'])))}: {'yes' if more else 'not shown'}, mean "
        f"cosine {number(row['ms'])} (chance within source {number(row.get('chance_within_source'))}, q {chance(row.get('q'))})"
        for row, more in zip(known, beaten, strict=True)
    ]
    return Answer(question, f"{'; '.join(parts)}.", "good" if all(beaten) else "fact" if any(beaten) else "poor")


def chance(q: float | None) -> str:
    """A p- or q-value; the smallest float is not shown as zero."""
    return "below 1e-300" if q == 0 else number(q)


def _interval(row: Row, name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None:
        return ""
    show = signed if name.startswith("delta") else number
    return f" ({show(low)} to {show(high)})"


def _sentence(text: str) -> str:
    return visible(text).rstrip(".") + "."
