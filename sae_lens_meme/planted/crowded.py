"""The crowded world: besides what every planted meme has, 124 props in pictures and 124 sayings in captions.

A meme has about three or four of them, each of them is in 1 to 2 % of the memes and most often in those of one source, and
there are four times as many as the embedding has dimensions: they are why it needs a sparse code. Labels follow from single ones, or from a
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

FAVOURED = {"pridemm": 0.05, "hmc": 0.02, "memotion": 0.035}
"""Share of a source's memes that have one of its own props, sayings or jokes."""
ELSEWHERE = 0.005
"""Share of the memes of the other sources."""
JOKES: Mapping[str, tuple[str, str]] = {
    f"{PROPS[i][n]}, {SAYINGS[i][n]}": (PROPS[i][n], SAYINGS[i][n]) for i, n in enumerate((5, 3, 5, 4))
}
"""A prop and a saying that often come together. Each comes alone as well, so that neither side tells."""
_JOKES = tuple(JOKES)
LEVELS: Mapping[str, Mapping[int, str]] = {
    "hate": {1: _JOKES[0]},
    "stance": {1: PROPS[0][0], 2: PROPS[3][0]},
    "humor": {1: SAYINGS[0][2], 2: SAYINGS[1][1], 3: SAYINGS[2][0]},
    "sarcasm": {1: _JOKES[1], 2: _JOKES[2], 3: _JOKES[3]},
    "offensive": {1: PROPS[0][2], 2: PROPS[1][1], 3: PROPS[2][0]},
    "motivational": {1: SAYINGS[3][2]},
    "sentiment": {-2: SAYINGS[0][8], -1: SAYINGS[1][4], 1: SAYINGS[2][3], 2: SAYINGS[3][5]},
}
"""What makes each level of a label: a favourite of its source. The last that is there decides; nothing there is level 0."""
KINDS = {**PLAIN_KINDS, "prop": "visual", "phrase": "textual", "joke": "cross-modal"}
"""Of factors; of these last three a meme holds any number of values."""


@dataclass(frozen=True)
class CrowdedFactors(Factors):
    prop: tuple[str, ...] = ()  # at most one per place
    phrase: tuple[str, ...] = ()  # at most one a slot

    @property
    def joke(self) -> tuple[str, ...]:
        return tuple(name for name, (prop, phrase) in JOKES.items() if prop in self.prop and phrase in self.phrase)

    def row(self) -> dict[str, Any]:
        return super().row() | {"joke": self.joke}


def draw_crowded(rng: np.random.Generator, source: str, clash_rate: float) -> CrowdedFactors:
    """A meme of the plain world, with props and sayings."""
    plain = draw_factors(rng, source, clash_rate)
    rates = [_rates(place, source) for place in range(len(PROPS))]
    props, sayings = _draw(rng, rates), _draw(rng, rates)
    told = {joke for label in SHARES[source] for joke in LEVELS.get(label, {}).values()}
    for i, (joke, (prop, saying)) in enumerate(JOKES.items()):
        if rng.random() < FAVOURED[source] and joke in told:
            props[i], sayings[i] = PROPS[i].index(prop), SAYINGS[i].index(saying)
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


def _rates(place: int, source: str) -> list[float]:
    """Every third prop of a place, and saying of a slot, is the source's own."""
    own = list(FAVOURED).index(source)
    return [FAVOURED[source] if (i + place) % len(FAVOURED) == own else ELSEWHERE for i in range(len(PROPS[place]))]


def _factor(cause: str) -> str:
    return "prop" if cause in PLACE_OF else "joke" if cause in JOKES else "phrase"


def _cause(levels: Mapping[int, str]) -> dict[str, Any]:
    (factor,) = {_factor(cause) for cause in levels.values()}
    return {"kind": KINDS[factor], "factors": [factor], "levels": {str(level): name for level, name in levels.items()}}


def _shares(source: str, label: str) -> dict[int, float]:
    if label == "target":
        return dict(SHARES[source][label])
    rates = {level: FAVOURED[source] for level in LEVELS[label] if level in SHARES[source][label]}
    return {0: 1 - sum(rates.values())} | rates


CROWDED_LABELS = Labelling(
    causes={"target": CAUSES["target"], **{label: _cause(levels) for label, levels in LEVELS.items()}},
    shares={source: {label: _shares(source, label) for label in SHARES[source]} for source in SHARES},
    truth=crowded_labels,
)
