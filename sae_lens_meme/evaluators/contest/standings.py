"""What the scores say: means with intervals, paired differences, seeds, and the sentences made from them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from sae_lens_meme.evaluators.contest.compute import Arena, Event, Scores, names_of, questions
from sae_lens_meme.evaluators.contest.matched import Draws
from sae_lens_meme.evaluators.contest.quantities import COLUMNS, NAMES, PERMUTED, PROBE, RANDOM_LATENTS, SAE
from sae_lens_meme.metrics.resampling import percentile_interval

FEWEST_PAIRS = 5
"""Questions that differ, from which on a rank test can say something."""


class Mean(NamedTuple):
    """Over targets, with a 95 % interval over the bootstrap samples; NaN where undefined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Draws) -> Mean:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing
            means = np.nanmean(draws, axis=1) if draws.size else np.full(1, np.nan)
        low, high = percentile_interval(means[1:]) if len(means) > 1 else (np.nan, np.nan)
        return cls(float(means[0]), float(low), float(high))

    @property
    def sign(self) -> int:
        """1 above 0, -1 below, 0 where the interval holds 0; without an interval the sign of the value."""
        if np.isnan(self.low):
            return int(np.sign(np.nan_to_num(self.value)))
        return int(self.low > 0) - int(self.high < 0)


class Standings:
    """The SAE beside everything else.

    Args:
        scores: of each set of units.
        others: of the SAEs of other seeds.
        unfit: rivals that cannot be fitted -> why.
        doubts: what to distrust in how a rival was fitted.
    """

    def __init__(
        self,
        arena: Arena,
        scores: dict[str, Scores],
        others: Sequence[Scores],
        unfit: Mapping[str, str],
        doubts: Sequence[str] = (),
    ):
        self.arena, self.scores, self.others, self.unfit, self.doubts = arena, scores, others, unfit, doubts
        self.events = list(scores[SAE])
        self._questions = {event: questions(arena, event) for event in self.events}
        self.rivals = [name for name in scores if name not in (SAE, PROBE, PERMUTED, RANDOM_LATENTS)]

    def middle(self, estimator: str, group: str) -> Event:
        """The event whose number of ablated units is nearest to 5."""
        mine = [event for event in self.events if (event.estimator, event.group) == (estimator, group)]
        return min(mine, key=lambda event: abs((event.k or 0) - 5), default=Event(group, estimator, 5))

    def mean(self, event: Event, units: str = SAE) -> Mean:
        return Mean.of(self.scores[units][event])

    def difference(self, event: Event, rival: str) -> Mean:
        """The SAE minus a rival."""
        ours, theirs = self.scores[SAE][event], self.scores[rival][event]
        draws = min(len(ours), len(theirs))
        return Mean.of(ours[:draws] - theirs[:draws])

    def wilcoxon_p(self, event: Event, rival: str) -> float:
        """Over one target a question; NaN with fewer than FEWEST_PAIRS that differ."""
        apart = (self.scores[SAE][event][0] - self.scores[rival][event][0])[self._questions[event]]
        apart = apart[~np.isnan(apart) & (np.abs(apart) > 1e-12)]
        if len(apart) < FEWEST_PAIRS:
            return np.nan
        tied = len(np.unique(np.abs(apart))) < len(
            apart
        )  # with ties scipy permutes for seconds, unless it gets this method
        found: Any = wilcoxon(apart, method="asymptotic" if tied or len(apart) > 50 else "exact")
        return float(found.pvalue)

    def seeds_sd(self, event: Event) -> float:
        """NaN without SAEs of other seeds."""
        values = [self.mean(event).value, *(Mean.of(other[event]).value for other in self.others if event in other)]
        return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan

    def names(self, event: Event) -> list[str]:
        """The targets, in the order of its draws."""
        return names_of(self.arena, event)

    def rivals_of(self, event: Event) -> list[str]:
        """Those with this event; none where the SAE itself lacks it."""
        return [name for name in self.rivals if event in self.scores[name] and event in self.scores[SAE]]

    def nearest(self, event: Event) -> list[str]:
        """The best dense rival, and the best of those of which few fire."""
        sparse = [name for name in self.rivals_of(event) if not is_dense(name)]
        dense = [name for name in self.rivals_of(event) if is_dense(name)]
        return [
            max(names, key=lambda name: np.nan_to_num(self.mean(event, name).value))
            for names in (dense, sparse)
            if names
        ]

    def sentence(self, event: Event, what: str) -> str:
        """Whom the SAE leads, ties and trails."""
        signs = {name: self.difference(event, name).sign for name in self.rivals_of(event)}
        if not signs:
            return ""
        led, tied, ahead = ([name for name, sign in signs.items() if sign == wanted] for wanted in (1, 0, -1))
        if not tied and not ahead:
            return f"In {what} the SAE leads all {len(signs)} rivals."
        parts = [f"leads {len(led)} of {len(signs)} rivals"] if led else []
        parts += [
            f"{verb} {_listed([NAMES[name] for name in names])}"
            for verb, names in (("ties", tied), ("trails", ahead))
            if names
        ]
        return f"In {what} the SAE {_listed(parts)}."

    def verdict(self, event: Event, targets: str) -> str | None:
        """The SAE against dense neurons and neurons of equal sparsity, or whichever rivals there are."""
        dense = next(iter(name for name in self.rivals_of(event) if is_dense(name)), None)
        sparse = next(iter(name for name in self.rivals_of(event) if not is_dense(name)), None)
        if event not in self.scores[SAE] or np.isnan(self.mean(event).value) or not (dense or sparse):
            return None
        said: list[str] = []
        if dense:
            apart, ours, theirs = self.difference(event, dense), self.mean(event), self.mean(event, dense)
            ends = "" if np.isnan(apart.low) else f", {short(apart.low)} to {short(apart.high)}"
            numbers = f"AUROC {short(ours.value)} against {short(theirs.value)}, difference {short(apart.value)}{ends}"
            said.append(f"{_verb(apart)} {NAMES[dense]} ({numbers})")
        if sparse:
            apart = self.difference(event, sparse)
            by = "" if apart.sign == 0 else f" by {short(abs(apart.value), 2)}"
            said.append(f"{_verb(apart)} {NAMES[sparse]}{by}")
        return f"On {targets} the SAE {' and '.join(said)}."

    def table(self) -> pd.DataFrame:
        """One row for each set of units, estimator and k, and under it one for each target."""
        rows = [row for event in self.events for name in self.scores for row in self._rows(event, name)]
        numbers = [name for name in COLUMNS if name not in ("targets", "estimator", "units", "sparsity", "target")]
        kinds = dict.fromkeys(numbers, "Float64") | {"k": "Int64", "n_targets": "Int64"}
        return pd.DataFrame(rows, columns=list(COLUMNS)).replace({np.nan: None}).astype(kinds)

    def _rows(self, event: Event, units: str) -> Iterator[dict[str, object]]:
        if event not in self.scores[units]:
            return
        draws, found = self.scores[units][event], self.mean(event, units)
        sparsity = "dense" if is_dense(units) or units == PROBE else "k"
        first = {
            "targets": event.group,
            "estimator": event.estimator,
            "k": event.k,
            "units": units,
            "sparsity": sparsity,
        }
        row = {**first, "target": "all", "n_targets": draws.shape[1], **found._asdict()}
        if units in self.rivals:
            apart = self.difference(event, units)
            row |= {"sae_minus": apart.value, "sae_minus_low": apart.low, "sae_minus_high": apart.high}
            row["wilcoxon_p"] = self.wilcoxon_p(event, units)
        if units == SAE:
            row["seeds_sd"] = self.seeds_sd(event)
        yield row
        for target, value in zip(self.names(event), draws[0], strict=True):
            yield {**first, "target": target, "value": value}


def is_dense(units: str) -> bool:
    return units in ("neurons", "pca", "ica", "random")


def short(value: float, digits: int = 3) -> str:
    """-.012: without the leading zero, and never -.000; undefined is a dash."""
    if pd.isna(value):
        return "-"
    shown = f"{round(float(value), digits) + 0.0:.{digits}f}"
    return shown.replace("0.", ".", 1) if abs(value) < 1 else shown


def _verb(apart: Mean) -> str:
    return {1: "beats", 0: "ties", -1: "trails"}[apart.sign]


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
