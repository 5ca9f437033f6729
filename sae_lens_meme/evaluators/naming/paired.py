"""How well what is said of a latent tells which memes fire it: one statement a latent, tables within source.

The statement is the predictor and the firing is what it predicts: precision is the share of the memes of which the
statement is true that fire the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real, UInt8
from scipy import sparse

from sae_lens_meme.jit import njit
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN, Tables
from sae_lens_meme.metrics.effect_sizes import f1_always_on, f1_score, precision, recall
from sae_lens_meme.metrics.fisher import stratified_greater
from sae_lens_meme.metrics.ranking import Ranked, auroc, delong_interval

Values = Float[np.ndarray, " latents"]
SCORES = (
    *("n", "support", "n_true", "auroc", "auroc_low", "auroc_high", "correlation"),
    *("f1", "f1_always_on", "precision", "recall", "log_p"),
)


@dataclass(frozen=True, eq=False)
class Statements:
    """Things that are true or false of some memes: `the caption holds this word`, `this concept holds`."""

    rows: Int[np.ndarray, " n"]
    """Which memes."""
    true: sparse.csc_matrix
    """[n, statements]"""
    known: sparse.csc_matrix | None
    """[n, statements]; None where all are known."""
    sources: Int[np.ndarray, " n"]

    def codes(self, statement: int) -> UInt8[np.ndarray, "n 1"]:
        """UNKNOWN, FALSE or TRUE of each meme."""
        codes = np.full((len(self.rows), 1), FALSE if self.known is None else UNKNOWN, dtype=np.uint8)
        if self.known is not None:
            codes[_rows_of(self.known, statement)] = FALSE
        codes[_rows_of(self.true, statement)] = TRUE
        return codes


class PairCounter:
    """Tables of (latent fires) x (its statement is true), `[1, latents, strata]`, under different weights.

    Args:
        active: CSC [n, latents], sorted.
        chosen: the statement of each latent; -1 gives an empty table.
    """

    def __init__(self, active: Any, statements: Statements, chosen: Int[np.ndarray, " latents"]):
        n_strata = int(statements.sources.max(initial=0)) + 1
        self._active, self._statements, self._chosen = active, statements, np.ascontiguousarray(chosen)
        self._one_hot = np.eye(n_strata)[statements.sources]

    def count(self, weights: Real[np.ndarray, " n"] | None = None) -> Tables:
        """Tables in which each meme counts `weights` times (whole numbers, default once)."""
        strata = self._one_hot if weights is None else self._one_hot * weights[:, None]
        true, known = self._statements.true, self._statements.known
        if known is None:
            fires, n = _columns_sum(self._active, strata), np.tile(strata.sum(0), (len(self._chosen), 1))
        else:
            fires, n = self._both(known, strata), _columns_sum(known, strata)[self._chosen]
        margins = (_columns_sum(true, strata)[self._chosen], n)
        none = self._chosen[:, None] < 0
        both, fires, true, n = (
            np.where(none, 0, x).astype(np.int64) for x in (self._both(true, strata), fires, *margins)
        )
        return Tables(both[None], fires[None], true, n)

    def _both(self, flags: Any, strata: np.ndarray) -> np.ndarray:
        active = self._active
        return _both(active.indptr, active.indices, flags.indptr, flags.indices, self._chosen, strata)


def scores(tables: Tables) -> dict[str, Values]:
    """SCORES of every latent, NaN where undefined.

    `auroc` is the probability that the statement ranks a meme that fires above one that does not (of the same source,
    ties half), with DeLong's interval; `correlation` is Pearson's of the two indicators, each centred within source;
    `log_p` the natural log of the exact one-sided p within source.
    """
    a, b, c, d = (part[0].astype(np.float64) for part in tables.abcd)
    fires, true, n = (a + b).sum(1), (a + c).sum(1), tables.n.sum(1)
    counts = {"n": n, "support": fires, "n_true": true}
    value, error = _auroc_of_indicator(a, b, c, d)
    low, high = delong_interval(value, error)
    return {
        **{name: np.where(n > 0, count, np.nan) for name, count in counts.items()},
        **{"auroc": value, "auroc_low": low, "auroc_high": high},
        "correlation": correlation(tables)[0],
        **{"f1": f1_score(a.sum(1), true, fires), "f1_always_on": np.where(fires > 0, f1_always_on(fires, n), np.nan)},
        **{"precision": precision(a.sum(1), true), "recall": recall(a.sum(1), fires)},
        "log_p": stratified_greater(tables)[0],
    }


def correlation(tables: Tables) -> Float[np.ndarray, "latents statements"]:
    """Pearson's correlation of firing and truth within strata; NaN where one of them is constant in every stratum."""
    n = np.maximum(tables.n, 1)
    together = (tables.fires_true - tables.fires * tables.true / n).sum(-1)
    spread = (tables.fires * (1 - tables.fires / n)).sum(-1) * (tables.true * (1 - tables.true / n)).sum(-1)
    return np.divide(together, np.sqrt(spread), out=np.full(together.shape, np.nan), where=spread > 1e-9)


def activation_auroc(
    active: Any, statements: Statements, chosen: Int[np.ndarray, " latents"]
) -> tuple[Values, Values, Values]:
    """How well the activation ranks memes of which the statement is true above the others: value, low and high."""
    order = np.argsort(chosen, kind="stable")
    ranked, first = Ranked.of(active[:, order]), np.searchsorted(chosen[order], 0)
    value, error = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    for group in np.split(np.arange(first, len(chosen)), np.flatnonzero(np.diff(chosen[order][first:])) + 1):
        if len(group) == 0:
            continue
        starts = ranked.starts[group[0] : group[-1] + 2]
        mine = Ranked(starts - starts[0], *(part[starts[0] : starts[-1]] for part in ranked[1:]))
        found = auroc(mine, statements.codes(int(chosen[order[group[0]]])), statements.sources)
        value[order[group]], error[order[group]] = (part[:, 0] for part in found)
    silent = np.diff(active.indptr) == 0
    value = np.where(silent, np.nan, value)
    return value, *delong_interval(value, error)


def _auroc_of_indicator(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> tuple[Values, Values]:
    """AUROC of a yes-or-no predictor and DeLong's error from [latents, strata] counts, as `ranking.auroc` weighs them."""
    fires, silent = a + b, c + d
    wins = a * (d + c / 2) + b * d / 2  # sums over placements, which take two values a class
    pairs = (fires * silent).sum(1)
    spread_fires = a * (d + c / 2) ** 2 + b * (d / 2) ** 2 - wins**2 / np.maximum(fires, 1)
    spread_silent = c * (a / 2) ** 2 + d * (a + b / 2) ** 2 - wins**2 / np.maximum(silent, 1)
    known = (fires > 0) & (silent > 0)
    variance = fires * spread_fires / np.maximum(fires - 1, 1) + silent * spread_silent / np.maximum(silent - 1, 1)
    variance = np.maximum(np.where(known, variance, 0).sum(1), 0)
    single = ~((fires > 1) & (silent > 1)).any(1)  # one meme alone has no spread
    with np.errstate(divide="ignore", invalid="ignore"):
        return wins.sum(1) / pairs, np.where(single, np.nan, np.sqrt(variance) / pairs)


def _rows_of(flags: Any, column: int) -> np.ndarray:
    return flags.indices[flags.indptr[column] : flags.indptr[column + 1]]


def _columns_sum(flags: Any, strata: np.ndarray) -> np.ndarray:
    """Sum of the weights of the memes in each column, by stratum."""
    ones = sparse.csr_matrix((np.ones(flags.nnz), flags.indices, flags.indptr), shape=flags.shape[::-1])
    return ones @ strata


@njit(nogil=True)
def _both(starts, rows, flag_starts, flag_rows, chosen, strata):
    """Sum of the weights of the memes that are in the column of the latent and in that of its statement."""
    out = np.zeros((len(chosen), strata.shape[1]))
    for i in range(len(chosen)):
        if chosen[i] < 0:
            continue
        j, k = starts[i], flag_starts[chosen[i]]
        while j < starts[i + 1] and k < flag_starts[chosen[i] + 1]:
            if rows[j] == flag_rows[k]:
                for s in range(strata.shape[1]):
                    out[i, s] += strata[rows[j], s]
                j += 1
                k += 1
            elif rows[j] < flag_rows[k]:
                j += 1
            else:
                k += 1
    return out
