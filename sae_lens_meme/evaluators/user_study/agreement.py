"""How often a metric and users prefer the same neuron, with intervals that allow for pairs that share a neuron."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from scipy.stats import norm

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable
from sae_lens_meme.evaluators.user_study.study import UserStudy
from sae_lens_meme.metrics.directions import unit_rows

SPARSITY = "fires on fewer pictures"
"""A trivial metric: of neurons and SAE latents, users may simply call the sparser one more focused."""
WIDTH = 0.1
"""Of the bins of differences, as in the paper's table."""
Scores = Mapping[str, float]
"""A metric: a score of each neuron; the larger is preferred."""

N_PAIRS, N_NEURONS = Quantity("n_pairs", "pairs that users judged"), Quantity("n_neurons", "neurons in them")
_NONE = "no pair has both scores"
SCORED = Quantity("n_scored", "pairs of which both neurons have a score; the others are left out", _NONE)
AGREEMENT = Quantity(
    "agreement",
    "share of pairs in which the metric prefers the neuron that most of three users chose; a tie counts half",
    _NONE,
)
BEYOND = Quantity(
    "minus_sparsity", f"agreement minus that of preferring the neuron that {SPARSITY}, the same pairs", _NONE
)
_INTERVAL = "Wilson's, with the sample size that a variance over pairs that share a neuron leaves (dyadic-robust)"
_DIFFERENCE = "normal, with the dyadic-robust variance of the paired difference, at least that of pairs that share none"
FEW_PAIRS = 20
"""With fewer, the normal interval of a difference is too short."""
COLUMNS = {
    "metric": "that is compared with users",
    "from": "least absolute difference of its scores in the bin",
    "to": "where the bin ends; the last one is open",
    "n_pairs": "pairs in the bin",
    "agreement": "share in which the metric prefers the neuron that users chose; a tie counts half; null without pairs",
    "low": f"low end of its 95 % interval: {_INTERVAL}",
    "high": f"high end of its 95 % interval: {_INTERVAL}",
}


def user_agreement(study: UserStudy, metrics: Mapping[str, Scores]) -> Result:
    """How often each metric and the users prefer the same neuron of a pair.

    Pairs that share a neuron are not independent: variances add up the products of all pairs of pairs that share one
    (Aronow, Samii and Assenova 2015).

    Args:
        metrics: by name, a score of each neuron; the larger is preferred. With `SPARSITY` among them every other is also
            compared with it.

    Returns:
        A row for each metric, and a table of agreement by how far apart the metric puts the two neurons.

    Raises:
        DataError: there is no metric.
    """
    if not metrics:
        raise DataError("user study: there is no metric; give --scores or --embeds, or published scores in pairs.csv")
    section = Section(
        f"Agreement with users on which of two neurons is more focused, {len(study)} pairs",
        f"chance: 0.5; {SPARSITY}: what that alone gives on the same pairs",
    )
    measures, tables = [N_PAIRS(len(study)), N_NEURONS(len(study.neurons))], []
    agrees = {name: _agrees(study, scores) for name, scores in metrics.items()}
    for name, scores in metrics.items():
        known = ~np.isnan(agrees[name])
        value, interval = _share(study, agrees[name])
        rows = f"metric: {name}"
        at = name.replace(" ", "_")
        controls = [_constant("chance", 0.5)]
        measures.append(SCORED(int(known.sum()), at, rows=rows))
        if SPARSITY in metrics and name != SPARSITY:
            both = known & ~np.isnan(agrees[SPARSITY])
            rival = np.where(both, agrees[SPARSITY], np.nan)
            controls.append(AGREEMENT(_share(study, rival)[0], rows=SPARSITY).control(SPARSITY))
            measures.append(_beyond(study, agrees[name] - rival, at, rows))
        found = AGREEMENT(value, at, rows=rows, interval=interval)
        measures.append(found.row(name, *controls) if value is not None else found)
        tables.append(_by_distance(study, name, scores, agrees[name]))
    return Result(
        "user_study", section, tuple(measures), pd.concat(tables, ignore_index=True), COLUMNS, _verdict(measures)
    )


def _agrees(study: UserStudy, scores: Scores) -> Float64[np.ndarray, " pairs"]:
    """1, 0, or a half for a tie; NaN without a score."""
    x, y = (np.array([scores.get(name, np.nan) for name in side], np.float64) for side in (study.x, study.y))
    prefers_x = np.where(x == y, 0.5, x > y)
    return np.where(np.isnan(x + y), np.nan, np.where(study.chose_x, prefers_x, 1 - prefers_x))


def _share(study: UserStudy, agrees: Float64[np.ndarray, " pairs"]) -> tuple[float | None, Interval]:
    known = ~np.isnan(agrees)
    n = int(known.sum())
    if not n:
        return None, Interval(None, None, _INTERVAL)
    p = float(agrees[known].mean())
    simple = p * (1 - p) / n
    inflated = _variance(study, np.where(known, agrees - p, 0.0), n) / simple if simple > 0 else 1.0
    size, z = n / max(inflated, 1.0), norm.ppf(0.975)
    middle, half = (p + z**2 / (2 * size)) / (1 + z**2 / size), z * np.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
    half /= 1 + z**2 / size
    return p, Interval(max(float(middle - half), 0.0), min(float(middle + half), 1.0), _INTERVAL)


def _variance(study: UserStudy, residuals: Float64[np.ndarray, " pairs"], n: int) -> float:
    """Of their mean: products of residuals over all pairs of pairs that have a neuron in common."""
    ends = np.stack([study.x, study.y])
    names, place = np.unique(ends, return_inverse=True)
    place = place.reshape(ends.shape)
    by_neuron = np.bincount(place.ravel(), np.tile(residuals, 2), minlength=len(names))
    same = np.unique(np.sort(place, axis=0), axis=1, return_inverse=True)[1].ravel()  # pairs of the same two neurons
    by_pair = np.bincount(same, residuals)
    return max(float((by_neuron**2).sum() - (by_pair**2).sum()), 0.0) / n**2


def _beyond(study: UserStudy, differences: Float64[np.ndarray, " pairs"], at: str, rows: str) -> Measure:
    known = ~np.isnan(differences)
    n = int(known.sum())
    if not n:
        return BEYOND(None, at, rows=rows)
    mean = float(differences[known].mean())
    robust = _variance(study, np.where(known, differences - mean, 0.0), n)
    variance = max(robust, float(differences[known].var()) / n)
    half = norm.ppf(0.975) * np.sqrt(variance)
    interval = Interval(mean - half, mean + half, _DIFFERENCE)
    if n < FEW_PAIRS:
        interval = Interval(None, None, _DIFFERENCE, f"{n} pairs; it needs {FEW_PAIRS}")
    elif not variance:
        interval = Interval(None, None, _DIFFERENCE, "it is the same in every pair")
    return BEYOND(mean, at, rows=rows, interval=interval)


def _constant(name: str, value: float) -> Any:
    return Measure(name, value, "a preference by the toss of a coin").control(name)


def _by_distance(study: UserStudy, metric: str, scores: Scores, agrees: np.ndarray) -> pd.DataFrame:
    """Bins of the absolute difference: 0.1 wide where scores lie within 1 of each other, else a tenth of the range."""
    x, y = (np.array([scores.get(name, np.nan) for name in side], np.float64) for side in (study.x, study.y))
    distance = np.abs(x - y)
    known = ~np.isnan(distance)
    most = distance[known].max() if known.any() else 0.0
    width = WIDTH if most <= 1 else most / 10
    n_bins = max(int(np.ceil(most / width - 1e-9)), 1)
    place = np.minimum((distance[known] / width).astype(int), n_bins - 1)
    rows = []
    for b in range(n_bins):
        mine = np.zeros(len(distance), bool)
        mine[np.flatnonzero(known)[place == b]] = True
        value, interval = _share(study, np.where(mine, agrees, np.nan))
        rows.append((metric, b * width, (b + 1) * width, int(mine.sum()), value, interval.low, interval.high))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("agreement", "low", "high"):
        table[name] = nullable(table[name].to_numpy(np.float64))
    return table


def _verdict(measures: list[Measure]) -> str | None:
    """Of each metric: what it agrees on, and whether that is more than sparsity alone gives."""
    said = []
    for found in (m for m in measures if m.shown is not None and m.shown != SPARSITY):
        ends = found.interval
        beyond = next((m for m in measures if m.key == f"{found.key.split('/')[0]}/{BEYOND.key}"), None)
        text = f"{found.shown} and users agree on {found.value:.1%} of the pairs"
        text += (
            f" ({ends.low:.1%} to {ends.high:.1%})" if ends and ends.low is not None and ends.high is not None else ""
        )
        if beyond is not None and beyond.interval is not None:
            low = beyond.interval.low
            more = "not known whether more than" if low is None else "more than" if low > 0 else "not more than"
            text += f", {more} by preferring the neuron that {SPARSITY}"
        said.append(text)
    return f"{'; '.join(said)}." if said else None


def monosemanticity_of(vectors: Float[np.ndarray, "pictures d"]) -> Callable[[Float64[np.ndarray, " pictures"]], float]:
    """MS of Pach et al. 2025 under the embeddings of all pictures, in linear time; NaN where it has no weight.

    The sum over pairs of a_n a_m cos(n, m) is half of |sum a e|^2 minus the sum of a^2, e unit vectors.
    """
    x = np.asarray(vectors, np.float64)
    units = unit_rows(x)

    def score(activations: Float64[np.ndarray, " pictures"]) -> float:
        if len(activations) != len(units):
            raise DataError(f"user study: {len(units)} embeddings for activations on {len(activations)} pictures")
        span = activations.max() - activations.min()
        if span <= 0:
            return float("nan")
        a = (activations - activations.min()) / span
        squares = (a**2 * x.any(axis=1)).sum()
        weight = a.sum() ** 2 - (a**2).sum()
        return float((np.square(a @ units).sum() - squares) / weight) if weight > 0 else float("nan")

    return score


def sparsity(activations: Float64[np.ndarray, " pictures"]) -> float:
    """Share of the pictures on which a neuron does not fire."""
    return float((activations <= 0).mean())
