"""What the tables say of one latent, as answers to the questions that a reader has. Each control stands in its sentence."""

from __future__ import annotations

from typing import Any, NamedTuple

from sae_lens_meme.report.blocks import number, visible

DENSE = 0.1
"""A latent that fires on a larger share of the memes is called dense: SAEBench's bound."""

Row = dict[str, Any]


class Answer(NamedTuple):
    """`tone` is good, poor or unknown: whether the control is beaten; or fact, where there is nothing to beat."""

    question: str
    text: str
    tone: str


def about(naming: Row | None) -> Answer:
    question = "What is it about?"
    if naming is None:
        return Answer(question, "Not measured: latents were not named in this evaluation.", "unknown")
    if not naming.get("name"):
        return Answer(
            question, _sentence(f"Nothing that we could name: {naming.get('reason') or 'no candidate'}"), "poor"
        )
    name = f"“{visible(naming['name'])}” ({naming.get('kind') or 'name'})."
    if naming.get("auroc") is None:
        return Answer(question, f"{name} The held-out memes allow no test of this name.", "unknown")
    evidence = (
        f"On {number(naming['n'])} held-out memes it tells which fire with AUROC {number(naming['auroc'])}"
        f"{_interval(naming, 'auroc')}, where guessing gives 0.5; q {chance(naming.get('q'))}."
    )
    if naming.get("holds"):
        return Answer(question, f"{name} {evidence} The name holds, as far as this AUROC goes.", "good")
    return Answer(question, f"{name} {evidence} The name does not hold: do not use it.", "poor")


def frequency(firing: int, n: int, largest: float) -> Answer:
    question = "How often does it fire?"
    if not firing:
        return Answer(question, f"Never: it is dead on these {n:,} memes.", "poor")
    text = f"On {firing:,} of {n:,} memes ({firing / n:.1%}), at most with {number(largest)}."
    if firing / n > DENSE:
        text = f"{text} It is dense: over {DENSE:.0%} of the memes fire it."
    return Answer(question, text, "fact")


def drives(row: Row | None) -> Answer:
    question = "What drives it?"
    if row is None or row.get("image_share") is None:
        reason = (row or {}).get("reason") or "the question of picture or caption was not asked of it"
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


def used(effects: list[Row]) -> Answer:
    """`effects`: the published row of each task for ablation; the control of each beside it."""
    question = "Does a classifier use it?"
    ablations = [row for row in effects if row["kind"] == "ablation" and row.get("delta_all") is not None]
    if not ablations:
        return Answer(question, "Not measured: no ablation in this evaluation.", "unknown")
    beating = [
        row
        for row in ablations
        if least_change(row) > max(row.get(name) or 0.0 for name in ("largest_random", "delta_matched"))
    ]
    shown = max(beating or ablations, key=lambda row: abs(row["delta_all"]))
    effect = (
        f"Taking it out changes the probability of {visible(shown['task'])}={visible(shown['class'])} by "
        f"{signed(shown['delta_all'])}{_interval(shown, 'delta_all')} over {number(shown['n'])} memes; as large a step in "
        f"a random direction changes it by {number(shown.get('delta_random'))} (the largest of any latent's: "
        f"{number(shown.get('largest_random'))}), a latent that fires as often by {number(shown.get('delta_matched'))}"
    )
    if beating:
        others = sorted({visible(row["task"]) for row in beating} - {visible(shown["task"])})
        more = f" Also {', '.join(others)}." if others else ""
        return Answer(question, f"Yes. {effect}.{more}", "good")
    return Answer(question, f"No more than chance. {effect}.", "poor")


def again(row: Row | None) -> Answer:
    question = "Does it come again with another seed?"
    if row is None or row.get("stable") is None:
        return Answer(question, "Not measured: no SAE with another seed was compared.", "unknown")
    text = f"its best partner has a decoder at cosine {number(row.get('mean_cosine'))}, where 0.7 counts as the same"
    if row["stable"]:
        return Answer(question, f"Yes: {text}.", "good")
    return Answer(question, f"No: {text}. Another training run would give other latents here.", "poor")


def alike(rows: list[Row]) -> Answer:
    question = "Do its memes look alike?"
    known = [row for row in rows if row.get("ms") is not None]
    if not known:
        reason = rows[0].get("reason") if rows else "monosemanticity was not measured"
        return Answer(question, _sentence(f"Not known: {reason or 'too few memes fire it'}"), "unknown")
    parts = [
        f"{visible(str(row['reference']).removeprefix('hook_').replace('_', ' '))} {number(row['ms'])} "
        f"(chance within source {number(row.get('chance_within_source'))}, q {chance(row.get('q'))})"
        for row in known
    ]
    beaten = [row for row in known if row.get("q") is not None and row["q"] < 0.05]
    text = f"Mean cosine of memes that fire it: {'; '.join(parts)}."
    return Answer(
        question, f"{'More than chance' if beaten else 'No more than chance'}. {text}", "good" if beaten else "poor"
    )


def chance(q: float | None) -> str:
    """A p- or q-value; the smallest float is no zero."""
    return "below 1e-300" if q == 0 else number(q)


def signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number(abs(value))}"


def least_change(row: Row) -> float:
    """The end of the interval that is nearer to no change; 0 where the interval holds no change."""
    low, high = row.get("delta_all_low"), row.get("delta_all_high")
    if low is None or high is None:
        return 0.0
    return 0.0 if low <= 0 <= high else min(abs(low), abs(high))


def _interval(row: Row, name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None:
        return ""
    show = signed if name.startswith("delta") else number
    return f" ({show(low)} to {show(high)})"


def _sentence(text: str) -> str:
    return visible(text).rstrip(".") + "."
