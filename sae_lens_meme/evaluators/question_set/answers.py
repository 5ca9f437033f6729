"""Whether ablating a latent changes what a model answers, question by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.question_set.grid import N_PICTURES, N_PROMPTS, Grid
from sae_lens_meme.evaluators.result import Interval, Quantity, Result, Section, nullable
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

AnswersOf = Callable[[Sequence[Any], str, int | None], Sequence[str]]
"""Pictures, a prompt and the latent that is ablated (None: none) to answers, one per picture."""

CHANGED = Quantity("changed", "share of the answers that ablating the latent changes, all pictures and prompts")
CHANGED_MATCHED = Quantity(
    "changed_matched",
    "control: the same for another latent that fires in about as many cells",
    "there is no such latent, or this one never fires",
)
BEYOND = replace(CHANGED_MATCHED, key="changed_minus_matched", what="changed minus changed_matched, paired by picture")
CHANGED_AGAIN = Quantity(
    "changed_again", "control: share of answers that differ when nothing is ablated and every question is asked again"
)
MIN_PICTURES = 20
"""With fewer, a bootstrap interval is too short."""
_HOW = "percentile bootstrap over pictures; where all are alike, exact bound on the share of pictures that are not"
CHANGE_COLUMNS = {
    "latent": "that is ablated",
    "prompt": "the question",
    "changed": "share of the pictures whose answer changes",
    "low": f"low end of its 95 % interval: {_HOW}; null with fewer than {MIN_PICTURES} pictures",
    "high": f"high end of its 95 % interval: {_HOW}; null with fewer than {MIN_PICTURES} pictures",
    "changed_matched": "control: of the matched latent; null where there is none",
}


def answer_changes(
    answers_of: AnswersOf,
    pictures: Sequence[Any],
    prompts: Sequence[str],
    latents: Sequence[int],
    *,
    grid: Grid | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Result:
    """How often ablating a latent changes the answer, by question, beside a matched latent and beside asking again.

    Args:
        answers_of: pictures, a prompt and the ablated latent (None for none) to answers.
        latents: those to ablate.
        grid: the latents of these pictures and prompts, from which another latent of about equal firing is matched to each.

    Returns:
        A row for each latent, and a table of latents x prompts.

    Raises:
        DataError: there is not one answer per picture, or the grid is of another size.
    """
    if grid is not None and (grid.n_pictures, len(grid.prompts)) != (len(pictures), len(prompts)):
        raise DataError(
            f"answer changes: the grid is {grid.n_pictures} x {len(grid.prompts)}, not {len(pictures)} x {len(prompts)}"
        )
    plain = _answers(answers_of, pictures, prompts, None)
    again = _answers(answers_of, pictures, prompts, None) != plain
    section = Section(
        f"Share of {plain.size} answers that ablating a latent changes",
        "matched: another latent that fires in about as many cells; again: nothing ablated, every question asked again",
    )
    matched = {} if grid is None else _matched(grid, latents)
    asked = CHANGED_AGAIN(again.mean())
    measures, tables, lows = [N_PICTURES(len(pictures)), N_PROMPTS(len(prompts)), asked], [], []
    draws = np.array(list(bootstrap_weights(np.zeros(len(pictures), np.int64), n_bootstrap, seed)))
    for latent in latents:
        changed = _answers(answers_of, pictures, prompts, latent) != plain
        other = _answers(answers_of, pictures, prompts, matched[latent]) != plain if latent in matched else None
        interval, at, rows = _interval(changed.mean(axis=1), draws), f"latent_{latent}", f"latent {matched.get(latent)}"
        rival = CHANGED_MATCHED(None if other is None else other.mean(), at, rows=rows)
        beyond = BEYOND(None, at, rows=rows)
        if other is not None:
            apart = changed.mean(axis=1) - other.mean(axis=1)
            ends = _interval(apart, draws, least=-1)
            beyond = BEYOND(apart.mean(), at, rows=rows, interval=ends)
            lows.append(ends.low)
        shown = [control for control in (rival.control("matched"), asked.control("again")) if control.value is not None]
        measures += [
            CHANGED(changed.mean(), at, interval=interval).row(f"latent {latent}", *shown),
            rival,
            beyond,
        ]
        tables.append(_by_prompt(latent, prompts, changed, other, draws))
    table = pd.concat(tables, ignore_index=True) if tables else None
    known = [low for low in lows if low is not None]
    verdict = (
        f"Ablation changes answers more than that of a matched latent for {sum(low > 0 for low in known)} of {len(known)} "
        "latents that have one."
        if known
        else None
    )
    return Result("answer_changes", section, tuple(measures), table, CHANGE_COLUMNS if tables else {}, verdict)


def _answers(answers_of: AnswersOf, pictures: Sequence[Any], prompts: Sequence[str], ablated: int | None) -> np.ndarray:
    """[pictures, prompts]."""
    columns = [np.array(list(answers_of(pictures, prompt, ablated)), dtype=object) for prompt in prompts]
    if wrong := next((len(column) for column in columns if len(column) != len(pictures)), None):
        raise DataError(f"answer changes: {wrong} answers for {len(pictures)} pictures; give one each")
    return np.stack(columns, axis=1)


def _matched(grid: Grid, latents: Sequence[int]) -> dict[int, int]:
    """Of each latent that fires the one outside `latents` whose number of cells is nearest; ties go to the smaller latent."""
    n = np.diff(grid.cells.csc().indptr)
    others = np.setdiff1d(np.flatnonzero(n), latents)
    return {f: int(others[np.abs(n[others] - n[f]).argmin()]) for f in latents if n[f]} if len(others) else {}


def _interval(values: Float64[np.ndarray, " pictures"], draws: np.ndarray, least: float = 0) -> Interval:
    """Of the mean of values from `least` to 1."""
    n = len(values)
    if not len(draws):
        return Interval(None, None, _HOW, "n_bootstrap is 0: no intervals")
    if n < MIN_PICTURES:
        return Interval(None, None, _HOW, f"{n} pictures; an interval needs {MIN_PICTURES}")
    if np.ptp(values) == 0:
        others = 1 - 0.025 ** (1 / n)  # Clopper and Pearson's end for 0 of n
        return Interval(*(float(values[0] + others * (end - values[0])) for end in (least, 1)), what=_HOW)
    low, high = percentile_interval(draws @ values / n)
    return Interval(float(low), float(high), _HOW)


def _by_prompt(
    latent: int,
    prompts: Sequence[str],
    changed: Bool[np.ndarray, "pictures prompts"],
    other: Bool[np.ndarray, "pictures prompts"] | None,
    draws: np.ndarray,
) -> pd.DataFrame:
    nothing = np.full(len(prompts), np.nan)
    ends = [_interval(column, draws)[:2] for column in changed.T.astype(float)]
    low, high = np.array(ends, dtype=float).reshape(-1, 2).T
    return pd.DataFrame(
        {
            "latent": latent,
            "prompt": list(prompts),
            "changed": changed.mean(axis=0),
            "low": nullable(low),
            "high": nullable(high),
            "changed_matched": nullable(nothing if other is None else other.mean(axis=0)),
        }
    )
