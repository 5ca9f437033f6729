"""The headline: what the SAE recovers, beside everything that could take its place."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import BLUE, GREY, INK, listed, titled

TITLE = "Recovery on equal terms"
ESTIMATORS = {
    "auroc": "best unit, AUROC",
    "k_sparse": "probe on {k} unit(s), AUROC",
    "mcc": "one-to-one recovery, MCC",
    "tpp": "TPP, {k} units",
}
PANELS: tuple[dict[str, Any], ...] = ({"targets": "labels", "estimator": "k_sparse", "k": 1}, {"targets": "planted", "estimator": "mcc"}, {"estimator": "tpp", "k": 5})  # fmt: skip


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """The headline for labels, and for planted values where there is a key; only what was measured."""
    table = inputs.table("contest")
    return [choice for choice in PANELS if len(_chosen(table, **choice))]


def draw(
    axes: Any, inputs: Inputs, *, estimator: str = "k_sparse", targets: str | None = None, k: int | None = None
) -> None:
    """One estimator: every set of units with its 95 % interval, best first, the SAE in colour.

    Args:
        estimator: `auroc`, `k_sparse`, `mcc`, `tpp` or another of the table.
        targets: `labels`, `planted` or `cross_modal`; default the first that was measured.
        k: units of a probe, or units taken out; default the fewest that were measured.
    """
    rows = _chosen(inputs.table("contest"), estimator, targets, k)
    if rows.empty:
        raise NotDrawn(f"the contest has no row for estimator {estimator!r}, targets {targets!r}, k {k}")
    rows = rows.sort_values("value", ascending=estimator.startswith("absorbed"))
    for place, row in enumerate(rows.itertuples()):
        colour = BLUE if row.units == "sae" else GREY if row.units in ("linear_probe", "permuted_labels") else INK
        if row.low == row.low and row.high == row.high:
            axes.plot([row.low, row.high], [place, place], color=colour, lw=1.6)
        axes.plot(row.value, place, "o", color=colour, ms=7 if row.units == "sae" else 5)
    listed(axes, [_called(str(units)) for units in rows["units"]])
    first = rows.iloc[0]
    k = None if first["k"] != first["k"] else int(first["k"])
    titled(
        axes,
        f"{str(first['targets']).replace('_', '-')}: {int(first['n_targets'])} targets",
        ESTIMATORS.get(estimator, estimator).format(k=k),
    )


def _chosen(table: Any, estimator: str, targets: str | None = None, k: int | None = None) -> Any:
    rows = table[(table["estimator"] == estimator) & (table["target"] == "all") & table["value"].notna()]
    if k is not None:
        rows = rows[rows["k"] == k]
    if len(rows):
        rows = rows[rows["targets"] == (targets or rows["targets"].iloc[0])]
    if k is None and rows["k"].notna().any():
        rows = rows[rows["k"] == rows["k"].min()]
    return rows


def _called(units: str) -> str:
    name = {"sae": "SAE", "pca": "PCA", "ica": "ICA", "shuffled_data": "SAE of shuffled data"}
    base, sparse = units.removesuffix("_k"), units.endswith("_k")
    return name.get(base, base.replace("_", " ")) + (" (as sparse)" if sparse else "")
