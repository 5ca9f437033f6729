"""How many targets a unit answers to, with every unit firing as often as a latent does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from sae_lens_meme.evaluators.contest import Rows, Targets
from sae_lens_meme.metrics.contingency import Counter
from sae_lens_meme.metrics.fisher import greater_one_a_group, one_a_group
from sae_lens_meme.metrics.multiple_testing import rejected

COLUMNS_AT_ONCE = 128


class Answers(NamedTuple):
    """Of each unit and target."""

    selected: Bool[np.ndarray, "units targets"]
    """q < alpha over all units and targets, on the memes that select."""
    confirmed: Bool[np.ndarray, "units targets"]
    """Of these, p < alpha on test memes."""

    def factors(self, targets: Targets) -> Int[np.ndarray, " units"]:
        """Labels or planted factors whose values the unit answers to; two that are one question count once."""
        same, code = targets.same(), np.unique(targets.factor, return_inverse=True)[1]
        first = np.array([code[np.flatnonzero(same[t])[0]] for t in range(len(targets))], dtype=np.int64)
        return np.stack([self.confirmed[:, first == c].any(axis=1) for c in np.unique(first)]).sum(axis=0)


def answers(
    active: Any, targets: Targets, rows: Rows, alpha: float, groups: Int[np.ndarray, " n"] | None = None
) -> Answers:
    """A unit answers to a target on which it fires more often, within source: chosen on some memes, confirmed on others.

    Args:
        active: CSR [n, units], above 0 where a unit fires.
        groups: memes of one are no independent evidence: one of each is tested.
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
    """How often each of so many units is to fire: the spread of the latents that fire at all, dealt out at random."""
    fires = np.sort(n_active[n_active > 0])
    if not len(fires):
        return np.zeros(n_units, np.int64)
    return rng.permutation(fires[np.linspace(0, len(fires) - 1, n_units).round().astype(np.int64)])


def at_rates(
    columns: Iterable[Float[np.ndarray, "n block"]], n_active: Int[np.ndarray, " units"], rows: Int[np.ndarray, " s"]
) -> Any:
    """Units that fire on the `n_active` memes of `rows` with the largest values, and on other memes from that value on; CSR.

    Args:
        columns: values of the units, block by block in their order.
    """
    parts, start = [], 0
    for block in columns:
        chosen, counts = np.ascontiguousarray(block[rows].T), n_active[start : start + block.shape[1]]
        largest = zip(chosen, counts, strict=True)
        threshold = np.array([np.partition(column, -k)[-k] if k else np.inf for column, k in largest], block.dtype)
        parts.append(sparse.csc_matrix((block >= threshold).astype(np.float32)))
        start += block.shape[1]
    return sparse.hstack(parts, format="csr")


def signed_neurons(z: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, "n block"]]:
    """Each dimension, then each with its sign turned: a neuron may say one thing by a large value and another by a small one."""
    for sign in (1, -1):
        for start in range(0, z.shape[1], COLUMNS_AT_ONCE):
            yield sign * z[:, start : start + COLUMNS_AT_ONCE]


def projections(
    z: Float[np.ndarray, "n d"], directions: Float[np.ndarray, "units d"]
) -> Iterator[Float[np.ndarray, "n block"]]:
    for start in range(0, max(len(directions), 1), COLUMNS_AT_ONCE):
        yield z @ directions[start : start + COLUMNS_AT_ONCE].T.astype(np.float32)
