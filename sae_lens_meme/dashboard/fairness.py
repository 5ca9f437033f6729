"""Which memes are treated worse, in plain sentences derived from the audit of subgroups."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.words import Words, several
from sae_lens_meme.report.blocks import number

ALPHA = 0.05
MOST = 5
_NEEDED = {"question", "subgroup", "n_ablated", "q", "fpr_gap", "fpr_subgroup", "fpr_background"}


def audited(inputs: ReportInputs) -> pd.DataFrame | None:
    """A row per pair of classifier and group, nothing taken out; None where no audit was made."""
    table = inputs.table("subgroups")
    if table is None or not set(table.columns) >= _NEEDED:
        return None
    return table.loc[table["n_ablated"] == 0, :]


def treated_worse(inputs: ReportInputs, words: Words) -> list[str]:
    """A sentence per group that is flagged wrongly more often than the others, the largest gap first."""
    pairs = audited(inputs)
    if pairs is None:
        return []
    known = pairs.loc[pairs["fpr_gap"].notna(), :]
    worse = known.loc[(known["q"] < ALPHA) & (known["fpr_gap"] > 0), :]
    worse = worse.sort_values("fpr_gap", ascending=False, kind="stable")
    if not len(worse):
        if not len(known):
            return ["Nothing can be said: no group has enough memes."]
        return [
            f"No group is shown to be treated worse: of {several(len(known), 'comparison')} none has q under {ALPHA:g}."
        ]
    found = [_sentence(row, inputs, words) for row in worse.head(MOST).to_dict("records")]
    if len(worse) > MOST:
        found.append(f"{several(len(worse) - MOST, 'smaller gap')} more: see Measures.")
    return found


def _sentence(row: dict[str, Any], inputs: ReportInputs, words: Words) -> str:
    q = "below 1e-6" if row["q"] < 1e-6 else number(float(row["q"]))
    said = (
        f"Memes with {words(str(row['subgroup']))} are treated worse: where {words(str(row['question']))} is not true of "
        f"them, the classifier says it of {row['fpr_subgroup']:.0%} (of {several(int(row['n_subgroup_negative']), 'test meme')}), "
        f"and of {row['fpr_background']:.0%} of such memes outside the group; q {q}."
    )
    edit = _taken_out(row, inputs)
    if edit is None:
        return said
    return (
        f"{said} Without the {several(int(edit['n_ablated']), 'latent')} that carry most of it ({edit['latents']}) the gap of "
        f"{row['fpr_gap']:.2f} shrinks by {edit['closed']:.2f}, without as many like them by {edit['closed_matched']:.2f}."
    )


def _taken_out(row: dict[str, Any], inputs: ReportInputs) -> dict[str, Any] | None:
    """The edit of about five latents, if one was measured."""
    table: Any = inputs.table("subgroups")
    if not {"closed", "closed_matched"} <= set(table.columns):
        return None
    same = table[(table["question"] == row["question"]) & (table["subgroup"] == row["subgroup"])]
    edits = same[same["closed"].notna() & same["closed_matched"].notna()].to_dict("records")
    return min(edits, key=lambda edit: abs(edit["n_ablated"] - 5), default=None)
