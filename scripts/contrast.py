"""What trains the demo encoder of the plain world: contrast, and linear heads that are thrown away.

In a training pair the topic is the object, the mood is the expression, the addressee has its hat and the phrasing
its layout. To CLIP's contrastive loss come linear heads, thrown away afterwards, that read the factors from each
embedding and, in the manner of image-text matching, from the product of a picture and another meme's caption (and rebuild
the product from them): a million parameters and 150,000 pairs do not get there by contrast alone.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_memes import Data, encode_image, encode_text, top_1

from sae_lens_meme.planted import factors as planted
from sae_lens_meme.planted.aligned import VALUES, aligned_factors, describe
from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.factors import Factors


class Contrast:
    """Captions, then as many plain descriptions, and their pictures."""

    embed_dim, context, merges, captions = 128, 32, 1200, 3

    def __init__(self, arguments: argparse.Namespace):
        self.neighbour, self.scale = arguments.neighbour, arguments.scale

    def meme(self, rng: np.random.Generator) -> Factors:
        return aligned_factors(rng, self.neighbour)

    def meme_of_vocabulary(self, rng: np.random.Generator) -> Factors:
        return aligned_factors(rng)

    def described(self, meme: Factors, rng: np.random.Generator) -> list[str]:
        return [describe(meme, rng) for _ in range(self.captions)]

    def words_of(self, meme: Factors, rng: np.random.Generator) -> list[str]:
        """Texts that byte pairs are learned from."""
        return [write_caption(meme, rng).text, describe(meme, rng, 1.0)]

    def codes(self, meme: Factors) -> list[int]:
        """The place of each factor's value in VALUES."""
        return [values.index(getattr(meme, name)) for name, values in VALUES.items()]

    def prepare(self, model: open_clip.CLIP, data: Data) -> list[nn.Parameter]:
        """What is trained besides the model."""
        with torch.no_grad():
            model.logit_scale.fill_(math.log(self.scale))
        self.heads = make_heads(self.embed_dim)
        return list(nn.ModuleDict(self.heads).parameters())

    def losses(
        self, model: open_clip.CLIP, data: Data, rows: Tensor, generator: torch.Generator, done: float
    ) -> dict[str, Tensor]:
        losses = training_losses(model, self.heads, data, rows, generator, self.captions)
        # from the start, the rebuilding loss would be met best by embeddings that show next to nothing
        losses["rebuilt"] *= min(1.0, max(0.0, 3 * done - 1))
        return losses

    @torch.no_grad()
    def progress(self, model: open_clip.CLIP, data: Data) -> str:
        image = encode_image(model, data.pixels)
        captions, plain = (top_1(image, encode_text(model, data.tokens[:, i])) for i in (0, -1))
        return f"top-1 of 64: captions {captions:.3f}, descriptions {plain:.3f}"


class Heads(nn.Module):
    """Linear maps from standardised embeddings to the factors, and back from the factors; losses are 1 at chance."""

    def __init__(self, width: int, classes: dict[str, int]):
        super().__init__()
        self.classes = classes
        self.standardise = nn.BatchNorm1d(width, affine=False)
        self.read = nn.Linear(width, sum(classes.values()))
        self.rebuild = nn.Linear(sum(classes.values()), width)

    def reading_loss(self, embedding: Tensor, codes: Tensor) -> Tensor:
        logits = self.read(self.standardise(embedding)).split(list(self.classes.values()), dim=1)
        losses = [
            F.cross_entropy(part, code) / math.log(part.shape[1]) for part, code in zip(logits, codes.T, strict=True)
        ]
        return torch.stack(losses).mean()

    def rebuilding_loss(self, embedding: Tensor, codes: Tensor) -> Tensor:
        """The share of the variance that is no sum of factors."""
        one_hot = [F.one_hot(code, n) for code, n in zip(codes.T, self.classes.values(), strict=True)]
        return F.mse_loss(self.rebuild(torch.cat(one_hot, dim=1).float()), self.standardise(embedding))


def make_heads(width: int) -> dict[str, Heads]:
    """Readers of the image embedding, of the text embedding, and of their product."""
    classes = {name: len(values) for name, values in VALUES.items()}
    visual = {name: classes[name] for name in planted.VISUAL}
    textual = {name: classes[name] for name in planted.TEXTUAL}
    fused = visual | textual | {"clash": 2, "distance": 3}
    return {"image": Heads(width, visual), "text": Heads(width, textual), "fused": Heads(width, fused)}


def training_losses(
    model: open_clip.CLIP, heads: dict[str, Heads], data: Data, rows: Tensor, generator: torch.Generator, texts: int
) -> dict[str, Tensor]:
    """The contrastive loss and the heads'; the first half of `rows` comes with captions, the rest with descriptions."""
    half, n_visual = len(rows) // 2, len(planted.VISUAL)
    which = torch.randint(texts, (len(rows),), generator=generator)
    which[half:] += texts
    image, text = encode_image(model, data.pixels[rows]), encode_text(model, data.tokens[rows, which])
    seen, said = data.codes[rows, :n_visual], data.codes[rows[:half], n_visual:]
    other = torch.arange(1, len(rows) + 1) % half  # the caption of another meme
    pairs = torch.cat([seen, said[other], _agreement(seen, said[other])], dim=1)
    fused = image * text[other]
    return {
        "contrastive": _contrastive_loss(model, image, text),
        "image": 2 * heads["image"].reading_loss(image, seen),
        "text": heads["text"].reading_loss(text[:half], said),
        "fused": 2 * heads["fused"].reading_loss(fused, pairs),
        "rebuilt": heads["fused"].rebuilding_loss(fused, pairs),
    }


def _agreement(seen: Tensor, said: Tensor) -> Tensor:
    """Whether mood and expression clash, and how far the topic is from the object (0, 1, 2 and more)."""
    column = {name: i for i, name in enumerate(planted.VISUAL)} | {name: i for i, name in enumerate(planted.TEXTUAL)}
    clash = seen[:, column["expression"]] != said[:, column["mood"]]
    steps = (seen[:, column["object"]] - said[:, column["topic"]]) % len(planted.TOPICS)
    return torch.stack([clash.long(), torch.minimum(steps, len(planted.TOPICS) - steps).clamp(max=2)], dim=1)


def _contrastive_loss(model: open_clip.CLIP, image: Tensor, text: Tensor) -> Tensor:
    logits = model.logit_scale.exp() * image @ text.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
