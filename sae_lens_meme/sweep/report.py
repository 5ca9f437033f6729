"""A sweep in a terminal: a row per setting, what to choose, what to distrust."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from sae_lens_meme.evaluators.contest.standings import short
from sae_lens_meme.report.blocks import visible
from sae_lens_meme.report.terminal import plain_table
from sae_lens_meme.steps import console
from sae_lens_meme.sweep.step import FIGURE, RUNS, Sweep

MOST_ROWS = 40
NOTE = (
    "Test memes, mean over seeds; val: the same number on validation memes, by which * was chosen. sd: over seeds. Neurons: "
    "the embedding's own dimensions; random: as many directions at the same L0. Stable: latents found again with another seed."
)


def print_sweep(found: Sweep) -> None:
    console.print(_table(found))
    console.print(Text(NOTE, style="dim"))
    console.print(Text(visible(found.content["recommendation"]), style="bold"))
    console.print(Text(visible(found.content["caution"]), style="dim"))
    text = f"  {found.folder}: {FIGURE}.png and .svg, settings.parquet, runs.parquet; the SAEs are in {found.folder / RUNS}"
    console.print(Text(text), soft_wrap=True)


def _table(found: Sweep) -> Table:
    keys, headline = found.content["keys"], found.content["headline"]
    table = plain_table()
    table.add_column("")
    for key in keys:
        table.add_column(Text(visible(key.rpartition(".")[2])))
    for name in (f"val {headline}", headline, "95 %", "sd", "neurons", "random", "EV z", "L0", "stable", "random"):
        table.add_column(Text(name), justify="right")
    for row in found.settings.head(MOST_ROWS).to_dict("records"):
        cells = ["*" if row["chosen"] else "", *(visible(str(row[key])) for key in keys), *_numbers(row)]
        table.add_row(*map(Text, cells))
    if len(found.settings) > MOST_ROWS:
        table.caption = f"and {len(found.settings) - MOST_ROWS} more in settings.parquet"
    return table


def _numbers(row: dict[str, Any]) -> list[str]:
    low, high = row["test_headline_low"], row["test_headline_high"]
    return [
        short(row["validation_headline"]),
        short(row["test_headline"]),
        "-" if pd.isna(low) else f"{short(low)} to {short(high)}",
        short(row["test_headline_seeds_sd"]),
        short(row["test_neurons"]),
        short(row["test_random"]),
        short(row["test_explained_variance_zscored"]),
        "-" if pd.isna(row["test_l0"]) else f"{row['test_l0']:.1f}",
        short(row["stable"]),
        short(row["stable_random"]),
    ]
