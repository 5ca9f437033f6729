"""Pictures from visual factors: a scene, faces, an object, a sign, starbursts, props, and the caption in its stripe."""

from __future__ import annotations

import textwrap
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sae_lens_meme.planted.arrangement import STRIPE, arrange
from sae_lens_meme.planted.factors import Factors
from sae_lens_meme.planted.icons import INK, WHITE, Colour, draw_burst, draw_face, draw_object, draw_sign
from sae_lens_meme.planted.props import draw_prop
from sae_lens_meme.planted.scenes import draw_scene

_COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 60),
    "green": (40, 160, 70),
    "blue": (40, 90, 210),
    "purple": (140, 60, 180),
}


def draw_picture(factors: Factors, caption: str, rng: np.random.Generator) -> Image.Image:
    """The meme as a square RGB picture of 96 to 128 pixels; the caption is drawn, too small to read at 64."""
    places = arrange(factors, rng)
    size = places.size
    image = draw_scene(size, factors.scene, factors.light, rng)
    draw = ImageDraw.Draw(image)
    for face in places.faces:
        draw_face(face.pen(draw, size), factors.expression, factors.hat)
    draw_object(places.object.pen(draw, size), factors.object, _COLOURS[factors.colour])
    draw_sign(places.sign.pen(draw, size), factors.sign)
    for burst in places.bursts:
        draw_burst(burst.pen(draw, size))
    _draw_caption(draw, size, factors.layout, caption)
    for name, place in places.props.items():
        draw_prop(place.pen(draw, size), name)
    return image


def _draw_caption(draw: ImageDraw.ImageDraw, size: int, layout: str, caption: str) -> None:
    stripe = round(STRIPE * size)
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
