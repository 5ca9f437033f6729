"""Props of planted pictures: small stickers of a shape in a colour, each at a place of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
"""Upper left corners of the places for props, of which each holds at most one."""
PROP_SHARE = 0.13
"""Side of a prop, of the picture's."""
PROPS: Sequence[Sequence[str]] = tuple(
    tuple(f"{list(TINTS)[(i + 2 * place) % len(TINTS)]} {shape}" for i, shape in enumerate(GLYPHS))
    for place in range(len(PLACES))
)
"""For each place its props, "red heart": a shape has one colour in each place, and another in the next."""
PLACE_OF: Mapping[str, int] = {name: place for place, names in enumerate(PROPS) for name in names}


def draw_prop(pen: Pen, name: str) -> None:
    """A sticker with the shape in its colour."""
    colour, shape = name.split(" ")
    pen.box(0, 0, 1, 1, WHITE)
    for row, cells in enumerate(GLYPHS[shape].split(" ")):
        for column, cell in enumerate(cells):
            if cell == "#":
                x, y = 0.1 + 0.16 * column, 0.1 + 0.16 * row
                pen.draw.rectangle(pen.at(x, y, x + 0.15, y + 0.15), fill=TINTS[colour])
