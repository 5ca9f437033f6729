"""Does the picture decide a latent, the caption, or only both together?

The other side is exchanged: the meme's picture stands with the captions of other memes, its caption with their pictures.
A latent that stays active whatever the caption is decided by the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import eval_mode
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, fuse
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.read.reading import BOTH, CAPTION, EITHER, PICTURE, Sides


class Exchange:
    """The embeddings of other memes whose sides are put in place of a meme's own."""

    def __init__(
        self, embeddings: Embeddings, rows: Int[np.ndarray, " swaps"], decides: float, heads: MemeCLIPHeads | None
    ):
        self._image, self._text = (embeddings.take(side, rows) for side in (IMAGE_EMBED, TEXT_EMBED))
        self._decides, self._heads = decides, heads

    @torch.no_grad()
    def sides(
        self,
        sae: Any,
        image: Float[np.ndarray, "1 d_image"],
        text: Float[np.ndarray, "1 d_text"],
        latents: Int[np.ndarray, " latents"],
    ) -> list[Sides]:
        """For each latent of an SAE on `hook_fused`."""
        n = len(self._image)
        fused = [
            fuse(np.repeat(image, n, axis=0), self._text, heads=self._heads),
            fuse(self._image, np.repeat(text, n, axis=0), heads=self._heads),
        ]
        with eval_mode(sae):
            acts = sae.encode(torch.from_numpy(np.concatenate(fused)).to(sae.device, sae.dtype))
        active = (acts.to_dense() if acts.is_sparse else acts)[:, torch.from_numpy(latents).to(sae.device)] != 0
        stays = active.float().cpu().numpy()
        shares = zip(stays[:n].mean(axis=0).tolist(), stays[n:].mean(axis=0).tolist(), strict=True)
        return [Sides(verdict(captions, pictures, self._decides), captions, pictures) for captions, pictures in shares]


def verdict(other_captions: float, other_pictures: float, decides: float) -> str:
    """From the shares of exchanged captions and pictures with which the latent stays active."""
    alone = {PICTURE: other_captions >= decides, CAPTION: other_pictures >= decides}
    if all(alone.values()):
        return EITHER
    return next((side for side, enough in alone.items() if enough), BOTH)


def one_sided(hook: str) -> Sides | None:
    """Of an SAE on one side's embedding; None of any other."""
    side = {IMAGE_EMBED: PICTURE, TEXT_EMBED: CAPTION}.get(hook)
    return Sides(side, None, None) if side else None
