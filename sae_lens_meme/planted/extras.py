"""Optional details: props in the picture and expressions in the caption, each in 1 to 4 % of the memes.

No label depends on them. There are more of them than an embedding has dimensions, and a meme has about three: they are
why a planted embedding needs a sparse code. A place holds at most one prop, and a slot at most one expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sae_lens_meme.planted.icons import WHITE, Colour, Pen

GLYPHS: Mapping[str, str] = {
    "heart": ".#.#. ##### ##### .###. ..#..",
    "cross": "..#.. ..#.. ##### ..#.. ..#..",
    "ring": ".###. #...# #...# #...# .###.",
    "ladder": "#...# ##### #...# ##### #...#",
    "arrow": "..#.. .###. #.#.# ..#.. ..#..",
    "hourglass": "##### .###. ..#.. .###. #####",
    "key": ".##.. #..#. .##.. ..### ...##",
    "flag": "####. ####. ##... #.... #....",
    "anchor": "..#.. .###. ..#.. #.#.# .###.",
    "stairs": "....# ...## ..### .#### #####",
    "comb": "##### ##### #.#.# #.#.# #.#.#",
    "house": "..#.. .###. ##### ##.## ##.##",
    "window": "##.## #...# ..... #...# ##.##",
    "snake": "##### ....# ##### #.... #####",
    "tree": "..#.. .###. .###. ##### ..#..",
    "dice": "##### #.### ##### ###.# #####",
    "fork": "#.#.# #.#.# ##### ..#.. ..#..",
    "bridge": "..... ##### ##### #...# #...#",
    "kite": "..#.. .#.#. #...# .#.#. ..#..",
    "bolt": "..### .##.. ##### ..##. .##..",
    "bell": ".###. #...# #...# ##### ..#..",
    "spool": "##### .#.#. .#.#. .#.#. #####",
    "crown": "..... #.#.# ##### ##### .....",
    "drop": "..#.. ..#.. .###. ##### .###.",
    "brick": "##.## ##.## ..... ##.## ##.##",
    "mask": "..... ##### #.#.# ##### .#.#.",
    "spark": "#.#.# .#.#. #...# .#.#. #.#.#",
    "corner": "##... ##... ##... ##### #####",
    "pillar": ".###. ..#.. ..#.. ..#.. .###.",
    "table": "##### #...# #...# #...# .....",
    "chain": "##... ##... ..#.. ...## ...##",
}
"""Shapes as five rows of five cells."""

TINTS: Mapping[str, Colour] = {
    "red": (215, 35, 40),
    "cyan": (0, 165, 200),
    "orange": (240, 130, 20),
    "purple": (130, 50, 170),
    "green": (20, 120, 60),
    "pink": (240, 110, 180),
    "lime": (130, 190, 30),
    "blue": (40, 70, 210),
}

PLACES: Sequence[tuple[float, float]] = ((0.2, 0.15), (0.005, 0.7), (0.865, 0.5), (0.865, 0.7))
"""Upper left corners of the places for props."""
PROP_SHARE = 0.13
"""Side of a prop, of the picture's."""

PROPS: Sequence[Sequence[str]] = tuple(
    tuple(f"{list(TINTS)[(i + 2 * place) % len(TINTS)]} {shape}" for i, shape in enumerate(GLYPHS))
    for place in range(len(PLACES))
)
"""For each place its props, "red heart": a shape has one colour in each place, and another in the next."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


SAYINGS: Sequence[Sequence[str]] = (
    _listed(
        "okay so|fun fact|honestly|update|confession|true story|psst|small announcement|quick poll|friendly reminder|"
        "for the record|long story short|between us|hot take|spoiler|rumour has it|guess what|serious talk|diary entry|"
        "lesson learned|warning|picture this|no joke|first of all|by the way|pro tip|big news|note to self|"
        "overheard|exhibit a|chapter one"
    ),
    _listed(
        "before breakfast|after midnight|on a tuesday|during lunch|in the elevator|at the airport|near the lake|"
        "behind the sofa|under the bridge|on the balcony|in slow motion|at full volume|in my pyjamas|on one leg|"
        "between two meetings|since friday|until sunset|every second week|at the museum|inside the tent|over the fence|"
        "across the street|without shoes|upside down|on live television|in the basement|at grandma's place|on the moon|"
        "in both directions|with jazz hands|around the campfire"
    ),
    _listed(
        "trust me|no refunds|source unknown|ask anyone|mark my words|to be continued|terms apply|batteries not included|"
        "as seen on screen|do not fold|results may vary|handle with care|sold separately|limited edition|pinky promise|"
        "no take backs|case closed|so they say|believe it or not|whatever that means|in theory|give or take|"
        "if you ask me|according to science|allegedly|more or less|for some reason|step by step|fingers crossed|"
        "just in case|against all odds"
    ),
    _listed(
        "over and out|see you soon|cheers|end of message|good night|yours truly|bye now|carry on|stay tuned|back to you|"
        "mic drop|please clap|thanks for listening|roll credits|curtain falls|exit stage left|peace|send snacks|"
        "greetings from rome|asking for a friend|regards|that is all|next slide|high five|wink wink|press play|"
        "copy that|ahoy|hold the line|class dismissed|kind regards"
    ),
)
"""For each slot of a caption its expressions: one before the sentence and three after it."""

RATES: Sequence[float] = tuple(max(0.01, 0.04 * (i + 1) ** -0.8) for i in range(len(GLYPHS)))
"""Shares of memes that have the first, the second, ... prop of a place, and expression of a slot."""


def draw_extras(
    rng: np.random.Generator, values: Sequence[Sequence[str]], rates: Sequence[float] = RATES
) -> tuple[str, ...]:
    """At most one value of each place or slot."""
    cumulative = np.cumsum(rates)
    drawn = np.searchsorted(cumulative, rng.random(len(values)), side="right")
    return tuple(row[int(i)] for row, i in zip(values, drawn, strict=True) if i < len(row))


def draw_prop(pen: Pen, name: str) -> None:
    """A sticker with the shape in its colour."""
    colour, shape = name.split(" ")
    pen.box(0, 0, 1, 1, WHITE)
    for row, cells in enumerate(GLYPHS[shape].split(" ")):
        for column, cell in enumerate(cells):
            if cell == "#":
                x, y = 0.1 + 0.16 * column, 0.1 + 0.16 * row
                pen.draw.rectangle(pen.at(x, y, x + 0.15, y + 0.15), fill=TINTS[colour])
