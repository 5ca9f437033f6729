"""The crowded world: besides what every planted meme has, 124 props in pictures and 124 sayings in captions.

A meme has about three or four of them, each of them is in 1 to 4 % of the memes, and there are more of them than an
embedding has dimensions: they are why a planted embedding needs a sparse code. Labels follow from single ones, or from a
prop and a saying that come together (a joke), so that one latent can stand for a label's level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sae_lens_meme.planted.causes import CAUSES, SHARES, Labelling
from sae_lens_meme.planted.factors import ADDRESSEES, Factors, draw_factors
from sae_lens_meme.planted.factors import KINDS as PLAIN_KINDS
from sae_lens_meme.planted.phrases import SAYINGS
from sae_lens_meme.planted.props import PLACE_OF, PROPS

RATES = tuple(max(0.012, 0.03 * (i + 1) ** -0.5) for i in range(len(PROPS[0])))
"""Shares of memes that have the first, the second, ... prop of a place, and saying of a slot."""
CARRIED = {"pridemm": 0.08, "hmc": 0.03, "memotion": 0.08}
"""Share of a source's memes that have what makes one level of one of its labels."""
JOKES: Mapping[str, tuple[str, str]] = {
    f"{PROPS[i][3]}, {SAYINGS[i][3]}": (PROPS[i][3], SAYINGS[i][3]) for i in range(len(PROPS))
}
"""A prop and a saying that are often together. Each comes alone as well, so that neither side tells."""
_JOKES = tuple(JOKES)
LEVELS: Mapping[str, Mapping[int, str]] = {
    "hate": {1: _JOKES[0]},
    "stance": {1: PROPS[0][0], 2: PROPS[1][0]},
    "humor": {1: SAYINGS[0][0], 2: SAYINGS[1][0], 3: SAYINGS[2][0]},
    "sarcasm": {1: _JOKES[1], 2: _JOKES[2], 3: _JOKES[3]},
    "offensive": {1: PROPS[2][0], 2: PROPS[3][0], 3: PROPS[0][1]},
    "motivational": {1: SAYINGS[3][0]},
    "sentiment": {-2: SAYINGS[2][1], -1: SAYINGS[0][1], 1: SAYINGS[3][1], 2: SAYINGS[1][1]},
}
"""What makes each level of a label; the last that is there decides, and nothing there is level 0."""
KINDS = {**PLAIN_KINDS, "prop": "visual", "phrase": "textual", "joke": "cross-modal"}
"""Of factors; of these last three a meme holds any number of values."""


@dataclass(frozen=True)
class CrowdedFactors(Factors):
    prop: tuple[str, ...] = ()  # at most one a place
    phrase: tuple[str, ...] = ()  # at most one a slot

    @property
    def joke(self) -> tuple[str, ...]:
        return tuple(name for name, (prop, phrase) in JOKES.items() if prop in self.prop and phrase in self.phrase)

    def row(self) -> dict[str, Any]:
        return super().row() | {"joke": self.joke}


def draw_crowded(rng: np.random.Generator, source: str, clash_rate: float) -> CrowdedFactors:
    """A meme of the plain world, with props and sayings."""
    plain = draw_factors(rng, source, clash_rate)
    props = _draw(rng, [_rates(row, source) for row in PROPS])
    sayings = _draw(rng, [_rates(row, source) for row in SAYINGS])
    for i, joke in enumerate(JOKES):
        if rng.random() < _carried(source).get(joke, 0.0):
            props[i] = PROPS[i].index(JOKES[joke][0])
            sayings[i] = SAYINGS[i].index(JOKES[joke][1])
    return crowded(plain, props, sayings)


def crowded(plain: Factors, props: Sequence[int | None], sayings: Sequence[int | None]) -> CrowdedFactors:
    """With the prop of this number at each place, and the saying in each slot."""
    return CrowdedFactors(**asdict(plain), prop=_named(PROPS, props), phrase=_named(SAYINGS, sayings))


def crowded_labels(factors: Factors) -> dict[str, int | None]:
    """The eight labels without noise; `target` is None where there is no hate, as in PrideMM."""
    there = {*factors.prop, *factors.phrase, *factors.joke}
    levels = {name: [level for level, cause in of.items() if cause in there] for name, of in LEVELS.items()}
    labels: dict[str, int | None] = {name: found[-1] if found else 0 for name, found in levels.items()}
    return labels | {"target": ADDRESSEES.index(factors.addressee) if labels["hate"] else None}


def _draw(rng: np.random.Generator, rates: Sequence[Sequence[float]]) -> list[int | None]:
    """For each place or slot the number of what is there, None for nothing."""
    drawn = [
        (int(np.searchsorted(np.cumsum(row), u, side="right")), len(row))
        for row, u in zip(rates, rng.random(len(rates)), strict=True)
    ]
    return [i if i < n else None for i, n in drawn]


def _named(rows: Sequence[Sequence[str]], numbers: Sequence[int | None]) -> tuple[str, ...]:
    return tuple(row[i] for row, i in zip(rows, numbers, strict=True) if i is not None)


def _carried(source: str) -> dict[str, float]:
    """How often what decides one of the source's labels is there."""
    return {cause: CARRIED[source] for label in SHARES[source] for cause in LEVELS.get(label, {}).values()}


def _rates(row: Sequence[str], source: str) -> list[float]:
    return [_carried(source).get(name, rate) for name, rate in zip(row, RATES, strict=True)]


def _factor(cause: str) -> str:
    return "prop" if cause in PLACE_OF else "joke" if cause in JOKES else "phrase"


def _cause(levels: Mapping[int, str]) -> dict[str, Any]:
    (factor,) = {_factor(cause) for cause in levels.values()}
    return {"kind": KINDS[factor], "factors": [factor], "levels": {str(level): name for level, name in levels.items()}}


def _shares(source: str, label: str) -> dict[int, float]:
    if label == "target":
        return dict(SHARES[source][label])
    rates = {level: CARRIED[source] for level in LEVELS[label] if level in SHARES[source][label]}
    return {0: 1 - sum(rates.values())} | rates


CROWDED_LABELS = Labelling(
    causes={"target": CAUSES["target"], **{label: _cause(levels) for label, levels in LEVELS.items()}},
    shares={source: {label: _shares(source, label) for label in SHARES[source]} for source in SHARES},
    truth=crowded_labels,
)
