"""What the columns of token rows say of a position: its word, the text that the word is in, its patch of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.names import IMAGE_RESID, PROJECTED
from sae_lens_meme.hooks.patches import View, boxes_of_tokens, view_of
from sae_lens_meme.hooks.positions import IMAGE
from sae_lens_meme.hooks.vocabulary import ids_of
from sae_lens_meme.hooks.words import spelled


class TokenDescriber:
    """Describes the positions that pass one hook of a model; `kept` are the tags of those that become rows."""

    def __init__(self, model: HookedVLM, hook: str, kept: list[int]):
        self._model, self._reads = model, not hook.startswith((IMAGE_RESID, PROJECTED))
        self.view: View | None = view_of(self._pixels) if IMAGE in kept else None
        """How the boxes of patches lie on the picture."""

    def columns(self, inputs: dict[str, Any], row: int, tags: np.ndarray) -> dict[str, list[Any]]:
        """Of every position of one row of a batch."""
        n = len(tags)
        return {**self._words(inputs, row, tags), "token_box": self._boxes(inputs, row, tags == IMAGE, n)}

    def _words(self, inputs: dict[str, Any], row: int, tags: np.ndarray) -> dict[str, list[Any]]:
        tokenizer, (ids, _) = self._model.processor.tokenizer, ids_of(self._model.hf, inputs)
        n = len(tags)
        if not self._reads or tokenizer is None or ids is None:
            return {name: [None] * n for name in ("token", "token_text", "token_start", "token_end")}
        before = [0] * (n - ids.shape[1])  # GIT's pictures are no ids
        found = spelled(tokenizer, before + ids[row].tolist(), tags, self._model.vocabulary.special)
        text = [found.text] * n
        return {"token": found.words, "token_text": text, "token_start": found.starts, "token_end": found.ends}

    def _boxes(self, inputs: dict[str, Any], row: int, image: np.ndarray, n: int) -> list[list[float] | None]:
        boxes: list[list[float] | None] = [None] * n
        if self.view is not None and image.any():
            placed = self.view.placed(boxes_of_tokens(self._model.hf, inputs, row, int(image.sum())))
            for position, box in zip(np.flatnonzero(image).tolist(), placed.tolist(), strict=True):
                boxes[position] = None if np.isnan(box).any() else box
        return boxes

    def _pixels(self, picture: Any) -> Any:
        found = self._model.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
        return found[0, 0] if found.ndim == 5 else found[0] if found.ndim == 4 else found  # of tiles the first is whole
