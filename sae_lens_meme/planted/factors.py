"""The true factors of a planted meme: what its picture shows and what its caption says.

Factors are drawn row by row from their source's shares; labels follow from them in `causes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

TOPICS = ("coffee", "pizza", "computers", "reading", "cats", "gardening", "rain", "driving")
OBJECTS = ("cup", "pizza", "laptop", "book", "cat", "plant", "umbrella", "car")
"""`OBJECTS[i]` is the counterpart of `TOPICS[i]`; both lie on a ring on which neighbours are related."""
MOODS = ("gloomy", "cheerful")
EXPRESSIONS = ("frown", "smile")
PHRASINGS = ("statement", "question", "punchline", "exaggeration")
LAYOUTS = ("bottom", "top", "both", "frame")
ADDRESSEES = ("none", "person", "group", "company")
HATS = ("none", "cap", "party", "tophat")
SCENES = ("plain", "hills", "beach", "city", "room", "forest", "checks", "rays")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
LIGHTS = ("dark", "plain", "bright")
SIGNS = ("none", "up", "down")

VISUAL = ("scene", "object", "colour", "layout", "expression", "hat", "light", "sign", "bursts", "figures")
TEXTUAL = ("topic", "mood", "phrasing", "addressee", "style")
CROSS_MODAL = ("clash", "pairing", "distance", "mismatch", "far")
KINDS: Mapping[str, str] = {
    **dict.fromkeys(VISUAL, "visual"),
    **dict.fromkeys(TEXTUAL, "textual"),
    **dict.fromkeys(CROSS_MODAL, "cross-modal"),
}
"""Whether the picture, the caption, or only both together show a factor."""


@dataclass(frozen=True)
class Factors:
    """Everything that decides a meme's labels, and the look that does not."""

    scene: str
    object: str
    colour: str
    layout: str
    expression: str
    hat: str
    light: str
    sign: str
    bursts: int  # 0..3 starbursts
    figures: int  # 1..3 faces
    topic: str
    mood: str
    phrasing: str
    addressee: str
    style: str  # the source whose way of writing captions this is

    @property
    def prop(self) -> tuple[str, ...]:
        """Stickers in the picture; this and the next two are empty but in a crowded world (see `crowded`)."""
        return ()

    @property
    def phrase(self) -> tuple[str, ...]:
        """Sayings around the sentence of the caption."""
        return ()

    @property
    def joke(self) -> tuple[str, ...]:
        """Pairs of a prop and a saying that belong together, both there."""
        return ()

    @property
    def clash(self) -> bool:
        """The caption's mood and the faces' expression contradict each other."""
        return MOODS.index(self.mood) != EXPRESSIONS.index(self.expression)

    @property
    def pairing(self) -> str:
        """Mood and expression together: a sparse code names these four rather than the clash, which two of them are."""
        return f"{self.mood} caption, {self.expression}"

    @property
    def distance(self) -> int:
        """Steps on the ring of topics from what the caption speaks of to what the picture shows, 0..4."""
        steps = (TOPICS.index(self.topic) - OBJECTS.index(self.object)) % len(TOPICS)
        return min(steps, len(TOPICS) - steps)

    @property
    def mismatch(self) -> bool:
        return self.distance > 0

    @property
    def far(self) -> bool:
        return self.distance > 1

    def row(self) -> dict[str, Any]:
        return asdict(self) | {name: getattr(self, name) for name in CROSS_MODAL}


@dataclass(frozen=True)
class Style:
    """How a source draws and writes: shares in the order of the factor's values."""

    scene: Sequence[float]
    colour: Sequence[float]
    layout: Sequence[float]
    light: Sequence[float]
    sign: Sequence[float]
    bursts: Sequence[float]
    figures: Sequence[float]
    hat: Sequence[float]
    phrasing: Sequence[float]
    addressee: Sequence[float]
    sizes: tuple[int, ...]  # pixels, square


# sign, bursts, phrasing and addressee carry labels where the source has them: shares of PrideMM
# (5,063 rows: stance, humour, target) and of Memotion 7k (6,992 rows: offensive, humour).
STYLES: Mapping[str, Style] = {
    "pridemm": Style(
        scene=(0.06, 0.05, 0.04, 0.05, 0.20, 0.05, 0.28, 0.27),
        colour=(0.25, 0.18, 0.17, 0.10, 0.10, 0.20),
        layout=(0.15, 0.20, 0.15, 0.50),
        light=(0.15, 0.60, 0.25),
        sign=(0.288, 0.377, 0.335),
        bursts=(0.40, 0.35, 0.18, 0.07),
        figures=(0.30, 0.35, 0.35),
        hat=(0.20, 0.25, 0.40, 0.15),
        phrasing=(0.324, 0.17, 0.32, 0.186),
        addressee=(0.311, 0.100, 0.469, 0.120),
        sizes=(112, 128),
    ),
    "hmc": Style(
        scene=(0.28, 0.12, 0.08, 0.24, 0.06, 0.16, 0.03, 0.03),
        colour=(0.10, 0.12, 0.10, 0.25, 0.28, 0.15),
        layout=(0.25, 0.20, 0.50, 0.05),
        light=(0.25, 0.50, 0.25),
        sign=(0.60, 0.20, 0.20),
        bursts=(0.60, 0.25, 0.10, 0.05),
        figures=(0.50, 0.30, 0.20),
        hat=(0.45, 0.25, 0.15, 0.15),
        phrasing=(0.40, 0.30, 0.20, 0.10),
        addressee=(0.35, 0.20, 0.30, 0.15),
        sizes=(96, 112),
    ),
    "memotion": Style(
        scene=(0.05, 0.24, 0.26, 0.08, 0.16, 0.14, 0.04, 0.03),
        colour=(0.17, 0.17, 0.20, 0.16, 0.18, 0.12),
        layout=(0.40, 0.35, 0.20, 0.05),
        light=(0.08, 0.24, 0.68),
        sign=(0.50, 0.30, 0.20),
        bursts=(0.388, 0.371, 0.210, 0.031),
        figures=(0.60, 0.25, 0.15),
        hat=(0.40, 0.30, 0.15, 0.15),
        phrasing=(0.236, 0.351, 0.320, 0.093),
        addressee=(0.40, 0.30, 0.15, 0.15),
        sizes=(96, 128),
    ),
}
SOURCES = tuple(STYLES)
DISTANCES = (0.221, 0.502, 0.221, 0.028, 0.028)
"""How far the caption is from the picture: Memotion's shares of sarcasm, its last level halved."""


def draw_factors(rng: np.random.Generator, source: str, clash_rate: float) -> Factors:
    """The factors of one meme of `source` whose mood and expression clash with this probability.

    Mood and topic are uniform and the clash and the distance are drawn apart from them, so that
    neither the picture's factors nor the caption's say anything about these two.
    """
    style = STYLES[source]
    mood, topic = int(rng.integers(len(MOODS))), int(rng.integers(len(TOPICS)))
    clash = int(rng.random() < clash_rate)
    step = choose(rng, range(5), DISTANCES) * int(rng.choice((-1, 1)))
    return Factors(
        scene=choose(rng, SCENES, style.scene),
        object=OBJECTS[(topic + step) % len(OBJECTS)],
        colour=choose(rng, COLOURS, style.colour),
        layout=choose(rng, LAYOUTS, style.layout),
        expression=EXPRESSIONS[mood ^ clash],
        hat=choose(rng, HATS, style.hat),
        light=choose(rng, LIGHTS, style.light),
        sign=choose(rng, SIGNS, style.sign),
        bursts=choose(rng, range(4), style.bursts),
        figures=choose(rng, range(1, 4), style.figures),
        topic=TOPICS[topic],
        mood=MOODS[mood],
        phrasing=choose(rng, PHRASINGS, style.phrasing),
        addressee=choose(rng, ADDRESSEES, style.addressee),
        style=source,
    )


def choose(rng: np.random.Generator, values: Sequence[Any], shares: Sequence[float]) -> Any:
    """One of `values` with these shares (they need not sum to one)."""
    cumulative = np.cumsum(shares)
    place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return values[min(place, len(values) - 1)]
