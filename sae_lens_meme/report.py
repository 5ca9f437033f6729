"""The table at the end of an evaluation: one row a number, its controls beside it."""

from __future__ import annotations

import io
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

RECONSTRUCTION = "Reconstruction, held-out memes"
CONCEPTS = "Concepts: latent x concept pairs with q < .05"
STOCK = "SAELens' run_evals: cross-entropy of a linear classifier recovered, held-out memes"
BEST = "Concepts: F1 on test memes of the latent that was best on validation memes"
PROBES = "Linear probes on latents: AUROC, held-out memes"
INFLUENCE = "Influence: largest mean change of a class's probability by one latent"
ANSWERS = "Answer key: AUROC on test memes of the best latent for each planted factor"

NOTES = {
    RECONSTRUCTION: "mean: the mean of the train memes in place of the SAE",
    STOCK: "1: nothing lost by replacing the embedding with its reconstruction; zeros: the embedding replaced by zeros",
    CONCEPTS: "permuted: labels permuted within source, mean of 3 draws; shuffled: SAE trained on data shuffled per "
    "dimension; neurons: raw dimensions, both signs, equal L0; 95 %: delete-half jackknife over memes",
    BEST: "always on: a latent that fires on every meme; source only: the best rule that reads nothing but the source; "
    "chosen: F1 on the rows that chose latent and threshold; AUROC: within source",
    PROBES: "permuted: train labels permuted within source, mean of 5 draws; above .5 is what the source alone tells, "
    "within source it is gone",
    INFLUENCE: "the value is a maximum over latents; random maximum: the largest change by random directions of equal "
    "norm, chosen alike; random: the mean of 4 for this latent; matched: 20 latents of equal firing rate; "
    "attached: nothing edited",
    ANSWERS: "permuted: the factor permuted within source",
}

Row = dict[str, Any]


def report_rows(evaluation: dict[str, Any]) -> list[Row]:
    """The rows of the printed table, from the content of `evaluation.json`.

    A row has `section`, `measure`, `value` (None where undefined), `low`, `high` (95 % interval or None), and
    `controls`: what the same measure gives where there is nothing to find, or for a trivial rival.
    """
    sections = (_reconstruction, _stock, _concepts, _best, _probes, _influence, _answers)
    return [row for section in sections for row in section(evaluation)]


def print_report(evaluation: dict[str, Any], console: Console) -> None:
    sae, memes = evaluation["sae"], evaluation["embeddings"]
    splits = ", ".join(f"{n:,} {split}" for split, n in memes["splits"].items())
    console.print(
        f"\n[bold]{sae['training_architecture'] or sae['architecture']}[/] d_in {sae['d_in']}, d_sae {sae['d_sae']}, "
        f"k {sae['k']} on {sae['hook']} of {memes['model']}; memes: {splits}"
    )
    for section, rows in groupby(evaluation["table"], key=lambda row: row["section"]):
        console.print(f"[bold]{section}[/]")
        console.print(_rich_table(list(rows)))
        console.print(f"[dim]{NOTES[section]}[/]\n")
    for name, reason in evaluation["skipped"].items():
        console.print(f"[dim]not done: {name}: {reason}[/]")


def report_html(evaluation: dict[str, Any]) -> str:
    """The printed report as one self-contained page."""
    console = Console(record=True, width=110, file=io.StringIO(), highlight=False)
    print_report(evaluation, console)
    return console.export_html(inline_styles=True, theme=DEFAULT_TERMINAL_THEME)


def _rich_table(rows: list[Row]) -> Table:
    """Numbers are never cut: in a narrow terminal headings and measures wrap instead."""
    names = list(dict.fromkeys(name for row in rows for name in row["controls"]))
    columns = {"value": [_number(row["value"]) for row in rows]}
    if any(row["low"] is not None for row in rows):
        columns["95 %"] = [_interval(row) for row in rows]
    columns |= {name: [_cell(row, name) for row in rows] for name in names}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False, collapse_padding=True)
    table.add_column("")
    for name, cells in columns.items():
        table.add_column(name, justify="right", min_width=max(map(len, cells)), overflow="fold")
    for row, *cells in zip(rows, *columns.values(), strict=True):
        table.add_row(row["measure"], *cells)
    return table


def _cell(row: Row, name: str) -> str:
    return _number(row["controls"][name]) if name in row["controls"] else ""


def _interval(row: Row) -> str:
    if row["low"] is None:
        return ""
    count = isinstance(row["value"], int)
    return " to ".join(_number(round(end) if count else end) for end in (row["low"], row["high"]))


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 100 or (value == round(value) and abs(value) != 1):
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _row(section: str, measure: str, value: Any, controls: dict[str, Any], low: Any = None, high: Any = None) -> Row:
    return {"section": section, "measure": measure, "value": value, "low": low, "high": high, "controls": controls}


def _numbers(evaluation: dict[str, Any], name: str) -> dict[str, Any]:
    return evaluation["results"].get(name, {}).get("numbers", {})


def _reconstruction(evaluation: dict[str, Any]) -> list[Row]:
    n = _numbers(evaluation, "reconstruction")
    if not n:
        return []
    rows = [
        _row(RECONSTRUCTION, measure, n.get(f"held_out/{key}"), {"train memes": n.get(f"train/{key}"), **controls})
        for measure, key, controls in (
            ("explained variance, z-scored", "explained_variance_zscored", _mean(n, "explained_variance_zscored")),
            ("explained variance, raw", "explained_variance", _mean(n, "explained_variance")),
            (
                f"explained variance, outlier dimensions left out ({n['outlier_dimensions']})",
                "explained_variance_without_outliers",
                _mean(n, "explained_variance_without_outliers"),
            ),
            ("cosine of input and output", "cosine", {}),
            ("L0", "l0", {}),
            (f"latents that never fire, of {evaluation['sae']['d_sae']}", "dead_latents", {}),
        )
    ]
    return rows


def _mean(numbers: dict[str, Any], key: str) -> dict[str, Any]:
    """The same score of the mean predictor."""
    return {"mean": numbers[f"held_out/{key}_mean_predictor"]} if f"held_out/{key}_mean_predictor" in numbers else {}


def _stock(evaluation: dict[str, Any]) -> list[Row]:
    n = _numbers(evaluation, "stock_evals")
    tasks = dict.fromkeys(key.split("/")[0] for key in n)
    return [
        _row(
            STOCK,
            task,
            n[f"{task}/ce_loss_score"],
            {
                "zeros": 0,
                "loss": n.get(f"{task}/ce_loss_without_sae"),
                "with SAE": n.get(f"{task}/ce_loss_with_sae"),
                "with zeros": n.get(f"{task}/ce_loss_with_ablation"),
            },
        )
        for task in tasks
    ]


def _concepts(evaluation: dict[str, Any]) -> list[Row]:
    found, controls = _numbers(evaluation, "concept_alignment"), _numbers(evaluation, "baselines")
    names = {
        "permuted_labels": "permuted",
        "shuffled_data": "shuffled",
        "neurons": "neurons",
    }
    rows = []
    for protocol, family, what in (
        ("corrected", "global", "corrected protocol"),
        ("corrected", "concept", "corrected protocol, q within each concept"),
        ("published", "concept", "published protocol"),
    ):
        key = f"{protocol}/n_significant_{family}"
        if key not in found:
            continue
        beside = {label: controls.get(f"{protocol}/{name}/n_significant_{family}") for name, label in names.items()}
        shown = {label: value for label, value in beside.items() if value is not None}
        rows.append(_row(CONCEPTS, what, found[key], shown, found.get(f"{key}_low"), found.get(f"{key}_high")))
    for protocol, family in (("corrected", "global"), ("published", "concept")):
        shares = {name: controls.get(f"{protocol}/{name}/share_of_latents_{family}") for name in ("sae", *names)}
        if shares["sae"] is not None:
            shown = {label: shares[name] for name, label in names.items() if shares[name] is not None}
            rows.append(_row(CONCEPTS, f"share of units with a pair, {protocol}", shares["sae"], shown))
    return rows


def _best(evaluation: dict[str, Any]) -> list[Row]:
    n = _numbers(evaluation, "concept_alignment")
    suffix = "/best_f1_test"
    keys = [key.removesuffix(suffix) for key in n if key.startswith("corrected/") and key.endswith(suffix)]
    return [
        _row(
            BEST,
            f"{key.removeprefix('corrected/')} ({_latent(n[f'{key}/best_latent'])})",
            n[f"{key}{suffix}"],
            {
                "always on": n[f"{key}/best_f1_always_on"],
                "source only": n.get(f"{key}/f1_source_only"),
                "chosen": n[f"{key}/best_f1_validation"],
                "AUROC": n[f"{key}/best_auroc"],
            },
            n.get(f"{key}{suffix}_low"),
            n.get(f"{key}{suffix}_high"),
        )
        for key in keys
    ]


def _probes(evaluation: dict[str, Any]) -> list[Row]:
    n = _numbers(evaluation, "probes")
    shown = {
        "permuted": "latents_permuted/auroc",
        "within source": "latents/auroc_within_source",
        "permuted, within source": "latents_permuted/auroc_within_source",
        "embedding": "embedding/auroc",
        "reconstruction": "reconstruction/auroc",
    }
    tasks = dict.fromkeys(key.split("/")[0] for key in n)
    return [
        _row(
            PROBES,
            task,
            n.get(f"{task}/latents/auroc"),
            {label: n.get(f"{task}/{key}") for label, key in shown.items()},
        )
        for task in tasks
    ]


def _influence(evaluation: dict[str, Any]) -> list[Row]:
    n = _numbers(evaluation, "influence")
    groups = [key.removesuffix("/largest") for key in n if key.endswith("/largest") and "/latent/" in key]
    return [
        _row(
            INFLUENCE,
            f"{_edit(group)}, latent {n[f'{group}/largest_latent']}",
            n[f"{group}/largest"],
            {
                "random maximum": n.get(f"{group}/random_maximum"),
                "random": n.get(f"{group}/largest_random"),
                "matched": n.get(f"{group}/largest_matched"),
                "attached": n.get(f"{group}/attached_no_change"),
            },
            n.get(f"{group}/largest_low"),
            n.get(f"{group}/largest_high"),
        )
        for group in groups
    ]


def _latent(number: int | None) -> str:
    return "no latent" if number is None else f"latent {number}"


def _edit(group: str) -> str:
    parts = group.split("/")
    return f"{parts[-1]}: ablation" if parts[0] == "ablation" else f"{parts[-1]}: steering {parts[1]}"


def _answers(evaluation: dict[str, Any]) -> list[Row]:
    n = _numbers(evaluation, "answer_key")
    factors = dict.fromkeys(key.split("/")[0] for key in n)
    kinds = evaluation.get("answer_key", {})
    return [
        _row(
            ANSWERS,
            f"{factor} ({kinds.get(factor, '?')})",
            n[f"{factor}/auroc"],
            {
                "permuted": n[f"{factor}/auroc_permuted"],
                "F1": n[f"{factor}/f1"],
                "F1 always on": n[f"{factor}/f1_always_on"],
            },
        )
        for factor in factors
    ]
