"""Answers by strength: above what the model says, below how much of it changes beside the controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.figures.style import BLUE, CYCLE, FORMATS, GREY, INK, ORANGE, PALE, SETTINGS, save, titled, wrapped
from sae_lens_meme.steer.scores import ATTACHED, PLAIN, RANDOM_DIRECTION, RANDOM_LATENT, STEERED

MOST_LATENTS, MOST_WORDS = 6, 6
_LINES = {STEERED: (BLUE, "-"), RANDOM_LATENT: (ORANGE, "--"), RANDOM_DIRECTION: (GREY, ":")}


def draw_steering(answers: pd.DataFrame, scores: pd.DataFrame, stem: Path) -> None:
    """Write `stem`.png and `stem`.svg; of many latents the first six."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    latents = list(dict.fromkeys(scores["latent"]))[:MOST_LATENTS]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(3.6 * len(latents) + 0.6, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(2, len(latents), squeeze=False, sharey="row")
        for column, latent in enumerate(latents):
            draw_words(grid[0, column], answers, latent)
            draw_changes(grid[1, column], scores[scores["latent"] == latent])
        for kind in FORMATS:
            save(figure, stem.with_suffix(f".{kind}"), kind)


def draw_words(axes: Any, answers: Any, latent: int) -> None:
    """Shares of the most frequent first words, plain and at each strength."""
    mine = answers[(answers["arm"] == PLAIN) | ((answers["arm"] == STEERED) & (answers["latent"] == latent))]
    mine = mine.assign(word=mine["word"].fillna("(no word)"), strength=mine["strength"].astype(float))
    words = list(mine["word"].value_counts().index[:MOST_WORDS])
    steps = [np.nan, *sorted(mine["strength"].dropna().unique())]
    floor = np.zeros(len(steps))
    for word, colour in [*zip(words, CYCLE, strict=False), (None, PALE)]:
        heights = []
        for step in steps:
            at = mine[mine["strength"].isna() if np.isnan(step) else mine["strength"] == step]
            heights.append((~at["word"].isin(words) if word is None else at["word"] == word).mean())
        if any(heights):
            axes.bar(range(len(steps)), heights, bottom=floor, color=colour, label=wrapped(word or "other words", 18))
        floor += np.array(heights)
    axes.set_xticks(range(len(steps)), ["plain", *(f"{step:g}" for step in steps[1:])])
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    titled(axes, f"latent {latent}", "", "share of first words")


def draw_changes(axes: Any, rows: Any) -> None:
    """Share of answers whose first word changes, with 95 % intervals over pictures."""
    for arm, (colour, line) in _LINES.items():
        mine = rows[(rows["arm"] == arm) & rows["strength"].notna()].sort_values("strength")
        if mine.empty:
            continue
        x, y, low, high = (mine[key].astype(float) for key in ("strength", "changed", "changed_low", "changed_high"))
        axes.errorbar(x, y, yerr=[y - low, high - y], color=colour, ls=line, marker="o", ms=3, capsize=2, label=arm)
    attached = rows[rows["arm"] == ATTACHED]
    axes.axhline(float(attached["changed"].iloc[0]), color=INK, lw=0.8, label="SAE attached")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=7)
    titled(axes, "", "strength", "share of first words that change")
