"""What the embeddings of a meme say about it, without the model that made them: its latents, which side decides each, and
what every label's probe reads from them.

To see which side decides, the other one is exchanged: the meme's picture stands with the captions of other memes, its
caption with their pictures. A latent that stays active whatever the caption is decided by the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.classifiers import Probe, Task, fit_latent_probes, tasks_of
from sae_lens_meme.evaluators.latents import Latents, eval_mode, hook_of
from sae_lens_meme.evaluators.question_set.items import fusion_of
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, fuse
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.read.decisions import decide
from sae_lens_meme.read.names import Measured
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.read.reading import BOTH, CAPTION, EITHER, PICTURE, ActiveLatent, Decision, Sides

CHECKED, TOLERANCE = 8, 1e-3
"""Fused vectors that are made again from their sides, and how far they may lie from the given ones."""


class VectorReader:
    """Reads memes from their embeddings; what memes share is computed once.

    Args:
        latents: of all memes.
        heads: MemeCLIP's, where the embeddings were fused with them.
    """

    def __init__(
        self,
        sae: Any,
        embeddings: Embeddings,
        latents: Latents,
        measured: Measured,
        options: ReadOptions,
        heads: MemeCLIPHeads | None = None,
    ):
        self.sae, self.embeddings, self.latents = sae, embeddings, latents
        self.measured, self.options, self._heads = measured, options, heads
        self.hook = hook_of(sae, embeddings, options.hook)
        self.train = embeddings.rows("train")

    def active(self, latents: Latents, vectors: Mapping[str, np.ndarray]) -> tuple[ActiveLatent, ...]:
        """The strongest latents of one meme.

        Args:
            latents: one row.
            vectors: its image and text embeddings, float32 [1, d]; not read where no side can be exchanged.
        """
        found = np.flatnonzero(latents.values[0])
        found = found[np.argsort(-latents.values[0][found], kind="stable")][: self.options.n_latents]
        shown = latents.indices[0][found].astype(np.int64)
        sides = self._sides(vectors, shown)
        return tuple(
            self._latent(int(latent), float(value), side)
            for latent, value, side in zip(shown, latents.values[0][found], sides, strict=True)
        )

    def decisions(self, latents: Latents) -> tuple[Decision, ...]:
        """What the probe of each label reads from the one row of `latents`."""
        return tuple(
            decide(probe, latents, task.label.values[task.train], self.measured.probe(task.name), self.options)
            for task, probe in self.probes
        )

    @cached_property
    def probes(self) -> list[tuple[Task, Probe]]:
        """Of each label, fitted to the train memes at the C of the probe that the evaluation measured."""
        tasks, _ = tasks_of(self.embeddings)
        return [(task, self._probe(task)) for task in tasks]

    def _probe(self, task: Task) -> Probe:
        latents, y = self.latents.csr()[task.train], task.label.values[task.train]
        return fit_latent_probes(task.name, latents, [y], [self.measured.penalty(task.name)])[0]

    @cached_property
    def no_exchange(self) -> str | None:
        """Why no picture can be shown with another caption; None where it can."""
        try:
            fusion = fusion_of(self.embeddings, self.hook, self._heads and partial(fuse, heads=self._heads))
        except Unavailable as error:
            return str(error)
        rows = self.train[:CHECKED]
        made = fusion(*(self.embeddings.take(side, rows) for side in (IMAGE_EMBED, TEXT_EMBED)))
        given = self.embeddings.take(FUSED, rows)
        if made.shape != given.shape or not np.allclose(made, given, atol=TOLERANCE):
            return f"{FUSED} of these embeddings is not the fusion of their image and text embeddings"
        return None if len(rows) else "there are no train memes whose sides could be exchanged"

    @cached_property
    def exchange(self) -> Exchange | None:
        """With the sides of train memes."""
        if one_sided(self.hook) is not None or self.no_exchange is not None:
            return None
        n = min(self.options.n_swaps, len(self.train))
        rows = np.random.default_rng(self.options.seed).choice(self.train, n, replace=False)
        return Exchange(self.embeddings, rows, self.options.decides, self._heads)

    def _sides(self, vectors: Mapping[str, np.ndarray], latents: Int[np.ndarray, " latents"]) -> list[Sides]:
        if self.exchange is None or not all(vectors[side].any() for side in (IMAGE_EMBED, TEXT_EMBED)):
            return [one_sided(self.hook) or Sides(None, None, None)] * len(latents)
        return self.exchange.sides(self.sae, vectors[IMAGE_EMBED], vectors[TEXT_EMBED], latents)

    def _latent(self, latent: int, activation: float, sides: Sides) -> ActiveLatent:
        columns = self._train_columns
        others = columns.data[columns.indptr[latent] : columns.indptr[latent + 1]]
        return ActiveLatent(
            latent=latent,
            activation=activation,
            firing_rate=len(others) / max(1, len(self.train)),
            stronger_than=float((others < activation).mean()) if len(others) else None,
            name=self.measured.name(latent),
            sides=sides,
            seen=None,
        )

    @cached_property
    def _train_columns(self) -> Any:
        return self.latents.csr()[self.train].tocsc()


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
