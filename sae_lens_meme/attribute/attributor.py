"""Occludes memes and measures what that does to latents: each variant is encoded once, for all latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sae_lens_meme.attributions import GRID
from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ModelError
from sae_lens_meme.evaluators.latents import eval_mode
from sae_lens_meme.hook_columns import require_finite
from sae_lens_meme.hooks.memeclip import fuse
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.standardize import train_moments

SAE_ROWS = 2048
"""Vectors an SAE encodes at once, about."""


class Meme(NamedTuple):
    """A picture as a PIL image, and its caption, None where it has none."""

    id: str
    picture: Any
    caption: str | None


class Interaction(NamedTuple):
    """f(meme) - f(without the word) - f(without the patch) + f(without both)."""

    word: int
    patch: int
    value: float


class Attribution(NamedTuple):
    """What drives one latent on one meme; a side that the latent does not see is None or empty."""

    latent: int
    pre_activation: float
    words: list[str]
    word_scores: list[float]
    patch_scores: list[float] | None
    interactions: list[Interaction]
    caption_local: float | None
    image_local: float | None
    meme_global: float


class _Variants(NamedTuple):
    """Where the vectors of a meme are among those of its block: the whole picture or caption, then what is left."""

    image: int
    patches: Int[np.ndarray, " patches"]
    text: int
    words: list[str]
    without: Int[np.ndarray, " words"]


_NOWHERE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Attributor:
    """An SAE on a hook, the encoder of its embeddings, and the mean embeddings that stand for "no picture" and "no caption".

    Args:
        pairs: how many of the words, and of the patches, with the largest scores are paired.
        batch_size: pictures or captions a forward pass.
    """

    sae: Any
    hook: str
    encoder: Encoder
    embeddings: Embeddings
    pairs: int = 3
    batch_size: int = 128

    @property
    def sees_pictures(self) -> bool:
        return self.hook != TEXT_EMBED

    @property
    def sees_captions(self) -> bool:
        return self.hook != IMAGE_EMBED

    def attribute(self, memes: Sequence[Meme], latents: Sequence[Sequence[int]]) -> list[list[Attribution]]:
        """For each meme one attribution per requested latent.

        Raises:
            NonFiniteError: a pre-activation is NaN or infinite.
        """
        images, patches = self._images(memes)
        texts, captions = self._texts(memes)
        places = [_Variants(*picture, *caption) for picture, caption in zip(patches, captions, strict=True)]
        wanted = [np.asarray(asked, np.int64) for asked in latents]
        with eval_mode(self.sae):
            one = self._read(images, texts, [self._single(place) for place in places], wanted, memes)
            singles = [_Singles(self, place, *read) for place, read in zip(places, one, strict=True)]
            both = self._read(images, texts, [single.both for single in singles], wanted, memes)
        return [
            single.attributions(latent, pre) for single, latent, (pre, _) in zip(singles, wanted, both, strict=True)
        ]

    @cached_property
    def _means(self) -> dict[str, np.ndarray]:
        sides = [side for side in (IMAGE_EMBED, TEXT_EMBED) if side in self.embeddings.hooks]
        return {side: train_moments(self.embeddings, side).mean.astype(np.float32)[None] for side in sides}

    def _images(self, memes: Sequence[Meme]) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
        """Vectors of every picture whole and without each patch, the mean last; and where those of each meme are."""
        if not self.sees_pictures:
            return np.empty((0, 0), np.float32), [(0, _NOWHERE)] * len(memes)
        size, parts = 1 + GRID**2, []
        together = max(1, self.batch_size // size)
        for start in range(0, len(memes), together):
            pixels = [self.encoder.model.preprocess(meme.picture) for meme in memes[start : start + together]]
            variants = torch.cat([without_patches(x.to(self.encoder.device)) for x in pixels])
            parts += [self.encoder.encode_image(part) for part in variants.split(self.batch_size)]
        places = [(i * size, i * size + 1 + np.arange(GRID**2)) for i in range(len(memes))]
        return np.concatenate([*parts, *([self._means[IMAGE_EMBED]] if self.sees_captions else [])]), places

    def _texts(self, memes: Sequence[Meme]) -> tuple[np.ndarray, list[tuple[int, list[str], np.ndarray]]]:
        """The same of captions."""
        if not self.sees_captions:
            return np.empty((0, 0), np.float32), [(0, [], _NOWHERE)] * len(memes)
        context = self.encoder.model.towers.model.context_length
        captions: list[str | None] = []
        places = []
        for meme in memes:
            found = without_words(meme.caption, context)
            start = len(captions)
            places.append((start, found.words, start + 1 + np.arange(len(found.words))))
            captions += [meme.caption, *found.without]
        batches = [captions[i : i + self.batch_size] for i in range(0, len(captions), self.batch_size)]
        vectors = [self.encoder.encode_text(self.encoder.model.tokenize(batch)) for batch in batches]
        return np.concatenate([*vectors, *([self._means[TEXT_EMBED]] if self.sees_pictures else [])]), places

    def _single(self, place: _Variants) -> Int[np.ndarray, "rows 2"]:
        """Picture and caption whole; without each word; without each patch; with the mean picture; with the mean caption."""
        pairs = [(place.image, place.text), *((place.image, t) for t in place.without)]
        pairs += [(i, place.text) for i in place.patches]
        if self.sees_pictures and self.sees_captions:
            pairs += [(-1, place.text), (place.image, -1)]
        return np.array(pairs, np.int64).reshape(-1, 2)

    def _read(
        self,
        images: np.ndarray,
        texts: np.ndarray,
        rows: Sequence[Int[np.ndarray, "rows 2"]],
        latents: Sequence[np.ndarray],
        memes: Sequence[Meme],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pre-activations and activations [rows, latents asked for] of each meme."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        starts = np.cumsum([0, *map(len, rows)])
        for block in np.unique(starts[:-1] // SAE_ROWS):
            mine = [m for m in range(len(memes)) if starts[m] // SAE_ROWS == block]
            pairs = np.concatenate([rows[m] for m in mine])
            ids = [memes[m].id for m in mine for _ in range(len(rows[m]))]
            if not ids:  # of memes without words, or without patches
                found += [(np.empty((0, len(latents[m])), np.float32), np.empty(0, np.float32)) for m in mine]
                continue
            stages = pre_activations(self.sae, self._vectors(images, texts, pairs, ids))
            for m in mine:
                span = slice(int(starts[m] - starts[mine[0]]), int(starts[m + 1] - starts[mine[0]]))
                asked = torch.from_numpy(latents[m]).to(stages[0].device)
                pre, acts = (stage[span, asked].cpu().numpy() for stage in stages)
                require_finite(pre, "the pre-activation", ids[span])
                found.append((pre, acts))
        return found

    def _vectors(self, images: np.ndarray, texts: np.ndarray, pairs: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        if not self.sees_captions:
            return images[pairs[:, 0]]
        if not self.sees_pictures:
            return texts[pairs[:, 1]]
        return fuse(images[pairs[:, 0]], texts[pairs[:, 1]], ids, self.encoder.model.heads)


class _Singles:
    """The scores of one meme, and which words and patches are to be taken out together."""

    def __init__(
        self,
        attributor: Attributor,
        place: _Variants,
        pre: Float[np.ndarray, "rows latents"],
        acts: Float[np.ndarray, "rows latents"],
    ):
        n_words, n_patches = len(place.without), len(place.patches)
        self._of, self._place, self._pre, self._acts = attributor, place, pre, acts
        scores = pre[:1] - pre
        self.words, self.patches = scores[1 : 1 + n_words], scores[1 + n_words : 1 + n_words + n_patches]
        pairs = [
            (int(w), int(p))
            for latent in range(pre.shape[1])
            for w in strongest(self.words[:, latent], attributor.pairs)
            for p in strongest(self.patches[:, latent], attributor.pairs)
        ]
        self._pairs = {pair: i for i, pair in enumerate(sorted(set(pairs)))}
        self._mine = pairs

    @property
    def both(self) -> Int[np.ndarray, "rows 2"]:
        place = self._place
        return np.array([(place.patches[p], place.without[w]) for w, p in self._pairs], np.int64).reshape(-1, 2)

    def attributions(self, latents: Int[np.ndarray, " latents"], both: np.ndarray) -> list[Attribution]:
        return [self._attribution(i, int(latent), both) for i, latent in enumerate(latents)]

    def _attribution(self, i: int, latent: int, both: np.ndarray) -> Attribution:
        sides = self._of.sees_pictures, self._of.sees_captions
        full = float(self._acts[0, i])
        local = self._acts[-2:, i].tolist() if all(sides) else [full, full]
        return Attribution(
            latent=latent,
            pre_activation=float(self._pre[0, i]),
            words=self._place.words,
            word_scores=self.words[:, i].tolist(),
            patch_scores=self.patches[:, i].tolist() if sides[0] else None,
            interactions=self._interactions(i, both),
            caption_local=local[0] if sides[1] else None,
            image_local=local[1] if sides[0] else None,
            meme_global=full,
        )

    def _interactions(self, i: int, both: np.ndarray) -> list[Interaction]:
        """Of the strongest words and patches of this latent, the strongest interaction first."""
        per_latent = len(self._mine) // max(self._pre.shape[1], 1)
        found = []
        for w, p in self._mine[i * per_latent : (i + 1) * per_latent]:
            without_both = both[self._pairs[w, p], i]
            # f(meme) - f(-w) - f(-p) + f(-w, -p), where a score is f(meme) - f(-...)
            value = self.words[w, i] + self.patches[p, i] - self._pre[0, i] + without_both
            found.append(Interaction(w, p, float(value)))
        return sorted(found, key=lambda pair: (-abs(pair.value), pair.word, pair.patch))


def view_of(encoder: Encoder) -> str:
    """What the patches cover: the whole picture, the square in its centre, or the square of margins around it."""
    return {"squash": "whole", "crop": "centre", "pad": "padded"}[encoder.model.towers.resized]


class CaptionWords(NamedTuple):
    """The words of a caption that the text tower can read, and the caption without each of them."""

    words: list[str]
    without: list[str]


def without_words(caption: str | None, context_length: int) -> CaptionWords:
    """A word is what stands between white space; each takes one token or more, so that later ones are never read."""
    words = [] if caption is None else caption.split(maxsplit=2 * context_length)[: 2 * context_length]
    read = words[:context_length]
    return CaptionWords(read, [" ".join(words[:i] + words[i + 1 :]) for i in range(len(read))])


def patches(height: int, width: int) -> Bool[torch.Tensor, "patches height width"]:
    """The pixels of each patch, row by row from the top left; the patches cover the picture."""
    rows, columns = (torch.div(torch.arange(n) * GRID, n, rounding_mode="floor") for n in (height, width))
    return (rows[:, None] * GRID + columns[None, :])[None] == torch.arange(GRID**2)[:, None, None]


def without_patches(pixels: Float[torch.Tensor, "3 h w"]) -> Float[torch.Tensor, "variants 3 h w"]:
    """The picture, then the picture without each patch: its mean colour takes the place."""
    holes = patches(*pixels.shape[1:]).to(pixels.device)
    mean = pixels.mean(dim=(1, 2))[:, None, None]
    return torch.cat([pixels[None], torch.where(holes[:, None], mean, pixels)])


def strongest(scores: Float[np.ndarray, " n"], most: int) -> np.ndarray:
    """The places of the largest absolute scores, the largest first; of equal ones the first."""
    return np.argsort(-np.abs(scores), kind="stable")[:most]


@torch.no_grad()
def pre_activations(
    sae: Any, x: Float[np.ndarray, "n d_in"]
) -> tuple[Float[torch.Tensor, "n d_sae"], Float[torch.Tensor, "n d_sae"]]:
    """What the activation function sees, and what it makes of it.

    Raises:
        ModelError: the SAE has no such stage (matching pursuit, for one).
    """
    seen: list[torch.Tensor] = []
    handle = sae.hook_sae_acts_pre.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        acts = sae.encode(torch.from_numpy(x).to(sae.device, sae.dtype))
    finally:
        handle.remove()
    if not seen:
        raise ModelError(f"an SAE of architecture {sae.cfg.architecture()!r} has no pre-activation to attribute")
    pre = seen[-1]
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):  # SAELens scales after the hook
        pre = pre * sae.W_dec.norm(dim=-1)
    return pre.float(), (acts.to_dense() if acts.is_sparse else acts).float()
