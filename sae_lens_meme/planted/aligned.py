"""Memes whose captions agree with their pictures: what the demo encoder is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sae_lens_meme.planted import factors as planted
from sae_lens_meme.planted.extras import PROPS, RATES, SAYINGS, draw_extras
from sae_lens_meme.planted.factors import Factors, draw_factors

VALUES: Mapping[str, Sequence[Any]] = {
    "scene": planted.SCENES,
    "object": planted.OBJECTS,
    "colour": planted.COLOURS,
    "layout": planted.LAYOUTS,
    "expression": planted.EXPRESSIONS,
    "hat": planted.HATS,
    "light": planted.LIGHTS,
    "sign": planted.SIGNS,
    "bursts": range(4),
    "figures": range(1, 4),
    "topic": planted.TOPICS,
    "mood": planted.MOODS,
    "phrasing": planted.PHRASINGS,
    "addressee": planted.ADDRESSEES,
    "style": planted.SOURCES,
}
"""The values of every factor of a picture and of a caption that has one, in the order of `VISUAL` and `TEXTUAL`."""
FULL = 0.5
"""Share of the places and slots that are taken in memes in which every prop and expression is equally common."""
_LOOKS = ("scene", "colour", "light", "sign", "bursts", "figures")


def aligned_factors(rng: np.random.Generator, neighbour: float = 0.0) -> Factors:
    """A meme whose caption agrees with its picture; the topic is a neighbour of the object's with this probability.

    Half of them look like their source; in the others every look is equally common, and every prop and expression.
    """
    meme = draw_factors(rng, planted.SOURCES[int(rng.integers(3))], clash_rate=0.0)
    rates = [FULL / len(RATES)] * len(RATES)
    place = planted.TOPICS.index(meme.topic)
    if rng.random() < neighbour:
        place = (place + int(rng.choice((-1, 1)))) % len(planted.TOPICS)
    phrasing, addressee = int(rng.integers(4)), int(rng.integers(4))
    meme = replace(
        meme,
        object=planted.OBJECTS[place],
        phrasing=planted.PHRASINGS[phrasing],
        layout=planted.LAYOUTS[phrasing],
        addressee=planted.ADDRESSEES[addressee],
        hat=planted.HATS[addressee],
    )
    if rng.random() < 0.5:
        return meme
    look = {name: VALUES[name][int(rng.integers(len(VALUES[name])))] for name in _LOOKS}
    return replace(meme, **look, prop=draw_extras(rng, PROPS, rates), phrase=draw_extras(rng, SAYINGS, rates))


def details(values: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """For each place or slot, which of its details is there: its number from 1, or 0."""
    return [next((1 + i for i, name in enumerate(row) if name in values), 0) for row in rows]
