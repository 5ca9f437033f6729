"""The numbers of stability, each declared once, and made from matched latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from sae_lens_meme.evaluators.result import Control, Interval, Measure, Number, Quantity, nullable
from sae_lens_meme.evaluators.stability.compute import (
    Estimate,
    Firing,
    Matching,
    exact_odds,
    mean_difference,
    rate_groups,
    stratified_odds,
)

_PARTNER = "cosine with the partner under the one-to-one matching of the largest sum (Hungarian algorithm)"
_NEAREST = "largest cosine with any latent of the other SAE, partner or not: an upper bound"
_SHARE = "share of the alive latents of this SAE (one without a partner is below)"
_NO_MATCH = "no latent takes part, or none has a partner"
_RATE = "within quintiles of the firing rate, as a control for how often a latent fires"

N_OTHER = Quantity("n_latents_of_other", "latents of the other SAE that take part")
N_MATCHED = Quantity("n_matched", "latents with a partner: all of the narrower SAE")
COSINE = Quantity("mean_cosine", f"{_PARTNER}, mean", _NO_MATCH)
NEAREST = Quantity("mean_nearest_cosine", f"{_NEAREST}, mean", _NO_MATCH)
JACCARD = Quantity("mean_jaccard", "memes that fire both of a matched pair over memes that fire one, mean", _NO_MATCH)
CORRELATION = Quantity(
    "mean_correlation", "Pearson's correlation of the activations of a matched pair, mean", _NO_MATCH
)
IN_ALL = Quantity("share_in_all", f"{_PARTNER} at least the threshold in every other seed; {_SHARE}", _NO_MATCH)

N_SIGNIFICANT = Quantity("n_significant", "latents with some concept at q_global < alpha (corrected protocol)")
N_OTHERS = Quantity("n_other", "latents that were tested and have no such concept")
STABLE_SIGNIFICANT = Quantity("share_stable_significant", "share of the significant latents that are stable")
STABLE_OTHERS = Quantity("share_stable_other", "share of the latents tested without such a concept that are stable")
_ODDS = "odds of being stable, significant over other latents"
ODDS = Quantity("odds_ratio", f"{_ODDS}: conditional maximum likelihood")
ODDS_WITHIN = Quantity("odds_ratio", f"{_ODDS}: Mantel-Haenszel {_RATE}")
_INDEPENDENT = "two-sided p of no association of being stable and being significant"
P = Quantity("p", f"{_INDEPENDENT}: Fisher's exact test")
P_WITHIN = Quantity("p", f"{_INDEPENDENT}: Cochran-Mantel-Haenszel test {_RATE}")
_NO_PARTNER = ", 0 in one where the latent has no partner"
DIFFERENCE = Quantity(
    "cosine_difference",
    f"cosine with the partners, mean over seeds{_NO_PARTNER}: of significant minus of other latents",
)
DIFFERENCE_WITHIN = replace(DIFFERENCE, what=f"{DIFFERENCE.what}, {_RATE}")

ByGroup = dict[tuple[str, Quantity], Measure]
"""By group of keys and quantity."""


def share_above(threshold: float, nearest: bool = False) -> Quantity:
    key = f"share_{'nearest_' if nearest else ''}above_{threshold:g}"
    return Quantity(key, f"{_NEAREST if nearest else _PARTNER} at least {threshold:g}; {_SHARE}", _NO_MATCH)


def random(quantity: Quantity) -> Quantity:
    what = "control: the other SAE's directions replaced by Gaussian ones of the same mean and covariance, of norm 1"
    return replace(quantity, key=f"{quantity.key}_random", what=f"{quantity.what}; {what}")


def permuted(quantity: Quantity) -> Quantity:
    what = "control: the other SAE's latents of each meme given to another meme of its source"
    return replace(quantity, key=f"{quantity.key}_permuted", what=f"{quantity.what}; {what}")


def itself(quantity: Quantity) -> Quantity:
    return quantity


@dataclass(frozen=True, eq=False)
class Counterpart:
    """Another SAE whose latents are matched with those of the SAE that is measured."""

    n_alive: int
    matching: Matching
    random: Matching
    firing: Firing
    permuted: Firing

    def values(self, alive: np.ndarray, thresholds: Sequence[float]) -> dict[Quantity, Number]:
        """Shares are of the alive latents, means of those with a partner."""
        found: dict[Quantity, Number] = {N_OTHER: self.n_alive, N_MATCHED: int((self.matching.partner >= 0).sum())}
        for matching, of in ((self.matching, itself), (self.random, random)):
            for t in thresholds:
                found[of(share_above(t))] = _share(matching.cosine[alive] >= t)
                found[of(share_above(t, nearest=True))] = _share(matching.nearest[alive] >= t)
            found |= {of(COSINE): _mean(matching.cosine), of(NEAREST): _mean(matching.nearest)}
        for firing, of in ((self.firing, itself), (self.permuted, permuted)):
            found |= {of(JACCARD): _mean(firing.jaccard), of(CORRELATION): _mean(firing.correlation)}
        return found

    def columns(self, name: str) -> dict[str, tuple[Any, str]]:
        """Of the table of latents, each with what it is."""
        partner = self.matching.partner
        return {
            f"{name}/matched": (pd.arrays.IntegerArray(partner, partner < 0), "the partner in the other SAE"),
            f"{name}/cosine": (nullable(self.matching.cosine), _PARTNER),
            f"{name}/nearest_cosine": (nullable(self.matching.nearest), _NEAREST),
            f"{name}/jaccard": (nullable(self.firing.jaccard), JACCARD.what.removesuffix(", mean")),
            f"{name}/correlation": (nullable(self.firing.correlation), CORRELATION.what.removesuffix(", mean")),
        }


@dataclass(frozen=True, eq=False)
class MatchedDictionaries:
    """The latents of an SAE, matched with those of others."""

    alive: Bool[np.ndarray, " latents"]
    rate: Float[np.ndarray, " latents"]
    seeds: dict[str, Counterpart]
    controls: dict[str, Counterpart]
    """SAEs that are not other seeds: left out of every mean."""
    significant: Float[np.ndarray, " latents"] | str
    """1 or 0, NaN where no concept was tested; or why it is not known."""
    threshold: float

    @cached_property
    def cosines(self) -> Float[np.ndarray, "latents seeds"]:
        return np.stack([one.matching.cosine for one in self.seeds.values()], axis=1)

    @cached_property
    def cosine(self) -> Float[np.ndarray, " latents"]:
        """Mean over the seeds, 0 in one where a latent has no partner; NaN where it has none in any."""
        has_one = ~np.isnan(self.cosines)
        return np.where(has_one.any(axis=1), np.where(has_one, self.cosines, 0).mean(axis=1), np.nan)

    @property
    def stable(self) -> Bool[np.ndarray, " latents"]:
        return self.cosine >= self.threshold


def counts(matched: MatchedDictionaries) -> list[Measure]:
    return [
        Measure("n_latents", len(matched.alive), "latents of this SAE"),
        Measure(
            "n_alive", matched.alive.sum(), "those that fire on some meme and have a decoder direction: they take part"
        ),
        Measure("n_others", len(matched.seeds), "SAEs of other seeds; controls are not counted"),
    ]


def of_seeds(matched: MatchedDictionaries, thresholds: Sequence[float], rows: str) -> ByGroup:
    """Of each SAE, then the mean over the seeds and with several seeds the least and the most, by group and quantity."""
    both = matched.seeds | matched.controls
    values = {name: one.values(matched.alive, thresholds) for name, one in both.items()}
    of_seed = [values[name] for name in matched.seeds]
    known = {q: [v for one in of_seed if (v := one[q]) is not None] for q in of_seed[0]}
    means = {q: float(np.mean(v)) if v else None for q, v in known.items() if q not in (N_OTHER, N_MATCHED)}
    in_all: Any = (matched.cosines[matched.alive] >= matched.threshold).all(axis=1)
    values["mean"] = means | {IN_ALL: _share(in_all)}
    if len(of_seed) > 1:
        for group, end in (("least", min), ("most", max)):
            values[group] = {q: end(known[q], default=None) for q in (COSINE, share_above(matched.threshold))}
    summaries = {"mean": "mean over the other seeds; ", "least": "least of the other seeds; ", "most": "most of them; "}
    found = {
        (group, q): q(value, group, rows=f"{summaries.get(group, '')}{rows}")
        for group, of_group in values.items()
        for q, value in of_group.items()
    }
    return found | _rows_of_seeds(matched, found)


def _rows_of_seeds(matched: MatchedDictionaries, found: ByGroup) -> ByGroup:
    above, n = share_above(matched.threshold), int(matched.alive.sum())
    rows = {
        above: (f"stable latents (of {n}): cosine of {matched.threshold:g} or more", random),
        COSINE: ("mean cosine with the matched latent", random),
        CORRELATION: ("correlation of activations with the matched latent", permuted),
    }
    shown = {}
    for quantity, (label, control) in rows.items():
        beside = {control.__name__: found["mean", control(quantity)]}
        beside |= {heading(name): found[name, quantity] for name in matched.controls}
        controls = [m.control(name) for name, m in beside.items() if m.value is not None]
        if (measure := found["mean", quantity]).value is not None:
            shown["mean", quantity] = measure.row(label, *controls)
    return shown


def heading(control: str) -> str:
    """Of the column of a control SAE."""
    return control.removesuffix("_data").replace("_", " ")


def of_significance(
    significant: Float[np.ndarray, " latents"] | str,
    stable: Bool[np.ndarray, " latents"],
    cosine: Float[np.ndarray, " latents"],
    rate: Float[np.ndarray, " latents"],
    replicates: int,
    seed: int,
) -> ByGroup:
    """Significant against other latents (NaN in `significant` is left out), as they are and within firing rate."""
    at, within = "significance", "significance/within_rate"
    if isinstance(significant, str):
        return {(at, ODDS): ODDS(None, at, reason=significant)}
    known = ~np.isnan(significant)
    yes, stable, cosine = significant[known] == 1, stable[known], cosine[known]
    group, everywhere = rate_groups(rate[known]), np.zeros(len(yes), int)
    why, no_group = _why(yes), "no group of equal firing rate has latents of all kinds that this needs"
    odds, odds_within = exact_odds(yes, stable), stratified_odds(yes, stable, group)
    apart, apart_within = (mean_difference(yes, cosine, g, replicates, seed) for g in (everywhere, group))
    bootstrap = "bootstrap over latents" if replicates else None
    measures = {
        (at, N_SIGNIFICANT): N_SIGNIFICANT(yes.sum(), at),
        (at, STABLE_SIGNIFICANT): STABLE_SIGNIFICANT(_share(stable[yes]), at, reason=why),
        (at, N_OTHERS): N_OTHERS((~yes).sum(), at),
        (at, STABLE_OTHERS): STABLE_OTHERS(_share(stable[~yes]), at, reason=why),
        (at, ODDS): _estimated(ODDS, odds, at, "exact", why),
        (at, P): P(odds.p, at, reason=why),
        (at, DIFFERENCE): _estimated(DIFFERENCE, apart, at, bootstrap, why),
        (within, ODDS_WITHIN): _estimated(
            ODDS_WITHIN, odds_within, within, "of Robins, Breslow and Greenland", no_group
        ),
        (within, P_WITHIN): P_WITHIN(odds_within.p, within, reason=no_group),
        (within, DIFFERENCE_WITHIN): _estimated(DIFFERENCE_WITHIN, apart_within, within, bootstrap, no_group),
    }
    even = Control("others", 1, "an odds ratio of 1: as often as the others")
    others = measures[at, STABLE_OTHERS]
    rows = {
        (at, STABLE_SIGNIFICANT): (
            f"stable of {yes.sum()} significant latents (others: {(~yes).sum()})",
            others.control("others"),
        ),
        (at, ODDS): ("odds ratio of stable, significant against others", even),
        (within, ODDS_WITHIN): ("the same among latents of similar firing rate", even),
    }
    return measures | {k: measures[k].row(*row) for k, row in rows.items() if measures[k].value is not None}


def table_of(matched: MatchedDictionaries, alpha: float) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row per latent, and what each column is."""
    dead, n = ~matched.alive, len(matched.alive)
    significant = np.full(n, np.nan) if isinstance(matched.significant, str) else matched.significant
    n_stable, at_least = (matched.cosines >= matched.threshold).sum(axis=1), f"at least {matched.threshold:g}"
    columns = {
        "latent": (np.arange(n), "of this SAE"),
        "alive": (matched.alive, "fires on some meme and has a decoder direction"),
        "firing_rate": (nullable(matched.rate), "share of all memes, of all splits, that fire the latent"),
        "mean_cosine": (
            nullable(matched.cosine),
            f"mean over the other seeds{_NO_PARTNER}; null where it has none in any",
        ),
        "n_stable": (pd.arrays.IntegerArray(n_stable, dead), f"other seeds in which the cosine is {at_least}"),
        "stable": (pd.arrays.BooleanArray(matched.stable, dead), f"mean_cosine is {at_least}"),
        "significant": (
            pd.arrays.BooleanArray(significant == 1, np.isnan(significant)),
            f"some concept has q_global < {alpha:g} under the corrected protocol; null where none was tested",
        ),
    }
    for name, one in (matched.seeds | matched.controls).items():
        columns |= one.columns(name)
    table = pd.DataFrame({key: column for key, (column, _) in columns.items()})
    return table, {key: what for key, (_, what) in columns.items()}


def _estimated(quantity: Quantity, found: Estimate, group: str, interval: str | None, why: str) -> Measure:
    def reason(*ends: float) -> str:
        return "infinite: one kind of latent is missing" if any(map(math.isinf, ends)) else why

    of = interval and Interval(found.low, found.high, interval, reason(found.low, found.high))
    return quantity(found.value, group, interval=of or None, reason=reason(found.value))


def _why(yes: np.ndarray) -> str:
    """What keeps significant and other latents from being compared."""
    if not yes.any():
        return "no latent is significant" if len(yes) else "no latent that takes part was tested"
    return "all latents that take part are significant" if yes.all() else "all latents, or none, are stable"


def _share(held: np.ndarray) -> Number:
    return float(held.mean()) if len(held) else None


def _mean(values: np.ndarray) -> Number:
    return _share(values[~np.isnan(values)])
