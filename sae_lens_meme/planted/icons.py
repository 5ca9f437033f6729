"""Objects and faces of planted pictures, drawn with simple shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import ImageDraw

Colour = tuple[int, int, int]
INK: Colour = (25, 25, 30)
WHITE: Colour = (250, 250, 245)
SKIN: Colour = (250, 215, 150)
HAT_EXTENTS = {"cap": (0.1, -0.22, 1.2, 0.16), "party": (0.2, -0.68, 0.8, 0.14), "tophat": (0, -0.5, 1, 0.14)}
SIGN_EXTENT = (0, 0, 1, 1.2)
"""What a hat covers in its face's square, and a sign in its own; everything else fills its square."""


@dataclass(frozen=True)
class Pen:
    """Draws in a square of `size` pixels whose upper left corner is at (x, y); coordinates are 0..1."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    size: float

    def at(self, *points: float) -> list[float]:
        return [(self.x if i % 2 == 0 else self.y) + p * self.size for i, p in enumerate(points)]

    def width(self, share: float) -> int:
        return max(1, round(share * self.size))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self.draw.rectangle(self.at(x0, y0, x1, y1), fill=fill, outline=INK)

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self.draw.ellipse(self.at(x0, y0, x1, y1), fill=fill, outline=INK)

    def shape(self, *points: float, fill: Colour) -> None:
        self.draw.polygon(self.at(*points), fill=fill, outline=INK)

    def line(self, *points: float, width: float = 0.05, fill: Colour = INK) -> None:
        self.draw.line(self.at(*points), fill=fill, width=self.width(width))

    def arc(
        self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, width: float, fill: Colour = INK
    ) -> None:
        self.draw.arc(self.at(x0, y0, x1, y1), start, end, fill=fill, width=self.width(width))


def draw_object(pen: Pen, name: str, colour: Colour) -> None:
    _OBJECTS[name](pen, colour)


def draw_face(pen: Pen, expression: str, hat: str) -> None:
    """A round face with eyes, brows and mouth; the hat stands on its upper edge."""
    pen.oval(0, 0, 1, 1, SKIN)
    for x in (0.3, 0.7):
        pen.draw.ellipse(pen.at(x - 0.07, 0.32, x + 0.07, 0.46), fill=INK)
    if expression == "smile":
        pen.draw.chord(pen.at(0.2, 0.3, 0.8, 0.88), 0, 180, fill=(190, 40, 50), outline=INK)
    else:
        pen.arc(0.22, 0.62, 0.78, 1.1, 195, 345, 0.1)
        pen.line(0.16, 0.3, 0.4, 0.2, width=0.07)
        pen.line(0.84, 0.3, 0.6, 0.2, width=0.07)
    _draw_hat(pen, hat)


def draw_sign(pen: Pen, direction: str) -> None:
    """A placard with a thumb-like arrow: green up, red down."""
    if direction == "none":
        return
    pen.line(0.5, 0.6, 0.5, 1.2, width=0.1, fill=(110, 80, 50))
    pen.box(0, 0, 1, 0.75, WHITE)
    tip, tail, colour = (0.08, 0.66, (20, 140, 60)) if direction == "up" else (0.66, 0.08, (200, 30, 40))
    middle = (tip + tail) / 2
    pen.shape(0.5, tip, 0.85, middle, 0.15, middle, fill=colour)
    pen.draw.rectangle(pen.at(0.38, min(middle, tail), 0.62, max(middle, tail)), fill=colour)


def draw_burst(pen: Pen) -> None:
    """A loud starburst with an exclamation mark."""
    points = [0.5, 0, 0.62, 0.3, 0.95, 0.15, 0.78, 0.45, 1, 0.65, 0.72, 0.68, 0.7, 1]
    points += [0.48, 0.76, 0.22, 0.98, 0.25, 0.66, 0, 0.6, 0.22, 0.42, 0.08, 0.1, 0.38, 0.28]
    pen.shape(*points, fill=(0, 235, 235))
    pen.line(0.5, 0.32, 0.5, 0.55, width=0.1, fill=(200, 20, 20))


def _draw_hat(pen: Pen, hat: str) -> None:
    if hat == "cap":
        pen.draw.pieslice(pen.at(0.1, -0.22, 0.9, 0.5), 180, 360, fill=(60, 110, 200), outline=INK)
        pen.box(0.7, 0.06, 1.2, 0.16, (40, 80, 160))
    elif hat == "party":
        pen.shape(0.2, 0.14, 0.8, 0.14, 0.5, -0.55, fill=(235, 70, 160))
        pen.oval(0.4, -0.68, 0.6, -0.48, WHITE)
    elif hat == "tophat":
        pen.draw.rectangle(pen.at(0.2, -0.5, 0.8, 0.1), fill=INK)
        pen.draw.rectangle(pen.at(0, 0.04, 1, 0.14), fill=INK)


def _cup(pen: Pen, colour: Colour) -> None:
    pen.arc(0.6, 0.4, 1, 0.8, 270, 90, 0.1)
    pen.shape(0.12, 0.3, 0.8, 0.3, 0.7, 0.95, 0.22, 0.95, fill=colour)
    for x in (0.3, 0.5):
        pen.line(x, 0.22, x + 0.06, 0.12, x, 0.02, width=0.06, fill=(120, 120, 120))


def _pizza(pen: Pen, colour: Colour) -> None:
    pen.shape(0.05, 0.2, 0.95, 0.2, 0.5, 1, fill=(250, 210, 120))
    pen.box(0.02, 0.1, 0.98, 0.24, colour)
    for x, y in ((0.35, 0.38), (0.63, 0.42), (0.5, 0.66)):
        pen.oval(x - 0.09, y - 0.09, x + 0.09, y + 0.09, colour)


def _laptop(pen: Pen, colour: Colour) -> None:
    pen.box(0.12, 0.15, 0.88, 0.68, colour)
    pen.box(0.2, 0.23, 0.8, 0.6, (200, 230, 245))
    pen.shape(0.12, 0.7, 0.88, 0.7, 1, 0.9, 0, 0.9, fill=(150, 150, 155))


def _book(pen: Pen, colour: Colour) -> None:
    pen.shape(0.5, 0.25, 0.95, 0.12, 0.95, 0.8, 0.5, 0.93, fill=colour)
    pen.shape(0.5, 0.25, 0.05, 0.12, 0.05, 0.8, 0.5, 0.93, fill=colour)
    for y in (0.35, 0.5, 0.65):
        pen.line(0.14, y - 0.06, 0.42, y + 0.02, width=0.05, fill=WHITE)
        pen.line(0.58, y + 0.02, 0.86, y - 0.06, width=0.05, fill=WHITE)


def _cat(pen: Pen, colour: Colour) -> None:
    pen.arc(0.6, 0.35, 1.05, 0.95, 250, 80, 0.09, fill=colour)
    pen.oval(0.2, 0.5, 0.8, 1, colour)
    pen.shape(0.14, 0.32, 0.18, 0, 0.42, 0.18, fill=colour)
    pen.shape(0.72, 0.32, 0.68, 0, 0.44, 0.18, fill=colour)
    pen.oval(0.13, 0.12, 0.73, 0.6, colour)
    for x in (0.3, 0.56):
        pen.oval(x - 0.05, 0.27, x + 0.05, 0.4, WHITE)


def _plant(pen: Pen, colour: Colour) -> None:
    pen.line(0.5, 0.7, 0.5, 0.3, width=0.07, fill=(20, 110, 40))
    for x0, y0, x1, y1 in ((0.1, 0.3, 0.5, 0.55), (0.5, 0.3, 0.9, 0.55), (0.34, 0, 0.66, 0.34)):
        pen.oval(x0, y0, x1, y1, (50, 160, 70))
    pen.shape(0.2, 0.64, 0.8, 0.64, 0.7, 1, 0.3, 1, fill=colour)


def _umbrella(pen: Pen, colour: Colour) -> None:
    pen.line(0.5, 0.05, 0.5, 0.9, width=0.06)
    pen.arc(0.5, 0.8, 0.72, 1, 0, 180, 0.06)
    pen.draw.pieslice(pen.at(0, 0.1, 1, 1), 180, 360, fill=colour, outline=INK)
    for x in (0.0, 0.333, 0.667):
        pen.oval(x, 0.48, x + 0.333, 0.62, WHITE)


def _car(pen: Pen, colour: Colour) -> None:
    pen.shape(0.2, 0.5, 0.35, 0.25, 0.7, 0.25, 0.85, 0.5, fill=(200, 230, 245))
    pen.box(0, 0.48, 1, 0.76, colour)
    for x in (0.25, 0.75):
        pen.oval(x - 0.14, 0.64, x + 0.14, 0.92, INK)


_OBJECTS: Mapping[str, Callable[[Pen, Colour], None]] = {
    "cup": _cup,
    "pizza": _pizza,
    "laptop": _laptop,
    "book": _book,
    "cat": _cat,
    "plant": _plant,
    "umbrella": _umbrella,
    "car": _car,
}
