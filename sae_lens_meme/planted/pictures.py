"""Pictures from visual factors: a scene, faces, an object, a sign, starbursts, props, and the caption in its stripe."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sae_lens_meme.planted.arrangement import STRIPE, arrange
from sae_lens_meme.planted.factors import Factors
from sae_lens_meme.planted.icons import INK, WHITE, Colour, draw_burst, draw_face, draw_object, draw_sign
from sae_lens_meme.planted.props import draw_prop

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


_LIGHT = {"dark": 0.45, "plain": 0.8, "bright": 1.0}
_SKY: Colour = (150, 200, 240)


def draw_scene(size: int, scene: str, light: str, rng: np.random.Generator) -> Image.Image:
    """An RGB background of `size` x `size` pixels, darkened or lit, with a sun or a moon by its light."""
    image = Image.new("RGB", (size, size), _SKY)
    draw = ImageDraw.Draw(image)
    _SCENES[scene](draw, size, rng)
    image = Image.blend(Image.new("RGB", (size, size)), image, _LIGHT[light])
    _draw_lamp(ImageDraw.Draw(image), size, light)
    return image


def _draw_lamp(draw: ImageDraw.ImageDraw, size: int, light: str) -> None:
    x, y, r = 0.9 * size, 0.22 * size, 0.08 * size
    if light == "bright":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 240, 90), outline=(240, 160, 20), width=2)
    elif light == "dark":
        draw.chord((x - r, y - r, x + r, y + r), 30, 250, fill=(235, 235, 210))


def _tint(rng: np.random.Generator, colour: Colour) -> Colour:
    r, g, b = (int(np.clip(c + rng.integers(-18, 19), 0, 255)) for c in colour)
    return r, g, b


def _plain(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, size, size), fill=_tint(rng, (205, 205, 200)))


def _hills(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    for start, shade in ((-0.4, (120, 190, 100)), (0.3, (90, 165, 80))):
        left = (start + rng.uniform(-0.1, 0.1)) * size
        draw.ellipse((left, 0.55 * size, left + 1.2 * size, 1.6 * size), fill=_tint(rng, shade))


def _beach(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    shore = rng.uniform(0.55, 0.68) * size
    draw.rectangle((0, 0.4 * size, size, shore), fill=_tint(rng, (50, 120, 200)))
    draw.rectangle((0, shore, size, size), fill=_tint(rng, (240, 220, 160)))


def _city(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    for i, height in enumerate(rng.uniform(0.35, 0.8, 6)):
        left, top = i * size / 6, (1 - height) * size
        draw.rectangle((left, top, left + size / 6 - 2, size), fill=_tint(rng, (120, 120, 135)))
        for y in range(int(top) + 4, size, max(6, size // 12)):
            draw.rectangle((left + 4, y, left + 8, y + 3), fill=(240, 220, 120))


def _room(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, size, size), fill=_tint(rng, (225, 195, 170)))
    draw.rectangle((0, 0.72 * size, size, size), fill=_tint(rng, (150, 100, 60)))
    left = rng.uniform(0.3, 0.5) * size
    draw.rectangle((left, 0.14 * size, left + 0.22 * size, 0.36 * size), fill=_SKY, outline=(250, 250, 250), width=2)


def _forest(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0.75 * size, size, size), fill=_tint(rng, (110, 90, 50)))
    for x in np.linspace(0.05, 0.95, 6) * size + rng.uniform(-3, 3, 6):
        draw.polygon(
            (x, 0.2 * size, x - 0.14 * size, 0.8 * size, x + 0.14 * size, 0.8 * size), fill=_tint(rng, (30, 100, 50))
        )


def _checks(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    step, light, dark = size / 7, _tint(rng, (240, 235, 240)), _tint(rng, (190, 150, 200))
    for i in range(49):
        x, y = (i % 7) * step, (i // 7) * step
        draw.rectangle((x, y, x + step, y + step), fill=light if i % 2 else dark)


def _rays(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    one, other = _tint(rng, (250, 170, 110)), _tint(rng, (250, 215, 170))
    turn = rng.uniform(0, 30)
    for i in range(12):
        draw.pieslice(
            (-size, -size, 2 * size, 2 * size), turn + 30 * i, turn + 30 * (i + 1), fill=one if i % 2 else other
        )


_SCENES: Mapping[str, Callable[[ImageDraw.ImageDraw, int, np.random.Generator], None]] = {
    "plain": _plain,
    "hills": _hills,
    "beach": _beach,
    "city": _city,
    "room": _room,
    "forest": _forest,
    "checks": _checks,
    "rays": _rays,
}
