"""Pictures from visual factors: a scene, faces, an object, a sign, starbursts, and the caption in its stripe."""

from __future__ import annotations

import textwrap
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sae_lens_meme.planted.factors import STYLES, Factors
from sae_lens_meme.planted.icons import INK, WHITE, Colour, Pen, draw_burst, draw_face, draw_object, draw_sign
from sae_lens_meme.planted.scenes import draw_scene

_COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 60),
    "green": (40, 160, 70),
    "blue": (40, 90, 210),
    "purple": (140, 60, 180),
}
_STRIPE = 0.15  # of the height


def draw_picture(factors: Factors, caption: str, rng: np.random.Generator) -> Image.Image:
    """The meme as a square RGB picture of 96 to 128 pixels; the caption is drawn, too small to read at 64."""
    size = int(rng.choice(STYLES[factors.style].sizes))
    image = draw_scene(size, factors.scene, factors.light, rng)
    draw = ImageDraw.Draw(image)
    _draw_faces(draw, size, factors, rng)
    draw_object(_pen(draw, size, 0.58, 0.45, 0.37, rng), factors.object, _COLOURS[factors.colour])
    draw_sign(_pen(draw, size, 0.42, 0.2, 0.2, rng), factors.sign)
    for corner in _burst_corners(rng)[: factors.bursts]:
        draw_burst(_pen(draw, size, *corner, 0.17, rng))
    _draw_caption(draw, size, factors.layout, caption)
    return image


def _pen(draw: ImageDraw.ImageDraw, size: int, x: float, y: float, share: float, rng: np.random.Generator) -> Pen:
    dx, dy, grow = rng.uniform((-0.02, -0.02, 0.92), (0.02, 0.02, 1.08))
    return Pen(draw, (x + dx) * size, (y + dy) * size, share * grow * size)


def _burst_corners(rng: np.random.Generator) -> list[tuple[float, float]]:
    corners = [(0.01, 0.17), (0.64, 0.17), (0.81, 0.31)]
    return [corners[i] for i in rng.permutation(3)]


def _draw_faces(draw: ImageDraw.ImageDraw, size: int, factors: Factors, rng: np.random.Generator) -> None:
    places = {1: [(0.12, 0.38, 0.4)], 2: [(0.04, 0.36, 0.3), (0.28, 0.5, 0.3)]}
    places[3] = [(0.02, 0.36, 0.24), (0.28, 0.4, 0.24), (0.13, 0.58, 0.24)]
    for place in places[factors.figures]:
        draw_face(_pen(draw, size, *place, rng), factors.expression, factors.hat)


def _draw_caption(draw: ImageDraw.ImageDraw, size: int, layout: str, caption: str) -> None:
    stripe = round(_STRIPE * size)
    first, second = _halves(caption) if layout == "both" else (caption, caption)
    if layout == "frame":
        draw.rectangle((0, 0, size - 1, size - 1), outline=INK, width=max(4, size // 16))
    if layout in ("top", "both"):
        _draw_stripe(draw, (0, 0, size, stripe), first, WHITE, INK)
    if layout in ("bottom", "both", "frame"):
        colours = (INK, WHITE) if layout == "frame" else (WHITE, INK)
        _draw_stripe(draw, (0, size - stripe, size, size), second, *colours)


def _halves(caption: str) -> tuple[str, str]:
    words = caption.split()
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _draw_stripe(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], text: str, paper: Colour, ink: Colour
) -> None:
    draw.rectangle(box, fill=paper)
    height = (box[3] - box[1]) // 2
    for i, line in enumerate(textwrap.wrap(text, 30)[:2]):
        draw.text((box[0] + 2, box[1] + i * height), line, fill=ink, font=_font(max(6, height - 1)))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
