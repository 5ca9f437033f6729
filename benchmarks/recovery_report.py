"""Tables and figure of `benchmarks.recovery`: means over seeds, and which metrics follow the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

TRUTH = "planted_mcc"
SHOWN = {
    TRUTH: ("MCC", 3),
    "planted_matched_f1": ("F1, one to one", 2),
    "saelens_mcc": ("cosine with true directions", 2),
    "planted_auroc": ("best unit, AUROC", 2),
    "labels_auroc": ("labels: best unit", 2),
    "labels_k_sparse_10": ("labels: 10 units", 2),
    "planted_tpp_auroc_5": ("TPP", 2),
    "pairs": ("significant pairs", 0),
    "explained_variance": ("explained variance", 2),
    "l0": ("L0", 1),
    "dead_share": ("dead", 2),
}
"""Column -> heading and decimals."""
METRICS = {
    "saelens_mcc": "cosine of decoder rows with the true directions, one to one (SAELens)",
    "saelens_uniqueness": "feature uniqueness (SAELens)",
    "saelens_f1": "F1 of latents matched by direction (SAELens)",
    "planted_matched_f1": "F1, one to one",
    "planted_f1": "F1 of the best unit, planted factors",
    "planted_auroc": "AUROC of the best unit, planted factors",
    "planted_k_sparse_1": "probe on one unit, planted factors",
    "planted_tpp_5": "TPP, 5 units, planted factors",
    "planted_tpp_auroc_5": "TPP in AUROC, 5 units, planted factors",
    "labels_auroc": "AUROC of the best unit, labels",
    "labels_f1": "F1 of the best unit, labels",
    "labels_k_sparse_1": "probe on one unit, labels",
    "labels_k_sparse_10": "probe on 10 units, labels",
    "labels_tpp_5": "TPP, 5 units, labels",
    "labels_tpp_auroc_5": "TPP in AUROC, 5 units, labels",
    "explained_variance": "held-out explained variance, z-scored",
    "explained_variance_raw": "held-out explained variance, raw",
    "pairs": "significant latent x label pairs",
    "latents_with_pairs": "latents with a significant pair",
    "l0": "L0",
    "dead_share": "share of dead latents",
}
"""What is compared with the truth; those of planted factors need a key, those of labels do not."""
FEWEST = 40
"""Dictionaries of a seed, from which on their ranks are correlated: of one that is half finished they would be others."""
ORACLES = ("oracle", "oracle_matching_pursuit")
NAMES = {
    "oracle": "the true dictionary, TopK",
    "oracle_matching_pursuit": "the true dictionary, matching pursuit",
    "shuffled": "meme_topk on shuffled vectors",
    "random": "random rotation",
}


def tables(rows: pd.DataFrame) -> dict[str, str]:
    """Markdown by the mark in benchmarks/README.md."""
    return {"recovery": _markdown(_settings(rows)), "recovery ranks": _markdown(_ranks(rows))}


def dictionaries(rows: pd.DataFrame) -> Any:
    """Those that were trained, each once: with z-scored input the outlier share changes nothing."""
    again = (rows["axis"] == "outliers") & rows["level"].str.startswith("zscored")
    return rows[(rows["axis"] != "controls") & ~rows["level"].isin(ORACLES) & ~again]


def rank_correlations(rows: pd.DataFrame, fewest: int = FEWEST) -> pd.DataFrame:
    """Spearman's rho of each metric with the truth over the dictionaries of one seed: metrics x seeds."""
    by_seed = {
        seed: {metric: _rho(mine[metric], mine[TRUTH]) for metric in METRICS}
        for seed, mine in dictionaries(rows).groupby("seed")
        if len(mine) >= fewest
    }
    return pd.DataFrame(by_seed)


def _rho(values: pd.Series, truth: pd.Series) -> float:
    found: Any = spearmanr(values, truth, nan_policy="omit")
    return float(found.statistic)


def _settings(rows: pd.DataFrame) -> list[list[str]]:
    heading = ["what differs", "", *(name for name, _ in SHOWN.values()), "seeds"]
    lines = [heading, ["---", "---", *["---:"] * (len(heading) - 2)]]
    by_level: Any = rows.groupby(["axis", "level"], sort=False)
    for (axis, level), mine in by_level:
        cells = [_mean_of(mine[column], decimals, column == TRUTH) for column, (_, decimals) in SHOWN.items()]
        lines.append([str(axis), NAMES.get(str(level), str(level)), *cells, str(len(mine))])
    return lines


def _mean_of(values: pd.Series, decimals: int, spread: bool) -> str:
    values = values.dropna()
    if values.empty:
        return "-"
    shown = f"{values.mean():.{decimals}f}"
    return f"{shown} ± {values.std():.3f}" if spread and len(values) > 1 else shown


def _ranks(rows: pd.DataFrame) -> list[list[str]]:
    found = rank_correlations(rows)
    order = found.mean(axis=1).sort_values(ascending=False).index
    lines = [["metric", "rho with MCC", "lowest and highest of the seeds"], ["---", "---:", "---"]]
    for metric in order:
        mine = found.loc[metric]
        lines.append([METRICS[str(metric)], f"{mine.mean():.2f}", f"{mine.min():.2f} to {mine.max():.2f}"])
    return lines


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """MCC of every setting, each seed a point, between the true dictionary and the controls; and two metrics against it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 4).ravel()
    for ax, (title, levels) in zip(axes, _panels(rows), strict=False):
        _points(ax, rows, levels)
        ax.set_title(title, loc="left", fontsize=10)
    trained = dictionaries(rows)
    for ax, metric in zip(axes[-2:], ("pairs", "explained_variance"), strict=True):
        ax.plot(trained[metric], trained[TRUTH], "o", ms=3, alpha=0.6)
        rho = rank_correlations(rows).loc[metric].mean()
        ax.set_title(f"{SHOWN[metric][0]}: rank correlation {rho:.2f}", loc="left", fontsize=10)
        ax.set(xlabel=SHOWN[metric][0], ylabel="MCC")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
        ax.set_ylim(0, 0.9)
    figure.savefig(path, dpi=90, metadata={"Software": None})


Level = tuple[str, str, str]
"""Axis and level of the table, and how the tick is called."""


def _panels(rows: pd.DataFrame) -> Iterator[tuple[str, list[Level]]]:
    def of(axis: str, *more: Level) -> list[Level]:
        levels = rows.loc[rows["axis"] == axis, "level"].drop_duplicates()
        return [*((axis, str(level), str(level)) for level in levels), *more]

    def numbers(axis: str, centre: str) -> list[Level]:
        found = [level for level in of(axis) if level[1].isdigit()]
        return sorted([*found, ("architecture", "meme_topk", centre)], key=lambda level: int(level[2]))

    yield "architecture", of("architecture")
    yield "controls", of("controls")
    yield "latents (128 factors)", numbers("latents", "128")
    yield "k (4 factors true of a meme)", numbers("k", "4")
    yield "training vectors", numbers("N", "4000")
    shares = [(f"zscored-{share}", f"raw-{share}") for share in ("0.07", "0.27")]
    levels = [("outliers", level, level.replace("-", "\n")) for pair in shares for level in pair]
    centre = [("architecture", "meme_topk", "zscored\n0.64"), ("outliers", "raw-0.64", "raw\n0.64")]
    yield "variance in three dimensions", [*levels, *centre]


def _points(ax: Any, rows: pd.DataFrame, levels: list[Level]) -> None:
    for place, (axis, level, _) in enumerate(levels):
        values = rows.loc[(rows["axis"] == axis) & (rows["level"] == level), TRUTH]
        ax.plot(np.full(len(values), place), values, "o", color="#1f5fa8", ms=4, alpha=0.6)
        ax.plot([place - 0.3, place + 0.3], [values.mean()] * 2, color="#1f5fa8", lw=1.5)
    oracle = rows.loc[rows["level"] == "oracle", TRUTH].mean()
    ax.axhline(oracle, color="#d1693c", lw=1, ls="--")
    turned = any(len(name) > 7 for *_, name in levels)
    ax.set_xticks(range(len(levels)), [name for *_, name in levels], rotation=90 if turned else 0, fontsize=8)
    ax.set_ylabel("MCC (dashed: the true dictionary, TopK)", fontsize=8)
