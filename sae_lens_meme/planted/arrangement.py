"""Where the things of a planted picture stand: drawn from the generator before anything else of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw

from sae_lens_meme.planted.factors import STYLES, Factors
from sae_lens_meme.planted.icons import HAT_EXTENTS, SIGN_EXTENT, Pen
from sae_lens_meme.planted.props import PLACE_OF, PLACES, PROP_SHARE

Box = tuple[float, float, float, float]
STRIPE = 0.15
"""Height of a caption's stripe, of the picture's."""

_FACES: Mapping[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.12, 0.38, 0.4),),
    2: ((0.04, 0.36, 0.3), (0.28, 0.5, 0.3)),
    3: ((0.02, 0.36, 0.24), (0.28, 0.4, 0.24), (0.13, 0.58, 0.24)),
}
_BURSTS = ((0.01, 0.17), (0.64, 0.17), (0.81, 0.31))


class Placed(NamedTuple):
    """A square with its upper left corner at (x, y); all relative to the picture's side."""

    x: float
    y: float
    share: float

    def pen(self, draw: ImageDraw.ImageDraw, size: int) -> Pen:
        return Pen(draw, self.x * size, self.y * size, self.share * size)

    def box(self, extent: Box = (0, 0, 1, 1)) -> Box:
        """The part of the picture that a drawing with this extent in its square covers."""
        corners = (self.x, self.y, self.x, self.y)
        x0, y0, x1, y1 = (min(1.0, max(0.0, c + self.share * e)) for c, e in zip(corners, extent, strict=True))
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Arrangement:
    size: int  # pixels
    faces: tuple[Placed, ...]
    object: Placed
    sign: Placed
    bursts: tuple[Placed, ...]
    props: Mapping[str, Placed]


def arrange(factors: Factors, rng: np.random.Generator) -> Arrangement:
    """Jitter is drawn for everything that could be there, so that one factor moves nothing else."""
    size = int(rng.choice(STYLES[factors.style].sizes))
    faces = tuple(_jittered(rng, *place) for place in _FACES[factors.figures])
    return Arrangement(
        size=size,
        faces=faces,
        object=_jittered(rng, 0.58, 0.45, 0.37),
        sign=_jittered(rng, 0.42, 0.2, 0.2),
        bursts=tuple(_jittered(rng, *_BURSTS[int(i)], 0.17) for i in rng.permutation(3))[: factors.bursts],
        props={name: Placed(*PLACES[PLACE_OF[name]], PROP_SHARE) for name in factors.prop},
    )


def picture_places(factors: Factors, arrangement: Arrangement) -> dict[str, list[Box]]:
    """Where each visual factor is drawn; nothing for what is absent (no sign, bare heads, no bursts) or everywhere."""
    faces = [face.box() for face in arrangement.faces]
    top, bottom = (0.0, 0.0, 1.0, STRIPE), (0.0, 1.0 - STRIPE, 1.0, 1.0)
    return {
        "layout": {"top": [top], "bottom": [bottom], "both": [top, bottom], "frame": []}[factors.layout],
        "object": [arrangement.object.box()],
        "colour": [arrangement.object.box()],
        "figures": faces,
        "expression": faces,
        "hat": [] if factors.hat == "none" else [face.box(HAT_EXTENTS[factors.hat]) for face in arrangement.faces],
        "sign": [] if factors.sign == "none" else [arrangement.sign.box(SIGN_EXTENT)],
        "bursts": [burst.box() for burst in arrangement.bursts],
    }


def _jittered(rng: np.random.Generator, x: float, y: float, share: float) -> Placed:
    dx, dy, grow = rng.uniform((-0.02, -0.02, 0.92), (0.02, 0.02, 1.08))
    return Placed(x + dx, y + dy, share * grow)
