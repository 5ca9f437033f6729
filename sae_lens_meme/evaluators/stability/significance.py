"""Whether the latents with a significant concept are the stable ones, and whether their firing rate explains it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import fisher_exact
from scipy.stats.contingency import odds_ratio
from statsmodels.stats.contingency_tables import StratifiedTable

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.result import Number, Result, defined
from sae_lens_meme.metrics.bootstrap import bootstrap_weights, percentile_interval

N_RATES = 5
"""Groups of latents of about equal firing rate."""


def significant_latents(alignment: Result | pd.DataFrame, d_sae: int, alpha: float) -> Float[np.ndarray, " latents"]:
    """1 where some pair of the latent has q_global < alpha (corrected protocol), 0 where none has, NaN where none was tested.

    Raises:
        DataError: this is no table of concept alignment under the corrected protocol, or of another SAE.
    """
    table = alignment.table if isinstance(alignment, Result) else alignment
    if table is None or not {"latent", "q_global"} <= set(table.columns):
        raise DataError("stability: alignment has no columns latent and q_global; give the result of ConceptAlignment")
    if "protocol" in table:
        table = table[table["protocol"] == "corrected"]
    if len(table) == 0:
        raise DataError("stability: alignment has no rows of the corrected protocol; measure with protocol='corrected'")
    if int(table["latent"].max()) >= d_sae:
        raise DataError(f"stability: alignment has a latent {table['latent'].max()}, the SAE has d_sae {d_sae}")
    q: Any = table.groupby("latent")["q_global"].min()
    values = np.full(d_sae, np.nan)
    values[q.index.to_numpy()] = q.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), np.nan, values < alpha)


def significance_numbers(
    significant: Float[np.ndarray, " latents"],
    stable: Bool[np.ndarray, " latents"],
    cosine: Float[np.ndarray, " latents"],
    rate: Float[np.ndarray, " latents"] | None,
    replicates: int,
    seed: int,
) -> tuple[dict[str, Number], dict[str, str]]:
    """Significant against other latents (NaN in `significant` is left out), as they are and within firing rate."""
    known = ~np.isnan(significant)
    yes, stable, cosine = significant[known] == 1, stable[known], cosine[known]
    numbers: dict[str, Number] = {}
    for name, mine in (("significant", yes), ("other", ~yes)):
        numbers[f"significance/n_{name}"] = int(mine.sum())
        numbers[f"significance/share_stable_{name}"] = defined(stable[mine].mean()) if mine.any() else None
    numbers |= _odds(yes, stable)
    numbers |= _difference("significance/cosine_difference", yes, cosine, np.zeros(len(yes), int), replicates, seed)
    reasons = {key: _reason(yes) for key, value in numbers.items() if value is None}
    within = "significance/within_rate/"
    if rate is None:
        keys = [f"{within}{key}" for key in ("odds_ratio", "p", "cosine_difference")]
        return numbers | dict.fromkeys(keys), reasons | dict.fromkeys(keys, "no latents are given, so no firing rates")
    group = rate_groups(rate[known])
    found = _stratified_odds(yes, stable, group, within)
    found |= _difference(f"{within}cosine_difference", yes, cosine, group, replicates, seed)
    why = "no group of equal firing rate has latents of all kinds that the number needs"
    return numbers | found, reasons | {key: why for key, value in found.items() if value is None}


def rate_groups(rate: Float[np.ndarray, " latents"]) -> np.ndarray:
    """The quintile of each latent's firing rate; equal rates are in one group."""
    edges = np.quantile(rate, np.arange(1, N_RATES) / N_RATES) if len(rate) else []
    return np.searchsorted(edges, rate, side="left")


def _odds(yes: np.ndarray, stable: np.ndarray) -> dict[str, Number]:
    table = _table(yes, stable)
    keys = ("odds_ratio", "odds_ratio_low", "odds_ratio_high", "p")
    if (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any():
        return dict.fromkeys(f"significance/{key}" for key in keys)
    found: Any = odds_ratio(table)
    low, high = found.confidence_interval(0.95)
    values = (found.statistic, low, high, fisher_exact(table).pvalue)  # type: ignore[attr-defined]
    return {f"significance/{key}": defined(value) for key, value in zip(keys, values, strict=True)}


def _stratified_odds(yes: np.ndarray, stable: np.ndarray, group: np.ndarray, prefix: str) -> dict[str, Number]:
    tables = [_table(yes[group == g], stable[group == g]) for g in np.unique(group)]
    tables = [t for t in tables if (t.sum(axis=0) > 0).all() and (t.sum(axis=1) > 0).all()]
    keys = ("odds_ratio", "odds_ratio_low", "odds_ratio_high", "p")
    if not tables:
        return dict.fromkeys(f"{prefix}{key}" for key in keys)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = StratifiedTable([table.astype(np.float64) for table in tables])
        low, high = found.oddsratio_pooled_confint()
        values = (found.oddsratio_pooled, low, high, found.test_null_odds(correction=False).pvalue)  # type: ignore[attr-defined]
    return {f"{prefix}{key}": defined(value) for key, value in zip(keys, values, strict=True)}


def _difference(
    key: str, yes: np.ndarray, cosine: np.ndarray, group: np.ndarray, replicates: int, seed: int
) -> dict[str, Number]:
    """Mean cosine of significant minus that of other latents, within groups, with a bootstrap over latents."""
    known = ~np.isnan(cosine)
    yes, cosine, group = yes[known], cosine[known], group[known]
    cells = 2 * group + yes
    value = _mean_difference(np.ones(len(yes)), cells, cosine)
    if np.isnan(value):
        return {key: None}
    draws = [_mean_difference(w, cells, cosine) for w in bootstrap_weights(cells, replicates, seed)]
    if not draws:
        return {key: value}
    low, high = percentile_interval(np.array(draws))
    return {key: value, f"{key}_low": float(low), f"{key}_high": float(high)}


def _mean_difference(weights: np.ndarray, cells: np.ndarray, cosine: np.ndarray) -> float:
    """Groups weigh by n_1 n_0 / (n_1 + n_0); cells 2 g and 2 g + 1 are the two kinds of group g."""
    n = np.bincount(cells, weights, minlength=2 * N_RATES).reshape(-1, 2)
    means = np.bincount(cells, weights * cosine, minlength=2 * N_RATES).reshape(-1, 2) / np.maximum(n, 1)
    weight = n[:, 0] * n[:, 1] / np.maximum(n.sum(axis=1), 1)
    return float((weight * (means[:, 1] - means[:, 0])).sum() / weight.sum()) if weight.sum() > 0 else float("nan")


def _table(yes: np.ndarray, stable: np.ndarray) -> np.ndarray:
    """[[significant and stable, significant only], [stable only, neither]]"""
    return np.array([[(side & stable).sum(), (side & ~stable).sum()] for side in (yes, ~yes)])


def _reason(yes: np.ndarray) -> str:
    if yes.all() or not yes.any():
        return "all latents that take part are significant" if len(yes) and yes.all() else "no latent is significant"
    return "all latents, or none, are stable, or a ratio is infinite: one kind of latent is missing"
