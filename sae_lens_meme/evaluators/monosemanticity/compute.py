"""Monosemanticity scores in time linear in the non-zeros: point values, exact jackknife, chance, permutation tests.

MS_f = sum_{n<m} a_n a_m cos(e_n, e_m) / sum_{n<m} a_n a_m (Pach et al. 2025, arXiv:2504.02821, their metric.py). With
unit e and V_f = sum a_n e_n the numerator is (|V_f|^2 - sum a^2) / 2; across sides it is V_f . W_f - sum a_n b_n i_n . t_n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int

from sae_lens_meme.evaluators.monosemanticity.kernels import (
    add_weighted,
    advance,
    balanced,
    permuted_pair_sums,
    products,
)
from sae_lens_meme.evaluators.monosemanticity.panel import Pair, Panel, PanelUnits
from sae_lens_meme.evaluators.result import nullable
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg
from sae_lens_meme.metrics.resampling import permutation_within

SUMS_BYTES = 2**28
"""Weighted sums are held for as many latents at a time as fit in this."""
Z = 1.959964  # 95 %
LOST = 1e-12
"""A denominator below this share of what it was is rounding: the pair sum without that meme is 0."""
BLOCK = 32  # draws at a time
TIE = 1e-5
"""Draws are float32: a draw this little below the observed score counts as reaching it."""
NULL_TESTS = 20
"""So many draws are tested as if they had been observed, for what the test finds where there is nothing."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Of every latent under one reference; NaN where undefined."""

    ms: Float64[np.ndarray, " latents"]
    error: Float64[np.ndarray, " latents"]
    """Delete-one jackknife standard error over groups of memes, the min-max scaling held fixed."""
    chance: float
    """Mean cosine of all pairs of different memes."""
    chance_within_source: Float64[np.ndarray, " latents"]
    """Expected MS when the activations are handed to random memes of the same source."""
    influence: Float64[np.ndarray, " groups"]
    """Of each group of memes: sum over the counted latents, and over its memes, of MS without the meme minus MS."""

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """95 %, within -1 and 1."""
        return np.clip(self.ms - Z * self.error, -1, 1), np.clip(self.ms + Z * self.error, -1, 1)

    @property
    def corrected(self) -> Float64[np.ndarray, " latents"]:
        """(MS - chance) / (1 - chance): 0 at chance, 1 where all memes are one."""
        return _corrected(self.ms, np.full_like(self.ms, self.chance))

    @property
    def corrected_within_source(self) -> Float64[np.ndarray, " latents"]:
        return _corrected(self.ms, self.chance_within_source)

    def mean_interval(self, counted: Bool[np.ndarray, " latents"]) -> tuple[float, float]:
        """Of the mean MS over the counted latents, by the same jackknife; NaN where none is counted."""
        if not counted.any():
            return np.nan, np.nan
        mean = float(self.ms[counted].mean())
        error = float(_jackknife_error(self.influence.sum(), (self.influence**2).sum(), len(self.influence)))
        return mean - Z * error / counted.sum(), mean + Z * error / counted.sum()


def score(
    units: PanelUnits,
    panel: Panel,
    counted: Bool[np.ndarray, " latents"] | None = None,
    side: tuple[int, ...] | None = None,
    intervals: bool = True,
) -> dict[str, Scores]:
    """The scores of each reference of the panel.

    Float64 throughout: equal to the sum over pairs to 1e-10, unless one meme outweighs all others of a latent
    together a million times.

    Args:
        counted: the latents whose mean is needed; default: all with a score.
        side: which weights of the units go with each hook; default the first with all.
        intervals: without them one pass over the embeddings less; `error` is then NaN.
    """
    side = (0,) * len(panel.hooks) if side is None else side
    counted = np.ones(units.n_latents, bool) if counted is None else counted
    parts = [_score(units.part(*part), panel, counted[slice(*part)], side, intervals) for part in _parts(units, panel)]
    return {name: _joined([part[name] for part in parts]) for name in panel.pairs}


def _score(
    units: PanelUnits, panel: Panel, counted: np.ndarray, side: tuple[int, ...], intervals: bool
) -> dict[str, Scores]:
    sums = [np.zeros((units.n_latents, s.shape[1])) for s in panel.sums]
    scaled = [units.values[side[h]] * panel.inverse_norm[h, units.rows] for h in range(len(panel.hooks))]
    order = balanced(np.diff(units.indptr))
    for first, begin, end, batch in _walk(units, panel):
        for h, x in enumerate(batch):
            add_weighted(order, begin, end, units.rows, scaled[h], x, first, sums[h])
    dots = _dots(units, panel, sums, order) if intervals else {}
    found = {}
    for p, (name, (i, j)) in enumerate(panel.pairs.items()):
        a, b, within = units.values[side[i]], units.values[side[j]], panel.diagonal[p, units.rows]
        numerator = np.einsum("fd,fd->f", sums[i], sums[j]) - units.summed(a * b * within)
        denominator = units.pair_weight(side[i], side[j])
        ms = np.divide(numerator, denominator, out=np.full(units.n_latents, np.nan), where=denominator > 0)
        error, influence = np.full(units.n_latents, np.nan), np.zeros(panel.n_groups)
        if intervals:
            lost = a * (dots[i, j] - b * within) + b * (dots[j, i] - a * within)
            change = _without(units, a, b, numerator, denominator, lost) - ms[units.column]
            squares = units.summed_squares(change, panel.groups)
            error = _jackknife_error(units.summed(change), squares, panel.n_groups)
            ours = np.where((counted & np.isfinite(ms))[units.column], change, 0.0)
            influence = np.bincount(panel.groups[units.rows], ours, minlength=panel.n_groups)
        chance = _chance_within_source(units, panel, name, a, b, denominator)
        error[np.isnan(ms)] = np.nan
        found[name] = Scores(ms, error, panel.mean_cosine(name), chance, influence)
    return found


def _dots(
    units: PanelUnits, panel: Panel, sums: list[np.ndarray], order: Int[np.ndarray, " latents"]
) -> dict[Pair, Float64[np.ndarray, " active"]]:
    """(i, j): the unit embedding at hook i of each weight's meme times the weighted sum of its latent at hook j."""
    wanted = {pair for i, j in panel.pairs.values() for pair in ((i, j), (j, i))}
    found = {pair: np.empty(len(units.rows)) for pair in wanted}
    for first, begin, end, batch in _walk(units, panel):
        for (i, j), out in found.items():
            products(order, begin, end, units.rows, batch[i], first, sums[j], out)
    for (i, _), out in found.items():
        out *= panel.inverse_norm[i, units.rows]
    return found


def _without(
    units: PanelUnits, a: np.ndarray, b: np.ndarray, numerator: np.ndarray, denominator: np.ndarray, lost: np.ndarray
) -> Float64[np.ndarray, " active"]:
    """MS without the meme of each weight; NaN where no pair of other memes has weight.

    Without meme n the numerator loses a_n (i_n . W - b_n i_n . t_n) + b_n (t_n . V - a_n i_n . t_n), given as `lost`.
    """
    column = units.column
    others = a * (units.summed(b)[column] - b) + b * (units.summed(a)[column] - a)
    weight = denominator[column] - others
    left = weight > LOST * denominator[column]
    return np.divide(numerator[column] - lost, weight, out=np.full(len(weight), np.nan), where=left)


def _jackknife_error(total: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """From sums over groups of memes of the changes; groups on which a latent is silent change nothing."""
    return np.sqrt(np.maximum(squares - total**2 / n, 0.0) * (n - 1) / n)


def _chance_within_source(
    units: PanelUnits, panel: Panel, name: str, a: np.ndarray, b: np.ndarray, denominator: np.ndarray
) -> Float64[np.ndarray, " latents"]:
    """Pairs (n, m) of sources (s, t) have weight A_s B_t, and after a permutation the mean cosine of such pairs."""
    cosine, n = panel.mean_cosine_by_stratum(name), panel.n_strata
    in_a, in_b = (units.by_stratum(values, panel.strata, n) for values in (a, b))
    itself = units.by_stratum(a * b, panel.strata, n) @ np.diag(cosine)
    expected = ((in_a @ cosine) * in_b).sum(axis=1) - itself
    return np.divide(expected, denominator, out=np.full(units.n_latents, np.nan), where=denominator > 0)


def _walk(units: PanelUnits, panel: Panel) -> Iterator[tuple[int, np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Batches of embeddings, with the stretch of each latent's weights that falls into them."""
    begin = units.indptr[:-1]
    for first, batch in panel.batches():
        end = advance(begin, units.indptr[1:], units.rows, first + len(batch[0]))
        yield first, begin, end, batch
        begin = end


def _parts(units: PanelUnits, panel: Panel) -> list[tuple[int, int]]:
    width = 8 * (sum(s.shape[1] for s in panel.sums) + 4 * panel.n_strata)
    step = max(SUMS_BYTES // width, 1)
    return [(start, min(start + step, units.n_latents)) for start in range(0, units.n_latents, step)]


def _joined(parts: list[Scores]) -> Scores:
    ms, error, within = (
        np.concatenate([getattr(p, k) for p in parts]) for k in ("ms", "error", "chance_within_source")
    )
    return Scores(ms, error, parts[0].chance, within, np.sum([p.influence for p in parts], axis=0))


def _corrected(ms: np.ndarray, chance: np.ndarray) -> np.ndarray:
    room = 1 - chance
    return np.divide(ms - chance, room, out=np.full_like(ms, np.nan), where=room > LOST)


@dataclass(frozen=True, eq=False)
class Draws:
    """MS of the tested latents under one reference: observed, and in every draw."""

    observed: Float[np.ndarray, " tested"]
    permuted: Float32[np.ndarray, "draws tested"]

    @property
    def p(self) -> Float[np.ndarray, " tested"]:
        """One-sided: (1 + draws that reach the observed score) / (1 + draws)."""
        return (1 + (self.permuted >= self.observed - TIE).sum(axis=0)) / (1 + len(self.permuted))

    @property
    def p_best(self) -> float:
        """The best of the tested latents against the best of each draw: holds for the choice among all of them."""
        reached = self.permuted.max(axis=1) >= self.observed.max() - TIE
        return float((1 + reached.sum()) / (1 + len(self.permuted)))

    def share_significant(self, alpha: float) -> float:
        return float((self.q < alpha).mean())

    @property
    def q(self) -> Float[np.ndarray, " tested"]:
        """Benjamini-Hochberg over the tested latents."""
        return benjamini_hochberg(np.log(self.p))

    def null_share_significant(self, alpha: float) -> float:
        """The mean share over draws that are each tested against all draws."""
        shares = []
        for draw in self.permuted[:NULL_TESTS]:
            p = (self.permuted >= draw - TIE).mean(axis=0)
            shares.append((benjamini_hochberg(np.log(p)) < alpha).mean())
        return float(np.mean(shares))


def permutation_draws(
    units: PanelUnits,
    panel: Panel,
    observed: dict[str, np.ndarray],
    tested: Int[np.ndarray, " tested"],
    n_draws: int,
    seed: int,
    side: tuple[int, ...] | None = None,
) -> dict[str, Draws]:
    """Draws of each reference of the panel, the same permutations for all latents and references.

    A meme's permutation depends on the sorted ids of its source, not on the order of the rows. Memory: the unit
    vectors in float32, and 4 bytes a draw, tested latent and reference.

    Args:
        observed: MS of all latents, by reference.
        tested: latents with a score.
    """
    side = (0,) * len(panel.hooks) if side is None else side
    vectors, weights = panel.units(), units.values.astype(np.float32)
    pairs, diagonal = np.array(list(panel.pairs.values())), panel.diagonal.astype(np.float32)
    sums = np.empty((n_draws, len(pairs), len(tested)), np.float32)
    generator = np.random.default_rng(seed)
    for start in range(0, n_draws, BLOCK):
        out = sums[start : start + BLOCK]
        to = moves(panel, len(out), generator)
        permuted_pair_sums(tested, units.indptr, units.rows, weights, np.array(side), vectors, pairs, diagonal, to, out)
    found = {}
    for p, (name, (i, j)) in enumerate(panel.pairs.items()):
        permuted = sums[:, p] / units.pair_weight(side[i], side[j])[tested].astype(np.float32)
        found[name] = Draws(observed[name][tested], permuted)
    return found


def moves(panel: Panel, n_draws: int, generator: np.random.Generator) -> Int[np.ndarray, "draws n"]:
    """Random permutations of the memes within their source, groups whole, independent of the order of the rows."""
    by_id = np.argsort(panel.ids, kind="stable")
    to = [permutation_within(panel.strata, generator, by_id, panel.groups) for _ in range(n_draws)]
    return np.array(to, dtype=np.int32).reshape(n_draws, len(panel))


@dataclass(frozen=True, eq=False)
class Measurement:
    """Scores of every latent under every reference; those that count have enough support, and are tested."""

    units: PanelUnits
    panel: Panel
    min_support: float
    scores: dict[str, Scores]
    counted: Bool[np.ndarray, " latents"]
    draws: dict[str, Draws] = field(default_factory=dict)
    """By reference; empty without permutations or where nothing is counted."""

    @classmethod
    def of(
        cls,
        units: PanelUnits,
        panel: Panel,
        min_support: float,
        n_draws: int,
        seed: int,
        side: tuple[int, ...] | None = None,
    ) -> Measurement:
        counted = (units.effective_support >= min_support) & ~units.constant
        scores = score(units, panel, counted, side)
        counted &= np.logical_and.reduce([np.isfinite(found.ms) for found in scores.values()])
        found = cls(units, panel, min_support, scores, counted)
        if not n_draws or not counted.any():
            return found
        observed = {name: found.ms for name, found in scores.items()}
        draws = permutation_draws(units, panel, observed, np.flatnonzero(counted), n_draws, seed, side)
        return replace(found, draws=draws)

    def best(self, name: str) -> int | None:
        """The latent that counts with the largest score."""
        counted = np.flatnonzero(self.counted)
        return int(counted[self.scores[name].ms[counted].argmax()]) if len(counted) else None

    def table(self) -> pd.DataFrame:
        """One row per latent and reference; null where undefined, and `reason` says why MS or its test is."""
        return pd.concat([self._table(name) for name in self.panel.pairs], ignore_index=True)

    def _table(self, name: str) -> pd.DataFrame:
        scores, units = self.scores[name], self.units
        low, high = scores.interval
        p, q = (np.full(units.n_latents, np.nan) for _ in range(2))
        if name in self.draws:
            p[self.counted], q[self.counted] = self.draws[name].p, self.draws[name].q
        columns = {
            **{"ms": scores.ms, "low": low, "high": high, "chance": np.full(units.n_latents, scores.chance)},
            **{"ms_corrected": scores.corrected, "chance_within_source": scores.chance_within_source},
            **{"ms_corrected_within_source": scores.corrected_within_source, "p": p, "q": q},
        }
        return pd.DataFrame(
            {
                "latent": np.arange(units.n_latents),
                "reference": np.full(units.n_latents, name, dtype=object),
                "support": units.support,
                "effective_support": units.effective_support,
                **{key: nullable(np.where(np.isfinite(column), column, np.nan)) for key, column in columns.items()},
                "reason": self._why(scores),
            }
        )

    def _why(self, scores: Scores) -> np.ndarray:
        units = self.units
        reason = np.full(units.n_latents, None, dtype=object)
        reason[~self.counted] = f"effective support below {self.min_support:g}: not tested"
        reason[~np.isfinite(scores.ms)] = "no two different memes have weight in it"
        reason[units.constant] = "the same activation on every meme"
        reason[units.support == 1] = "fires on one meme only"
        reason[units.support == 0] = "fires on no meme that is measured"
        return reason
