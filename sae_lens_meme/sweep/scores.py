"""What is measured on each SAE of a sweep and on its rivals: recovery of planted values where these are known, else probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float64

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.contest.matched import Weights, correlation_of, one_to_one
from sae_lens_meme.evaluators.contest.probing import k_sparse
from sae_lens_meme.evaluators.contest.quantities import ESTIMATORS
from sae_lens_meme.evaluators.contest.standings import Mean
from sae_lens_meme.evaluators.contest.targets import LABELS, PLANTED, Key, Rows, Targets, targets_of
from sae_lens_meme.evaluators.contest.units import Units, of_dictionary, of_directions
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.reconstruction import Reconstruction
from sae_lens_meme.evaluators.rows import resampled
from sae_lens_meme.evaluators.stability.compute import Directions, directions_of, match, random_like
from sae_lens_meme.standardize import train_moments
from sae_lens_meme.sweep.grid import Setting

VALIDATION, TEST = "validation", "test"
RECONSTRUCTED = ("explained_variance_zscored", "explained_variance", "l0")
STABLE = 0.7
"""Cosine with its partner from which on a latent counts as found again, as in `stability`."""


def mean_of(draws: Draws) -> Mean:
    """With a 95 % interval over memes and seeds; NaN where undefined."""
    return Mean.of(draws[:, None])


@dataclass(frozen=True, eq=False)
class SeedScores:
    """One SAE. `draws` are those of the yardstick, empty without one."""

    seed: int
    numbers: dict[str, float | None]
    draws: dict[str, Draws]
    directions: Directions


@dataclass(frozen=True, eq=False)
class ScoredSetting:
    """The SAEs of one setting."""

    setting: Setting
    runs: Sequence[SeedScores]
    random: dict[str, Draws]
    """Of as many random directions, as many of them firing on each meme as latents of the first SAE."""
    stable: float = np.nan
    """Share of the latents that an SAE of another seed has too; NaN with one seed."""
    stable_random: float = np.nan

    def mean(self, part: str) -> Draws:
        """Of the yardstick over the seeds. Bootstrap samples draw the seeds, too, independently of other settings.

        The deviation of n drawn seeds from their mean is scaled by sqrt(n / (n - 1)): a resample of few varies too little.
        """
        draws = np.array([run.draws[part] for run in self.runs])
        n, mean = len(draws), draws.mean(axis=0)
        if n == 1:
            return mean
        rng = np.random.default_rng([n, *self.setting.folder.encode()])
        drawn = draws[rng.integers(n, size=draws.shape), np.arange(draws.shape[1])].mean(axis=0)
        return np.where(np.arange(len(mean)) == 0, mean, mean + np.sqrt(n / (n - 1)) * (drawn - mean))

    def number(self, name: str) -> float:
        """Mean over the seeds; NaN where it is undefined."""
        return float(np.mean([np.nan if (x := run.numbers[name]) is None else x for run in self.runs]))

    def seeds_sd(self, part: str) -> float:
        values = [run.draws[part][0] for run in self.runs]
        return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


@dataclass(eq=False)
class SweepScorer:
    """Measures on validation memes, for choosing, and on test memes, for telling.

    Args:
        key: what is true of planted memes.
    """

    memes: Embeddings
    hook: str
    key: Key | None
    replicates: int
    yardsticks: dict[str, Yardstick] = field(init=False)

    def __post_init__(self) -> None:
        self._views = {VALIDATION: without_test(self.memes), TEST: self.memes}
        self._moments = train_moments(self.memes, self.hook)
        self.yardsticks = {part: Yardstick.of(view, self.key, self.replicates) for part, view in self._views.items()}

    def neurons(self, latents: Any) -> dict[str, Draws]:
        """The dimensions of the embedding itself, dense: the same for every setting."""
        units = next(of_directions("neurons", self.memes, self.hook, latents, self._moments, 0))
        return {part: measure(units) for part, measure in self.yardsticks.items()}

    def score(self, setting: Setting, saes: dict[int, Any]) -> tuple[ScoredSetting, Any]:
        """The SAEs of one setting by seed; and the latents of the first."""
        runs: list[SeedScores] = []
        first = encode(next(iter(saes.values())), self.memes, self.hook)
        for seed, sae in saes.items():
            latents = encode(sae, self.memes, self.hook) if runs else first
            units = of_dictionary("sae", sae, latents, self._moments)
            draws = {part: measure(units) for part, measure in self.yardsticks.items()}
            runs.append(SeedScores(seed, self._numbers(sae, latents), draws, self._directions(sae, latents)))
        *_, few = of_directions("random", self.memes, self.hook, first, self._moments, 0)
        random = {part: measure(few) for part, measure in self.yardsticks.items()}
        return ScoredSetting(setting, runs, random, *self._stability([run.directions for run in runs])), first

    def _numbers(self, sae: Any, latents: Any) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for part, view in self._views.items():
            numbers = Reconstruction(view, hook=self.hook).evaluate(sae, latents=latents).numbers
            found |= {f"{part}_{name}": numbers[f"held_out/{name}"] for name in RECONSTRUCTED}
            found["dead_share"] = numbers["train/dead_share"]
        return found

    def _directions(self, sae: Any, latents: Any) -> Directions:
        return directions_of(sae, latents, np.where(self._moments.dead, np.inf, self._moments.std))

    def _stability(self, directions: Sequence[Directions]) -> tuple[float, float]:
        """Mean over pairs of seeds, and the same where the second has random directions of its mean and covariance."""
        rng = np.random.default_rng(0)
        pairs = list(combinations(directions, 2))
        found = [[_share(one, other), _share(one, random_like(other, rng))] for one, other in pairs]
        stable, random = np.mean(found, axis=0) if found else (np.nan, np.nan)
        return float(stable), float(random)


def _share(one: Directions, other: Directions) -> float:
    cosine = match(one, other).cosine[one.alive]
    return float((np.nan_to_num(cosine) >= STABLE).mean()) if len(cosine) else np.nan


Draws = Float64[np.ndarray, " draws"]
"""Means over targets: of the memes as they are, then of each bootstrap sample."""


def without_test(memes: Embeddings) -> Embeddings:
    """The same memes, of which no test meme is in a split: what is measured on them is measured on validation memes."""
    return replace(memes, left_out=memes.left_out | frozenset(memes.rows("test").tolist()))


@dataclass(frozen=True, eq=False)
class Yardstick:
    """One number per SAE, on the held-out memes of these embeddings."""

    group: str
    targets: Targets
    rows: Rows
    weights: Weights

    @classmethod
    def of(cls, memes: Embeddings, key: Key | None, replicates: int) -> Yardstick:
        """Raises DataError where no label and no planted value can be scored."""
        rows, group = Rows.of(memes), LABELS if key is None else PLANTED
        targets, _ = targets_of(memes, rows, None, key)
        mine = targets.columns(group)
        if not len(mine):
            raise DataError("no planted value has enough true and false memes among the held-out ones")
        return cls(group, targets.only(mine), rows, resampled(memes, rows.test, replicates, seed=0))

    @property
    def name(self) -> str:
        return "MCC" if self.group == PLANTED else "AUROC"

    @property
    def targets_named(self) -> str:
        n = len(self.targets)
        return f"{n} planted value{'s'[: n != 1]}" if self.group == PLANTED else f"{n} label concept{'s'[: n != 1]}"

    @property
    def what(self) -> str:
        """Its definition."""
        quantity = ESTIMATORS["mcc" if self.group == PLANTED else "k_sparse"]
        return quantity.what if self.group == PLANTED else f"k = 1: {quantity.what}"

    def __call__(self, units: Units) -> Draws:
        if self.group == PLANTED:
            columns = one_to_one(units, self.targets, self.rows).columns(units)
            draws = correlation_of(columns, self.targets, self.rows, self.weights)
        else:
            draws = k_sparse(units, self.targets, self.rows, (1,), self.weights)[1]
        return np.nanmean(draws, axis=1)
