"""What trains the encoder of the crowded world: each tower alone, to put a meme where the directions of its values point.

Every value has a direction in the embedding that is drawn beforehand (`Side`): the values of plain factors at right
angles, props and sayings anywhere, so that there are far more of them than dimensions. All props and sayings have one
length, whether a label follows from them or not. Nothing reads or shapes the product of the two embeddings.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_memes import Data, encode_image, encode_text, top_1

from sae_lens_meme.planted import factors as planted
from sae_lens_meme.planted.aligned import VALUES, aligned_factors
from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.crowded import CrowdedFactors, crowded
from sae_lens_meme.planted.phrases import SAYINGS
from sae_lens_meme.planted.props import PROPS

WIDTH = 64
ALIKE: Mapping[str, str] = {"topic": "object", "mood": "expression", "phrasing": "layout", "addressee": "hat"}
"""Factors of a caption that speak of a factor of the picture, and have its directions, as contrast brings about in CLIP."""
LENGTHS: Mapping[str, float] = {
    **dict.fromkeys(("expression", "mood"), 2.0),
    **dict.fromkeys(("object", "topic"), 1.5),
    **dict.fromkeys(("layout", "hat", "phrasing", "addressee", "light", "sign", "bursts"), 0.5),
    **dict.fromkeys(("scene", "colour", "figures", "style"), 0.25),
}
"""Of the directions of a plain factor's values."""
RARE = 5.0
"""Of the directions of props and sayings."""
CONE = 0.95
"""Length of the mean embedding: CLIP's lie in a cone, the captions' in another than the pictures'."""
TAKEN = 0.5
"""Share of the places and slots that are taken, each prop and saying equally often."""


class Side:
    """Where the embeddings of one tower are to lie.

    The directions of a factor's values sum to zero (a simplex); those of another factor are at right angles to them.
    """

    def __init__(self, names: Sequence[str], axis: Tensor, axes: Tensor, generator: torch.Generator):
        self.names, self.axis, self.axes, self.generator = names, axis, axes, generator
        self.directions: dict[str, Tensor] = {}

    def place(self, basis: Tensor, given: Mapping[str, Tensor], details: Sequence[Sequence[str]]) -> Side:
        used = 0
        for name in self.names:
            n = len(VALUES[name])
            if name in given:
                self.directions[name] = given[name]
            else:
                self.directions[name] = LENGTHS[name] * _simplex(n) @ basis[used : used + n - 1]
                used += n - 1
        rows = [len(row) for row in details]
        drawn = torch.randn(sum(rows), WIDTH, generator=self.generator)
        drawn = RARE * F.normalize(drawn - (drawn @ self.axes.T) @ self.axes, dim=1)
        nothing = torch.zeros(1, WIDTH)
        self.table = torch.cat([*self.directions.values(), *(torch.cat([nothing, part]) for part in drawn.split(rows))])
        self.sizes = [*(len(VALUES[name]) for name in self.names), *(1 + n for n in rows)]
        return self

    def centre(self, codes: Tensor) -> None:
        """Take the mean and the size of the sums from training memes."""
        sums = self._sums(codes)
        self.mean = sums.mean(dim=0)
        self.size = (sums - self.mean).square().sum(dim=1).mean().sqrt()

    def targets(self, codes: Tensor) -> Tensor:
        moved = math.sqrt(1 - CONE**2) * (self._sums(codes) - self.mean) / self.size
        return F.normalize(CONE * self.axis / math.sqrt(WIDTH) + moved, dim=1)

    def _sums(self, codes: Tensor) -> Tensor:
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        return self.table[codes + starts].sum(dim=1)


def make_sides(seed: int) -> tuple[Side, Side]:
    """Of the pictures and of the captions."""
    generator = torch.Generator().manual_seed(seed)
    ones, signs = torch.ones(WIDTH), torch.randn(WIDTH, generator=generator).sign()
    drawn = torch.cat([torch.stack([ones, signs]), torch.randn(WIDTH - 2, WIDTH, generator=generator)])
    basis = torch.linalg.qr(drawn.T)[0].T
    axes, basis = basis[:2], basis[2:]  # no direction leans to a cone, or some captions would be near every picture
    pictures = Side(planted.VISUAL, ones, axes, generator).place(basis, {}, PROPS)
    given = {said: pictures.directions[seen] for said, seen in ALIKE.items()}
    used = sum(len(VALUES[name]) - 1 for name in planted.VISUAL)
    return pictures, Side(planted.TEXTUAL, signs, axes, generator).place(basis[used:], given, SAYINGS)


class Directions:
    """Memes with props and sayings, each of them equally often."""

    embed_dim, context, merges, captions = WIDTH, 40, 1600, 3

    def __init__(self, arguments: argparse.Namespace):
        self.pictures, self.said = make_sides(arguments.seed)
        self.n_seen = len(self.pictures.sizes)

    def meme(self, rng: np.random.Generator) -> CrowdedFactors:
        plain = aligned_factors(rng)
        props, sayings = (
            [int(rng.integers(len(row))) if rng.random() < TAKEN else None for row in rows] for rows in (PROPS, SAYINGS)
        )
        return crowded(plain, props, sayings)

    meme_of_vocabulary = meme

    def described(self, meme: CrowdedFactors, rng: np.random.Generator) -> list[str]:
        return []

    def words_of(self, meme: CrowdedFactors, rng: np.random.Generator) -> list[str]:
        """Texts that byte pairs are learned from."""
        return [write_caption(meme, rng).text]

    def codes(self, meme: CrowdedFactors) -> list[int]:
        """Of the picture, then of the caption: the place of each factor's value in VALUES; of each place and slot which is there."""
        plain = {name: values.index(getattr(meme, name)) for name, values in VALUES.items()}
        seen = [plain[name] for name in planted.VISUAL] + _numbers(meme.prop, PROPS)
        return seen + [plain[name] for name in planted.TEXTUAL] + _numbers(meme.phrase, SAYINGS)

    def prepare(self, model: open_clip.CLIP, data: Data) -> list[nn.Parameter]:
        with torch.no_grad():
            model.logit_scale.fill_(math.log(100))  # of CLIP; nothing here trains it
        self.pictures.centre(data.codes[:, : self.n_seen])
        self.said.centre(data.codes[:, self.n_seen :])
        return []

    def losses(
        self, model: open_clip.CLIP, data: Data, rows: Tensor, generator: torch.Generator, done: float
    ) -> dict[str, Tensor]:
        """Captions are learned from half as many."""
        few, which = rows[: len(rows) // 2], int(torch.randint(self.captions, (1,), generator=generator))
        image, text = encode_image(model, data.pixels[rows]), encode_text(model, data.tokens[few, which])
        return {
            "pictures": self._missed(image, data.codes[rows], 0),
            "captions": self._missed(text, data.codes[few], 1),
        }

    @torch.no_grad()
    def progress(self, model: open_clip.CLIP, data: Data) -> str:
        image, text = encode_image(model, data.pixels), encode_text(model, data.tokens[:, 0])
        missed = [self._missed(x, data.codes, side).item() for side, x in enumerate((image, text))]
        return f"held out, missed: {missed[0]:.3f}, {missed[1]:.3f}  top-1 of 64 {top_1(image, text):.3f}"

    def _missed(self, embedding: Tensor, codes: Tensor, side: int) -> Tensor:
        """The share of the targets' variance that the embeddings miss."""
        target = self.said.targets(codes[:, self.n_seen :]) if side else self.pictures.targets(codes[:, : self.n_seen])
        return (embedding - target).square().sum(dim=1).mean() / (1 - CONE**2)


def _simplex(n: int) -> Tensor:
    """n unit vectors in n - 1 dimensions that sum to zero."""
    u, s, _ = torch.linalg.svd(torch.eye(n) - 1 / n)
    return F.normalize(u[:, : n - 1] * s[: n - 1], dim=1)


def _numbers(values: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """For each place or slot which of its row is there: its number from 1, or 0."""
    return [next((1 + i for i, name in enumerate(row) if name in values), 0) for row in rows]
