"""What a sweep found: a row per setting, and one sentence that says which one to choose and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.contest.standings import Mean, short
from sae_lens_meme.evaluators.contest.targets import LABELS
from sae_lens_meme.evaluators.evidence import tracking
from sae_lens_meme.sweep.scores import RECONSTRUCTED, STABLE, TEST, VALIDATION, Draws, ScoredSetting, Yardstick, mean_of

MOST_NAMED = 6
_VERBS = {"trails": -1, "ties": 0, "beats": 1}


@dataclass(frozen=True, eq=False)
class Findings:
    """Settings are chosen on validation memes; every number in the sentence is measured on test memes."""

    scored: Sequence[ScoredSetting]
    neurons: dict[str, Draws]
    yardsticks: dict[str, Yardstick]

    @property
    def chosen(self) -> ScoredSetting:
        """The best on validation memes; of equal ones the first."""
        return max(self.scored, key=lambda one: one.mean(VALIDATION)[0])

    def difference(self, other: Draws) -> Mean:
        """The chosen setting minus another, on the same test memes."""
        return mean_of(self.chosen.mean(TEST) - other)

    @property
    def tied(self) -> list[ScoredSetting]:
        """Other settings that test memes cannot tell from the chosen one, or that are better on these."""
        others = [one for one in self.scored if one is not self.chosen]
        return [one for one in others if self.difference(one.mean(TEST)).sign <= 0]

    @property
    def recommendation(self) -> str:
        yardstick, chosen = self.yardsticks[TEST], self.chosen
        found, sd = mean_of(chosen.mean(TEST)), chosen.seeds_sd(TEST)
        how = "recovery of" if yardstick.group != LABELS else "one-latent probes of"
        ends = "" if np.isnan(found.low) else f", 95 % {short(found.low)} to {short(found.high)}"
        spread = "" if np.isnan(sd) else f", sd over {len(chosen.runs)} seeds {short(sd)}"
        return (
            f"By {how} {yardstick.targets_named} take {chosen.setting.name}: best on validation memes, {yardstick.name} "
            f"{short(found.value)} on test memes{ends}{spread}; {self._controls}{self._others}"
        )

    @property
    def _controls(self) -> str:
        """Whether it is worth more than what needs no training."""
        rivals = {"dense neurons": self.neurons[TEST], "random directions of equal sparsity": self.chosen.random[TEST]}
        signs = {f"{name} ({short(float(draws[0]))})": self.difference(draws).sign for name, draws in rivals.items()}
        verbs = {verb: [name for name in signs if signs[name] == sign] for verb, sign in _VERBS.items()}
        return "it " + ", ".join(f"{verb} {' and '.join(names)}" for verb, names in verbs.items() if names)

    @property
    def _others(self) -> str:
        others, tied = len(self.scored) - 1, [one.setting.name for one in self.tied]
        if not others:
            return "."
        if not tied:
            return f". It is ahead of {'the other setting' if others == 1 else f'all {others} others'}."
        named = ", ".join(tied[:MOST_NAMED]) + (", ..." if len(tied) > MOST_NAMED else "")
        return f". Test memes do not put it ahead of {len(tied)} of {others} others ({named}): among these take the cheapest."

    @property
    def caution(self) -> str:
        """What to distrust."""
        n = len(self.chosen.runs)
        if np.isnan(mean_of(self.chosen.mean(TEST)).low):
            said = ["Without intervals (--bootstrap) the larger number counts as ahead, whatever chance did."]
        elif n > 1:
            said = [f"Intervals are over resampled test memes and {n} resampled seeds."]
        else:
            said = [
                "Intervals are over resampled test memes: they do not include what another seed would change (--seeds)."
            ]
        if self.yardsticks[TEST].group == LABELS:
            said.append(tracking("labels_k_sparse_1", "A probe on one latent"))
        return " ".join(said)

    def table(self) -> pd.DataFrame:
        """A row per setting, in the order of the grid."""
        return pd.DataFrame([self._row(one) for one in self.scored])

    def runs(self) -> pd.DataFrame:
        """A row per SAE."""
        return pd.DataFrame(
            [
                {
                    **_cells(one),
                    "seed": run.seed,
                    **{f"{part}_headline": float(draws[0]) for part, draws in run.draws.items()},
                    **run.numbers,
                }
                for one in self.scored
                for run in one.runs
            ]
        )

    def _row(self, one: ScoredSetting) -> dict[str, Any]:
        row: dict[str, Any] = {**_cells(one), "n_seeds": len(one.runs), "chosen": one is self.chosen}
        for part in (VALIDATION, TEST):
            mean = mean_of(one.mean(part))
            row |= {
                f"{part}_headline": mean.value,
                f"{part}_headline_low": mean.low,
                f"{part}_headline_high": mean.high,
            }
            row |= {f"{part}_headline_seeds_sd": one.seeds_sd(part)}
            row |= {f"{part}_neurons": float(self.neurons[part][0]), f"{part}_random": float(one.random[part][0])}
            row |= {f"{part}_{name}": one.number(f"{part}_{name}") for name in RECONSTRUCTED}
        apart = self.difference(one.mean(TEST))
        row |= {"chosen_minus": apart.value, "chosen_minus_low": apart.low, "chosen_minus_high": apart.high}
        return row | {"dead_share": one.number("dead_share"), "stable": one.stable, "stable_random": one.stable_random}

    def columns(self) -> dict[str, str]:
        """What each number of the two tables is."""
        found: dict[str, str] = {}
        for part, yardstick in self.yardsticks.items():
            rows = f"{len(yardstick.rows.test):,} {part} memes, mean over {yardstick.targets_named}"
            of = yardstick.what if part == TEST else yardstick.what.replace("on test memes", "on validation memes")
            found |= {
                f"{part}_headline": f"{of}; {rows}; mean over seeds",
                f"{part}_headline_low": "low end of its 95 % interval (bootstrap of the memes, groups drawn together, and of the seeds)",
                f"{part}_headline_high": "high end",
                f"{part}_headline_seeds_sd": "its standard deviation over seeds; null with one",
                f"{part}_neurons": "control: the same of the embedding's own dimensions, dense",
                f"{part}_random": "control: the same of as many random directions, as many firing on each meme",
                f"{part}_explained_variance_zscored": f"explained variance on {part} memes, dimensions z-scored",
                f"{part}_explained_variance": f"explained variance on {part} memes, raw",
                f"{part}_l0": f"latents that fire on a meme, mean over {part} memes",
            }
        return found | {
            "n_seeds": "SAEs of the setting",
            "seed": "training seed of the SAE",
            "chosen": "the largest validation_headline",
            "chosen_minus": "test_headline of the chosen setting minus this one, on the same memes",
            "chosen_minus_low": "low end of its 95 % interval",
            "chosen_minus_high": "high end",
            "dead_share": "share of the latents that fire on no train meme",
            "stable": f"share of the latents whose partner in an SAE of another seed has a cosine of {STABLE:g} or more "
            "(dimensions z-scored, matched one to one), mean over pairs of seeds; null with one seed",
            "stable_random": "control: the other SAE's directions replaced by Gaussian ones of the same mean and covariance",
        }


def _cells(one: ScoredSetting) -> dict[str, Any]:
    """The values of a setting; lists and mappings as text, which a column of Parquet holds."""
    cells = one.setting.values.items()
    return {key: value if isinstance(value, (str, int, float, bool)) else str(value) for key, value in cells}
