"""How many targets a unit responds to where every unit fires as often as a latent, and how directions share dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import sparse

from sae_lens_meme.evaluators.contest import Rows, Targets
from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.fisher import greater_one_a_group, one_a_group
from sae_lens_meme.metrics.multiple_testing import rejected
from sae_lens_meme.metrics.threads import in_threads

COLUMNS_AT_ONCE = 128


class Answers(NamedTuple):
    """Of each unit and target."""

    selected: Bool[np.ndarray, "units targets"]
    """q < alpha over all units and targets, on the memes that select."""
    confirmed: Bool[np.ndarray, "units targets"]
    """Of these, p < alpha on test memes."""

    def factors(self, targets: Targets) -> Int[np.ndarray, " units"]:
        """Labels or planted factors whose values the unit responds to; two that are one question count once."""
        same, code = targets.same(), np.unique(targets.factor, return_inverse=True)[1]
        first = np.array([code[np.flatnonzero(same[t])[0]] for t in range(len(targets))], dtype=np.int64)
        return np.stack([self.confirmed[:, first == c].any(axis=1) for c in np.unique(first)]).sum(axis=0)


def answers(
    active: Any, targets: Targets, rows: Rows, alpha: float, groups: Int[np.ndarray, " n"] | None = None
) -> Answers:
    """A unit responds to a target on which it fires more often, within source: chosen on some memes, confirmed on others.

    Args:
        active: CSR [n, units], above 0 where a unit fires.
        groups: memes of one are not independent evidence: one of each is tested.
    """
    counter, draws = Counter(active, targets.codes, rows.strata), one_a_group(groups)

    def log_p(which: np.ndarray) -> Float[np.ndarray, "units targets"]:
        weights = np.zeros(len(targets.codes), np.int64)
        weights[which] = 1
        return greater_one_a_group(counter.count, draws, alpha, weights)

    selected = rejected(log_p(rows.selection), alpha)
    return Answers(selected, selected & (log_p(rows.test) < np.log(alpha)))


def matched_rates(
    n_active: Int[np.ndarray, " latents"], n_units: int, rng: np.random.Generator
) -> Int[np.ndarray, " units"]:
    """How often each of this many units is to fire: the firing rates of the latents that fire at all, assigned at random."""
    fires = np.sort(n_active[n_active > 0])
    if not len(fires):
        return np.zeros(n_units, np.int64)
    return rng.permutation(fires[np.linspace(0, len(fires) - 1, n_units).round().astype(np.int64)])


class Neurons(NamedTuple):
    """Each dimension, then each with its sign turned: a neuron may say one thing by a large value and another by a small one."""

    d: int

    def __len__(self) -> int:
        return 2 * self.d

    def values(self, z: Float[np.ndarray, "n d"], units: slice) -> Float[np.ndarray, "n chosen"]:
        place = np.arange(2 * self.d)[units]
        return z[:, place % self.d] * np.where(place < self.d, np.float32(1), np.float32(-1))


class Projections(NamedTuple):
    """Along directions."""

    directions: Float[np.ndarray, "units d"]

    def __len__(self) -> int:
        return len(self.directions)

    def values(self, z: Float[np.ndarray, "n d"], units: slice) -> Float[np.ndarray, "n chosen"]:
        return z @ self.directions[units].T.astype(np.float32)


def thresholds(
    units: Neurons | Projections, z: Float[np.ndarray, "s d"], n_active: Int[np.ndarray, " units"]
) -> Float[np.ndarray, " units"]:
    """From which value each unit fires, so that `n_active` of these memes fire it (more where values are tied)."""
    found = np.full(len(units), np.inf)
    for start in range(0, len(units), COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        for i, column in enumerate(np.ascontiguousarray(units.values(z, block).T), start):
            if k := int(n_active[i]):
                ordered = np.partition(column, [-k, -min(k + 1, len(column))])
                found[i] = (float(ordered[-k]) + ordered[-min(k + 1, len(column))]) / 2
    return found


def firing(
    units: Neurons | Projections,
    batches: Iterable[Float[np.ndarray, "batch d"]],
    threshold: Float[np.ndarray, " units"],
) -> Any:
    """CSR [n, units] of ones where a unit is at its threshold or above; batch by batch, so that it grows with what fires."""
    parts = (units.values(z, slice(None)) >= threshold for z in batches)
    return sparse.vstack([sparse.csr_matrix(part.astype(np.float32)) for part in parts], format="csr")


BLOCK = 512


class Geometry(NamedTuple):
    """Of each direction; NaN for a direction without length."""

    dimensionality: Float64[np.ndarray, " units"]
    mean_abs_cosine: Float64[np.ndarray, " units"]
    """With the others."""
    max_abs_cosine: Float64[np.ndarray, " units"]


def geometry(rows: Float[np.ndarray, "units d"]) -> Geometry:
    """Of directions of unit length: how long a row is and how large its activations are can be exchanged."""
    length = np.linalg.norm(rows, axis=1)
    some = length > 0
    found = np.full((3, len(rows)), np.nan)
    unit = rows[some]
    unit /= length[some, None]
    found[0, some] = feature_dimensionality(unit)
    if some.sum() > 1:
        found[1:, some] = interference(unit)
    return Geometry(*found)


def feature_dimensionality(rows: Float[np.ndarray, "units d"]) -> Float64[np.ndarray, " units"]:
    """|w_i|^2 / sum over j of (w_i . w_j / |w_i|)^2: the share of a dimension that each direction has to itself.

    1 for a direction that is orthogonal to all others, 1/2 for each of an antipodal pair. The sum over all is at most the
    rank (Elhage et al. 2022, "Toy Models of Superposition"). O(units x d^2): no matrix of units x units is made. NaN for a
    direction without length.
    """
    rows = np.asarray(rows, np.float64)
    square = np.einsum("ud,ud->u", rows, rows)
    shared = np.einsum("ud,ud->u", rows @ (rows.T @ rows), rows)
    return np.divide(square**2, shared, out=np.full(len(rows), np.nan), where=shared > 0)


def interference(unit: Float[np.ndarray, "units d"]) -> Float64[np.ndarray, "2 units"]:
    """Mean and largest |cosine| of each direction of unit length with the others; NaN for one alone."""
    narrow, n = np.ascontiguousarray(unit, np.float32), len(unit)
    if n < 2:
        return np.full((2, n), np.nan)

    def of(start: int) -> np.ndarray:
        cosines = narrow[start : start + BLOCK] @ narrow.T
        np.abs(cosines, out=cosines)
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = 0
        return np.stack([cosines.sum(axis=1, dtype=np.float64) / (n - 1), np.minimum(cosines.max(axis=1), 1)])

    return np.concatenate(in_threads(of, range(0, n, BLOCK)), axis=1)


def expected_abs_cosine(d: int) -> float:
    """Mean |cosine| of two random directions in d dimensions, Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2))."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
