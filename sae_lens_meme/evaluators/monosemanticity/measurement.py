"""One dictionary measured on one panel: scores, permutation tests, and the numbers that sum them up."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from sae_lens_meme.evaluators.monosemanticity.panel import Panel
from sae_lens_meme.evaluators.monosemanticity.permutation import Draws, permutation_draws
from sae_lens_meme.evaluators.monosemanticity.scores import Scores, score
from sae_lens_meme.evaluators.monosemanticity.units import Units
from sae_lens_meme.evaluators.result import Number, defined, nullable

ALPHA = 0.05
Numbers = dict[str, Number]
Reasons = dict[str, str]

SCORED = (
    *("mean", "mean_low", "mean_high", "median", "mean_corrected", "median_corrected"),
    *("mean_corrected_within_source", "median_corrected_within_source", "best", "best_low", "best_high"),
    *("best_latent", "best_support", "best_effective_support"),
)
TESTED = ("share_significant", "p_best")
PERMUTED = ("mean", "median", "share_significant", "best", "best_max")


@dataclass(frozen=True, eq=False)
class Measurement:
    """Scores of every latent under every reference; `counted` have enough support, and are tested."""

    units: Units
    panel: Panel
    min_support: float
    scores: dict[str, Scores]
    counted: Bool[np.ndarray, " latents"]
    draws: dict[str, Draws] = field(default_factory=dict)
    """By reference; empty without permutations or where nothing is counted."""

    @classmethod
    def of(
        cls,
        units: Units,
        panel: Panel,
        min_support: float,
        n_permutations: int,
        seed: int,
        side: tuple[int, ...] | None = None,
    ) -> Measurement:
        counted = (units.effective_support >= min_support) & ~units.constant
        scores = score(units, panel, counted, side)
        counted &= np.logical_and.reduce([np.isfinite(found.ms) for found in scores.values()])
        found = cls(units, panel, min_support, scores, counted)
        if not n_permutations or not counted.any():
            return found
        observed = {name: found.ms for name, found in scores.items()}
        draws = permutation_draws(units, panel, observed, np.flatnonzero(counted), n_permutations, seed, side)
        return cls(units, panel, min_support, scores, counted, draws)

    def numbers(self, name: str) -> tuple[Numbers, Reasons]:
        """Of the reference `name`: over latents with enough support, and unfiltered as published."""
        scores, draws = self.scores[name], self.draws.get(name)
        every = scores.ms[np.isfinite(scores.ms)]
        found: Numbers = {"n_latents": int(self.counted.sum()), "n_unfiltered": len(every)}
        reasons: Reasons = {}
        if self.counted.any():
            found |= self._scored(scores)
        else:
            reasons |= dict.fromkeys(SCORED, self._nothing_counted())
        if len(every):
            found |= {"mean_unfiltered": float(every.mean()), "best_unfiltered": float(every.max())}
        else:
            reasons |= dict.fromkeys(("mean_unfiltered", "best_unfiltered"), "no latent fires on two memes")
        if draws is not None:
            found |= {"share_significant": draws.share_significant(ALPHA), "p_best": draws.p_best}
        else:
            reasons |= dict.fromkeys(TESTED, self._nothing_tested())
        reasons |= {key: NO_ROOM for key, value in found.items() if value is None}
        return found | dict.fromkeys(reasons), reasons

    def permuted_numbers(self, name: str) -> tuple[Numbers, Reasons]:
        """The same of latents permuted within source: means over the draws."""
        draws = self.draws.get(name)
        if draws is None:
            return dict.fromkeys(PERMUTED), dict.fromkeys(PERMUTED, self._nothing_tested())
        best = draws.permuted.max(axis=1)
        return {
            "mean": float(draws.permuted.mean(dtype=np.float64)),
            "median": float(np.median(draws.permuted, axis=1).mean()),
            "share_significant": draws.null_share_significant(ALPHA),
            "best": float(best.mean()),
            "best_max": float(best.max()),
        }, {}

    def table(self) -> pd.DataFrame:
        """One row a latent and reference; null where undefined, and `reason` says why MS or its test is."""
        return pd.concat([self._table(name) for name in self.panel.pairs], ignore_index=True)

    def _table(self, name: str) -> pd.DataFrame:
        scores, units = self.scores[name], self.units
        low, high = scores.interval
        p, q = (np.full(units.n_latents, np.nan) for _ in range(2))
        if name in self.draws:
            p[self.counted], q[self.counted] = self.draws[name].p, self.draws[name].q
        columns = {
            "ms": scores.ms,
            "low": low,
            "high": high,
            "chance": np.full(units.n_latents, scores.chance),
            "ms_corrected": scores.corrected,
            "chance_within_source": scores.chance_within_source,
            "ms_corrected_within_source": scores.corrected_within_source,
            "p": p,
            "q": q,
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

    def _scored(self, scores: Scores) -> Numbers:
        counted, (low, high) = self.counted, scores.interval
        mean_low, mean_high = scores.mean_interval(counted)
        best = int(np.flatnonzero(counted)[scores.ms[counted].argmax()])
        return {
            **_summary("", scores.ms[counted]),
            **{"mean_low": defined(mean_low), "mean_high": defined(mean_high)},
            **_summary("_corrected", scores.corrected[counted]),
            **_summary("_corrected_within_source", scores.corrected_within_source[counted]),
            **{"best": float(scores.ms[best]), "best_low": defined(low[best]), "best_high": defined(high[best])},
            **{"best_latent": best, "best_support": int(self.units.support[best])},
            "best_effective_support": float(self.units.effective_support[best]),
        }

    def _why(self, scores: Scores) -> np.ndarray:
        units = self.units
        reason = np.full(units.n_latents, None, dtype=object)
        reason[~self.counted] = f"effective support below {self.min_support:g}: not tested"
        reason[~np.isfinite(scores.ms)] = "no two different memes have weight in it"
        reason[units.constant] = "the same activation on every meme"
        reason[units.support == 1] = "fires on one meme only"
        reason[units.support == 0] = "fires on no meme"
        return reason

    def _nothing_counted(self) -> str:
        return f"no latent has an effective support of {self.min_support:g} on these {len(self.panel)} memes"

    def _nothing_tested(self) -> str:
        return "n_permutations is 0" if self.counted.any() else self._nothing_counted()


def headline(measured: dict[str, Measurement]) -> tuple[Numbers, Reasons]:
    """`reference/who/number` for all that were measured on one panel, `sae` among them, and for its permutations."""
    panel = measured["sae"].panel
    numbers: Numbers = {"n": len(panel), "n_zero_norm": panel.n_zero_norm}
    reasons: Reasons = {}
    for name in panel.pairs:
        numbers[f"{name}/chance"] = panel.mean_cosine(name)
        groups = {who: found.numbers(name) for who, found in measured.items()}
        for who, found in (groups | {"permuted": measured["sae"].permuted_numbers(name)}).items():
            numbers |= {f"{name}/{who}/{key}": value for key, value in found[0].items()}
            reasons |= {f"{name}/{who}/{key}": reason for key, reason in found[1].items()}
    return numbers, reasons


NO_ROOM = "chance is 1 (the reference embeddings are one vector), or without one meme no pair is left"


def _summary(suffix: str, values: Float64[np.ndarray, " counted"]) -> Numbers:
    values = values[np.isfinite(values)]
    if not len(values):
        return {f"mean{suffix}": None, f"median{suffix}": None}
    return {f"mean{suffix}": float(values.mean()), f"median{suffix}": float(np.median(values))}
