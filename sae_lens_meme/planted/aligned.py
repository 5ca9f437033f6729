"""Memes whose captions agree with their pictures, and plain descriptions: what the demo encoder is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sae_lens_meme.planted import factors as planted
from sae_lens_meme.planted.factors import Factors, choose, draw_factors

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
"""The values of every factor of a picture and of a caption, in the order of `VISUAL` and `TEXTUAL`."""
_LOOKS = ("scene", "colour", "light", "sign", "bursts", "figures")


def aligned_factors(rng: np.random.Generator, neighbour: float = 0.0) -> Factors:
    """A meme whose caption agrees with its picture; the topic is a neighbour of the object's with this probability.

    Half of them look like their source; in the others every look is equally common.
    """
    meme = draw_factors(rng, planted.SOURCES[int(rng.integers(3))], clash_rate=0.0)
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
    return replace(meme, **look)


def describe(meme: Factors, rng: np.random.Generator, kept: float = 0.7) -> str:
    """A plain description of the picture that names each visual factor with probability `kept`."""
    hats = {"none": "bare heads", "cap": "caps", "party": "party hats", "tophat": "top hats"}
    layouts = {"both": "two stripes", "frame": "a black frame", "top": "a stripe on top", "bottom": "a stripe below"}
    faces = f"{('one', 'two', 'three')[meme.figures - 1]} faces"
    mood = {"smile": "smiling cheerful", "frown": "frowning gloomy"}[meme.expression]
    parts = [
        (f"a {meme.colour} {meme.object}", meme.object),
        (f"{mood} {faces}", choose(rng, (faces, f"{mood} people"), (1, 2))),
        (f"with {hats[meme.hat]}", ""),
        (f"in front of {meme.scene}", ""),
        (f"under {meme.light} light", ""),
        (f"sign {meme.sign}", ""),
        (f"{('no', 'one', 'two', 'three')[meme.bursts]} stars", ""),
        (layouts[meme.layout], ""),
    ]
    said = [long if rng.random() < kept else short for long, short in parts]
    return " ".join(part for part in said if part)
