"""What to distrust, the most unflattering first, and what the report cannot show: a plain sentence each, from the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.latents import LatentPages
from sae_lens_meme.dashboard.tokens import Tokens
from sae_lens_meme.dashboard.verdicts import (
    GOOD,
    NONE,
    NONE_FOUND,
    NOT_MEASURED,
    REFUTED,
    TONES,
    UNTESTED,
    WEAK,
    WEAKLY,
)
from sae_lens_meme.dashboard.words import Words, listed, several
from sae_lens_meme.evaluators.contest.quantities import NAMES, PERMUTED, PROBE, RANDOM_LATENTS, SAE
from sae_lens_meme.report.blocks import number, visible
from sae_lens_meme.row_kind import TOKEN

FEW = 100
"""A label with fewer held-out memes gives rough numbers."""
STILL_RISING = 0.005
"""Explained variance of the validation memes that the last tenth of training still adds to an SAE that had not converged."""
TARGETS = {"labels": "the best single unit for a label", "planted": "the best single unit for a planted value"}

_NAMES = {word: word if word == NONE else f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in TONES}


def doubts(inputs: ReportInputs, latents: LatentPages, glance: list[dict[str, Any]]) -> list[str]:
    """Of the memes, of the controls, of the SAE, of the names and of the groups, in this order."""
    found = [
        *(line if line.endswith(".") else f"{line}." for line in inputs.evaluation.get("warnings", [])),
        *_controls(inputs),
        *_concepts(glance),
        *_training(inputs, latents),
        *_names(latents),
        *_groups(inputs, latents.words),
    ]
    return [visible(latents.words.kind.said(latents.words.shown(line))) for line in found]


def _controls(inputs: ReportInputs) -> Iterator[str]:
    """Simpler things that do as well, and controls that were weaker than they could be."""
    for group, what in TARGETS.items():
        ahead, level = _rivals(_numbers(inputs, "contest"), group)
        if ahead:
            yield f"Simpler units do better than the SAE: in {what}, {listed(ahead)} lead it."
        if level:
            yield f"Simpler units do as well as the SAE: in {what}, {listed(level)} cannot be told from it."
    shares = {
        name: _numbers(inputs, "baselines").get(f"corrected/{name}/share_of_tests_global")
        for name in ("sae", "random_topk")
    }
    ours, random = shares.values()
    if ours is not None and random is not None and random >= ours:
        yield (
            f"Counts of significant latents say nothing here: of random directions {random:.0%} of the pairs with a concept "
            f"are significant, of the SAE's latents {ours:.0%}."
        )
    if _numbers(inputs, "baselines").get("ica/converged") == 0:
        yield "The rival ICA did not converge: a comparison with it flatters the SAE."
    if _numbers(inputs, "monosemanticity").get("reference_is_independent") == 0:
        yield "Whether the memes of a latent look alike was judged by the encoder that the SAE reads: this is not independent evidence."


def _rivals(numbers: dict[str, Any], group: str) -> tuple[list[str], list[str]]:
    """Those that lead the SAE, and those whose interval of the difference holds 0."""
    ahead, level = [], []
    for name, called in NAMES.items():
        low, high = (numbers.get(f"{group}/auroc/sae_minus_{name}_{end}") for end in ("low", "high"))
        if name in (SAE, PROBE, PERMUTED, RANDOM_LATENTS) or low is None or high is None:
            continue
        if high < 0:
            ahead.append(called)
        elif low <= 0:
            level.append(called)
    return ahead, level


def _concepts(glance: list[dict[str, Any]]) -> Iterator[str]:
    words = {
        NONE_FOUND: "No latent is found for",
        NOT_MEASURED: "Too few test memes say whether a latent is about",
        WEAKLY: "Only weakly is a latent about",
    }
    for word, said in words.items():
        which = [row["concept"] for row in glance if row["sure"] == word]
        if which:
            yield f"{said} {len(which)} of {several(len(glance), 'concept')}: {listed(which)}."


def _training(inputs: ReportInputs, latents: LatentPages) -> Iterator[str]:
    gained = still_rising(inputs.training)
    if gained is not None and gained > STILL_RISING:
        yield (
            f"The SAE had not converged: the last tenth of its training still added {gained:.1%} of explained variance on "
            "validation memes."
        )
    if dead := int((latents.firing == 0).sum()):
        yield f"{several(dead, 'latent')} of {latents.d_sae:,} {'is' if dead == 1 else 'are'} dead: no meme fires {'it' if dead == 1 else 'them'}."
    if (stability := latents.tables.get("stability")) is not None:
        known = [stable for stable in stability.column("stable") if stable is not None]
        gone = known.count(False)
        if gone:
            yield f"{gone / len(known):.0%} of {several(len(known), 'latent')} do not reappear when the SAE is trained with another seed."


def still_rising(log: list[dict[str, Any]]) -> float | None:
    """How much explained variance of validation memes the last tenth of training added; None where too short to say."""
    curve = [epoch.get("validation_explained_variance") for epoch in log]
    values = np.array([np.nan if value is None else value for value in curve], dtype=float)
    if len(values) < 10 or not np.isfinite(values).all():
        return None
    return float(values[-1] - values[-1 - len(values) // 10])


def _names(latents: LatentPages) -> Iterator[str]:
    if "naming" not in latents.tables:
        return
    alive = [verdict.word for verdict, fires in zip(latents.verdicts, latents.firing, strict=True) if fires]
    if any(word != GOOD for word in alive):
        count = {word: alive.count(word) for word in (GOOD, WEAK, REFUTED, UNTESTED, NONE)}
        each = [f"{n:,} {'has' if n == 1 else 'have'} {_NAMES[word]}" for word, n in count.items() if n or word == GOOD]
        yield f"Of {several(len(alive), 'latent')} that fire, {listed(each)}."


def _groups(inputs: ReportInputs, words: Words) -> Iterator[str]:
    probes = inputs.table("probes")
    if probes is not None and {"space", "task", "n_held_out"} <= set(probes.columns):
        mine = probes.loc[(probes["space"] == "latents") & (probes["n_held_out"] < FEW), :]
        few = [f"{row['task']} ({several(int(row['n_held_out']), 'meme')})" for row in mine.to_dict("records")]
        if few:
            yield f"Few held-out memes have a label, and its numbers are rough: {listed(few)}."
    pairs = audited(inputs)
    if pairs is not None and (undefined := int(pairs["fpr_gap"].isna().sum())):
        yield (
            f"For {undefined:,} of {several(len(pairs), 'pair')} of classifier and group it is not known whether the group is "
            "treated worse: too few of its memes are held out."
        )


def _numbers(inputs: ReportInputs, evaluator: str) -> dict[str, Any]:
    return inputs.evaluation["results"].get(evaluator, {}).get("numbers", {})


ALPHA = 0.05
MOST = 5
_NEEDED = {
    "question",
    "subgroup",
    "n_ablated",
    "q",
    "fpr_gap",
    "fpr_gap_within_source",
    "fpr_subgroup",
    "fpr_background",
}


def audited(inputs: ReportInputs) -> pd.DataFrame | None:
    """A row per pair of classifier and group, nothing taken out; None where no audit was made."""
    table = inputs.table("subgroups")
    if table is None or not set(table.columns) >= _NEEDED:
        return None
    return table.loc[table["n_ablated"] == 0, :]


def treated_worse(inputs: ReportInputs, words: Words) -> list[str]:
    """A sentence per group that is flagged wrongly more often than the others of its source, the largest gap first."""
    pairs = audited(inputs)
    if pairs is None:
        return []
    known = pairs.loc[pairs["fpr_gap"].notna(), :]
    # q is of the gap within source; a group that is a source has none
    known = known.assign(tested=known["fpr_gap_within_source"].fillna(known["fpr_gap"]).astype(float))
    worse = known.loc[(known["q"] < ALPHA) & (known["tested"] > 0), :]
    worse = worse.sort_values("tested", ascending=False, kind="stable")
    if not len(worse):
        if not len(known):
            return ["Nothing can be said: no group has enough memes."]
        n = _numbers(inputs, "subgroups").get("n_pairs", len(known))  # two groups, each outside of the other, are one
        return [
            f"No group is shown to be treated worse: of {several(n, 'comparison')} none has q under {ALPHA:g} "
            "and more wrong flags in the group than outside."
        ]
    found = [_sentence(row, inputs, words) for row in worse.head(MOST).to_dict("records")]
    if len(worse) > MOST:
        found.append(f"{several(len(worse) - MOST, 'smaller gap')} more: see Measures.")
    return found


def _sentence(row: dict[str, Any], inputs: ReportInputs, words: Words) -> str:
    q = "below 1e-6" if row["q"] < 1e-6 else number(float(row["q"]))
    within, pooled = f"; among memes of one source the gap is {row['tested']:.2f}", " over all sources"
    if pd.isna(row["fpr_gap_within_source"]):
        within = pooled = ""
    said = (
        f"Memes with {words(str(row['subgroup']))} are treated worse: where {words(str(row['question']))} is not true of "
        f"them, the classifier says it of {row['fpr_subgroup']:.0%} (of {several(int(row['n_subgroup_negative']), 'test meme')}), "
        f"and of {row['fpr_background']:.0%} of such memes outside the group{within}; q {q}."
    )
    edit = _taken_out(row, inputs)
    if edit is None:
        return said
    return (
        f"{said} Without the {several(int(edit['n_ablated']), 'latent')} that carry most of it ({edit['latents']}) the gap of "
        f"{row['fpr_gap']:.2f}{pooled} shrinks by {edit['closed']:.2f}, without as many like them by {edit['closed_matched']:.2f}."
    )


def _taken_out(row: dict[str, Any], inputs: ReportInputs) -> dict[str, Any] | None:
    """The edit of about five latents, if one was measured."""
    table: Any = inputs.table("subgroups")
    if not {"closed", "closed_matched"} <= set(table.columns):
        return None
    same = table[(table["question"] == row["question"]) & (table["subgroup"] == row["subgroup"])]
    edits = same[same["closed"].notna() & same["closed_matched"].notna()].to_dict("records")
    return min(edits, key=lambda edit: abs(edit["n_ablated"] - 5), default=None)


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
        if name in skipped:
            found[name] = _cannot_say(what, skipped[name], needs)
        elif name not in inputs.tables:
            found[name] = _cannot_say(what, "the evaluation left it out", f"evaluate it (--only {name})")
        elif name == "concept_alignment" and inputs.alignment is None:
            why = "the published protocol, which holds no memes out, was measured alone"
            found[name] = _cannot_say(what, why, "evaluate with concept_alignment.protocol=both")
    for name, reason in skipped.items():
        if name not in _WANTED:
            what, needs = _ALSO.get(name, (f"what {name.replace('_', ' ').replace('/', ' with ')} gives", ""))
            found[f"evaluate {name}"] = _cannot_say(what, reason, needs)
    return found


def _cannot_say(what: Any, why: str, needs: str) -> str:
    remedy = f"; to change that, {needs}" if needs else ""
    return visible(f"The report cannot say {what}, because {str(why).rstrip('.')}{remedy}.")
