"""One planted meme: where it stands, what it says, how it is annotated. It depends on (world, seed, stream, index) only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from sae_lens_meme.planted.arrangement import Arrangement, arrange
from sae_lens_meme.planted.captions import Caption, write_caption
from sae_lens_meme.planted.causes import annotated_labels
from sae_lens_meme.planted.factors import Factors
from sae_lens_meme.planted.options import PLAIN
from sae_lens_meme.planted.pictures import draw_picture
from sae_lens_meme.planted.worlds import WORLDS


@dataclass(frozen=True)
class Stream:
    """A run of memes with one clash rate: a data set, or one file of Hateful Memes."""

    source: str
    rows: int  # at scale 1
    clash_rate: float  # makes the release's share of hate


STREAMS: Mapping[str, Stream] = {
    "pridemm": Stream("pridemm", 1250, 0.49),
    "train": Stream("hmc", 2125, 0.355),
    "dev_seen": Stream("hmc", 125, 0.494),
    "dev_unseen": Stream("hmc", 35, 0.37),
    "test_seen": Stream("hmc", 250, 0.49),
    "test_unseen": Stream("hmc", 500, 0.375),
    "memotion": Stream("memotion", 1750, 0.5),
}
FOLDERS = {"pridemm": "PrideMM/Images", "hmc": "HMC/img", "memotion": "Memotion/images"}
"""Where each source's pictures lie in the written folder."""

_EXTENSIONS = {".jpg": 4949, ".png": 1675, ".jpeg": 345, ".JPG": 16, ".PNG": 4, ".bmp": 2, ".jpe": 1}  # Memotion 7k
_HMC_NUMBERS = 99_991  # prime, so that multiples of a fixed step never repeat


@dataclass(frozen=True)
class PlantedMeme:
    """One row. Factors, caption, labels and picture are drawn in this order from one generator."""

    seed: int
    stream: str
    index: int
    world: str = PLAIN

    @property
    def source(self) -> str:
        return STREAMS[self.stream].source

    @cached_property
    def name(self) -> str:
        """The picture's file name, as the original release names its files."""
        if self.source == "pridemm":
            return f"img_{self.index + 1}.png"
        if self.source == "memotion":
            draw = np.random.default_rng([self.index]).random() * sum(_EXTENSIONS.values())
            place = int(np.searchsorted(np.cumsum(list(_EXTENSIONS.values())), draw, side="right"))
            return f"image_{self.index + 1}{list(_EXTENSIONS)[place]}"
        position = 10_000 * list(STREAMS).index(self.stream) + self.index
        return f"{position * 48_271 % _HMC_NUMBERS:05d}.png"

    @property
    def id(self) -> str:
        return f"{self.source}/{self.name}"

    @property
    def path(self) -> str:
        return f"{FOLDERS[self.source]}/{self.name}"

    @property
    def factors(self) -> Factors:
        return self._contents[0]

    @property
    def caption(self) -> str:
        return self.written.text

    @property
    def written(self) -> Caption:
        """The caption, and which of its words say what."""
        return self._contents[1]

    @property
    def arrangement(self) -> Arrangement:
        """Where the things of the picture stand."""
        return arrange(self.factors, self._brush)

    @property
    def labels(self) -> dict[str, int]:
        """What the source's annotators said; labels that the source lacks are absent."""
        return self._contents[2]

    def draw(self) -> Image.Image:
        return draw_picture(self.factors, self.caption, self._brush)

    @property
    def _brush(self) -> np.random.Generator:
        return np.random.default_rng([*self._key, 1])

    @property
    def _key(self) -> list[int]:
        return [self.seed, list(STREAMS).index(self.stream), self.index]

    @cached_property
    def _contents(self) -> tuple[Factors, Caption, dict[str, int]]:
        rng, world = np.random.default_rng([*self._key, 0]), WORLDS[self.world]
        factors = world.draw(rng, self.source, STREAMS[self.stream].clash_rate)
        return factors, write_caption(factors, rng), annotated_labels(factors, self.source, rng, world.labelling)


def planted_memes(seed: int, scale: float, world: str = PLAIN) -> Iterator[PlantedMeme]:
    """Every meme once, stream after stream."""
    for name in STREAMS:
        for index in range(stream_rows(name, scale)):
            yield PlantedMeme(seed, name, index, world)


def stream_rows(stream: str, scale: float) -> int:
    return max(1, round(STREAMS[stream].rows * scale))
