"""Choosing a unit on some pairs, and how it orders others: signs, exact flips, a bootstrap over groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int8
from scipy import sparse
from scipy.linalg import solve
from scipy.signal import convolve
from scipy.stats import binom

TIE = 1e-5
"""Activations that differ by less than this share of the larger are tied: encoders round by where in a batch a meme lies."""
AT_ONCE = 4096
RIDGES = (1e-2, 1e-1, 1.0, 10.0)
"""Penalties to choose from, in units of the mean square of the differences summed over pairs."""
PROBE_PAIRS = 2_000
"""A probe is fitted on at most this many pairs."""


@dataclass(frozen=True, eq=False)
class Oriented:
    """Pairs by label: of each the meme of which the concept is true, and the one of which it is false."""

    true: Int[np.ndarray, " pairs"]
    false: Int[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.true)


def joined(parts: Sequence[Oriented]) -> Oriented:
    return Oriented(np.concatenate([part.true for part in parts]), np.concatenate([part.false for part in parts]))


class BestUnit(NamedTuple):
    """A unit read with a sign; -1 where none differs within any pair."""

    unit: int
    sign: int


Values = Any
"""float32 [memes, units]: CSR where few fire, else an array."""


def choose(values: Values, pairs: Oriented) -> BestUnit:
    """The unit with the largest mean signed difference within pairs, in units of its root mean square."""
    size, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for difference in _differences(values, pairs):
        size += np.asarray(difference.sum(axis=0)).ravel()
        squares += _squares(difference)
    return _largest(standardised(size, squares))


def _largest(size: Float64[np.ndarray, " units"]) -> BestUnit:
    best = int(np.abs(size).argmax())
    return BestUnit(best if size[best] else -1, -1 if size[best] < 0 else 1)


def standardised(sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.divide(sums, np.sqrt(squares), out=np.zeros_like(sums), where=squares > 0)


def _differences(values: Values, pairs: Oriented) -> Iterator[Any]:
    for start in range(0, len(pairs), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        yield values[pairs.true[part]].astype(np.float64) - values[pairs.false[part]].astype(np.float64)


def _squares(difference: Any) -> Float64[np.ndarray, " units"]:
    squared = difference.power(2) if sparse.issparse(difference) else difference**2
    return np.asarray(squared.sum(axis=0)).ravel()


def columns(values: Values, units: np.ndarray) -> Float64[np.ndarray, "memes chosen"]:
    taken = values[:, units]
    return np.asarray(taken.toarray() if sparse.issparse(taken) else taken, dtype=np.float64)


def order(values: Values, chosen: BestUnit, pairs: Oriented) -> Int8[np.ndarray, " pairs"]:
    """1 where the unit is larger on the meme of which the concept is true, -1 where it is smaller, 0 where tied."""
    if chosen.unit < 0:
        return np.zeros(len(pairs), np.int8)
    scores = chosen.sign * columns(values, np.array([chosen.unit]))[:, 0]
    return ordered(
        scores[pairs.true], scores[pairs.false], np.maximum(np.abs(scores[pairs.true]), np.abs(scores[pairs.false]))
    )


def ordered(true: np.ndarray, false: np.ndarray, size: np.ndarray) -> Int8[np.ndarray, "..."]:
    difference = true - false
    return (np.sign(difference) * (np.abs(difference) > TIE * size)).astype(np.int8)


def share_of(signs: np.ndarray) -> float:
    """Share of pairs ordered correctly; ties count half."""
    return float(signs.mean(dtype=np.float64) + 1) / 2 if len(signs) else np.nan


# probes on pairs


def paired_probe(
    z: Float64[np.ndarray, "memes d"], pairs: Oriented, component: Int[np.ndarray, " memes"]
) -> Float64[np.ndarray, " d"]:
    """Weights w that make w . (true - false) near 1 (ridge regression without intercept), from at most PROBE_PAIRS pairs.

    The penalty is the one with which either half of the components is ordered best by the other half.
    """
    kept = np.argsort(component[pairs.true], kind="stable")[:PROBE_PAIRS]
    difference = z[pairs.true[kept]] - z[pairs.false[kept]]
    fold = component[pairs.true[kept]] % 2
    halves = [difference[fold == half] for half in (0, 1)]
    gram, total = [half.T @ half for half in halves], [half.sum(axis=0) for half in halves]
    unit = np.trace(gram[0] + gram[1]) / max(z.shape[1], 1)
    if unit <= 0:
        return np.zeros(z.shape[1])
    right = [
        sum(
            np.sign(halves[i] @ _ridge(gram[1 - i], total[1 - i], ridge * unit / 2)).sum()
            for i in (0, 1)
            if len(halves[i])
        )
        for ridge in RIDGES
    ]
    return _ridge(gram[0] + gram[1], total[0] + total[1], RIDGES[int(np.argmax(right))] * unit)


def _ridge(gram: np.ndarray, total: np.ndarray, penalty: float) -> Float64[np.ndarray, " d"]:
    return solve(gram + penalty * np.eye(len(gram)), total, assume_a="pos")


def order_by_probe(
    z: Float64[np.ndarray, "memes d"], weights: np.ndarray, pairs: Oriented
) -> Int8[np.ndarray, " pairs"]:
    """As `order`; two embeddings of one picture that differ by rounding are tied."""
    scores, size = z @ weights, np.linalg.norm(z, axis=1) * np.linalg.norm(weights)
    return ordered(scores[pairs.true], scores[pairs.false], size[pairs.true])


# nulls and intervals


def flip_null(totals: Int[np.ndarray, " components"]) -> Float64[np.ndarray, " sums"]:
    """Probability of each sum of `totals` under independent fair signs, from -sum|totals| to sum|totals| (exact).

    A total is the number of pairs of a component ordered rightly minus that ordered wrongly: exchanging the two memes of
    each of its pairs turns the sign.
    """
    probability = np.ones(1)
    for size, times in zip(*np.unique(np.abs(totals[totals != 0]), return_counts=True), strict=True):
        step = np.zeros(2 * size * times + 1)
        step[:: 2 * size] = binom.pmf(np.arange(times + 1), times, 0.5)
        probability = np.maximum(convolve(probability, step), 0)
    return probability


class Flips(NamedTuple):
    """What flips within pairs make of the share ordered rightly."""

    p: float
    """Of at least this share, one-sided."""
    quantile: float
    """95 % quantile of the share."""


def flips(signs: Int8[np.ndarray, " pairs"], component: Int[np.ndarray, " pairs"]) -> Flips:
    """Both memes of every pair of a component change places, or none do."""
    _, place = np.unique(component, return_inverse=True)
    totals = np.bincount(place, weights=signs).astype(np.int64)
    probability = flip_null(totals)
    most = len(probability) // 2
    p = max(float(probability[most + totals.sum() :].sum()), 2.0 ** -len(totals))
    quantile = int(np.searchsorted(probability.cumsum(), 0.95 * probability.sum())) - most
    return Flips(min(p, 1.0), (quantile / len(signs) + 1) / 2)


def flipped_choice(
    values: Values,
    selection: Oriented,
    held_out: Oriented,
    component: Int[np.ndarray, " memes"],
    draws: int,
    generator: np.random.Generator,
) -> Float64[np.ndarray, " draws"]:
    """Share ordered rightly where unit and sign are chosen on pairs flipped at random, and scored on others so flipped."""
    signs = generator.integers(0, 2, (draws, int(component.max(initial=0)) + 1), dtype=np.int8) * np.int8(2) - np.int8(
        1
    )
    sums, squares = np.zeros((draws, values.shape[1])), np.zeros(values.shape[1])
    start = 0
    for difference in _differences(values, selection):
        mine = signs[:, component[selection.true[start : start + AT_ONCE]]].astype(np.float64)
        sums, squares, start = sums + mine @ difference, squares + _squares(difference), start + AT_ONCE
    chosen = [_largest(size) for size in standardised(sums, np.broadcast_to(squares, sums.shape))]
    of_draw = signs[:, component[held_out.true]]
    found = [share_of(order(values, unit, held_out) * mine) for unit, mine in zip(chosen, of_draw, strict=True)]
    return np.array(found)
