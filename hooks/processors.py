"""Pictures and texts as rows of a model, through its own processor; pixels are made when a row is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks.names import IMAGE_RESID
from sae_lens_meme.hooks.positions import PositionSource, captions, rows_of_split, tags_of_ids
from sae_lens_meme.hooks.positions import with_pictures_before as before
from sae_lens_meme.hooks.sources import by_place, caption_at, picture_at
from sae_lens_meme.hooks.vocabulary import patches_of

if TYPE_CHECKING:
    from sae_lens_meme.hooks.vlm import HookedVLM

CHUNK = 16
MOST_WORDS = 30
"""New tokens of a caption that a captioner writes itself."""


def processed(
    model: HookedVLM,
    images: Sequence[Any],
    texts: Sequence[str | None] | None = None,
    splits: Sequence[str] | None = None,
) -> PositionSource:
    """Row i is `images[i]` with `texts[i]`.

    A vision tower reads no text. A captioner without texts writes them, greedily; its one pass over them then has every
    position of that generation.

    Raises:
        ModelError: the model has no processor.
        DataError: a text is missing, or there are fewer of them than pictures.
    """
    if model.processor is None:
        raise ModelError(f"{model.model_name}: has no processor; attach rows of tensors, hooks.positions.PositionRows")
    if texts is not None and len(texts) != len(images):
        raise DataError(f"{len(images)} pictures but {len(texts)} texts; give one per picture")
    if not len(images):
        raise DataError(f"{model.model_name}: no pictures were given")
    images = by_place(images)
    if texts is not None:
        column = by_place(texts)
        texts = [caption_at(column, row) for row in range(len(images))]
    if not model.writes:
        return TowerRows(model, images, splits)
    if model.vocabulary.image is None:
        return CaptionRows(model, images, texts, splits)
    if texts is None:
        raise DataError(f"{model.model_name}: reads a text with each picture; give texts")
    return PromptRows(model, images, texts, splits)


class _Processed:
    """The part that all have: the rows, their splits and tags."""

    tags: Tensor

    def __init__(self, model: HookedVLM, images: Sequence[Any], splits: Sequence[str] | None):
        self._model, self.images, self.splits = model, images, splits

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, split: str) -> np.ndarray:
        return rows_of_split(self.splits, len(self), split)

    def _pictures(self, rows: Sequence[int] | np.ndarray) -> list[Any]:
        return [picture_at(self.images, int(row)) for row in rows]

    def pixels(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        processor = self._model.processor.image_processor
        return processor(images=self._pictures(rows), return_tensors="pt")["pixel_values"]


class TowerRows(_Processed):
    """Pictures for a vision tower; the first positions of each are special where it has more than patches."""

    def __init__(self, model: HookedVLM, images: Sequence[Any], splits: Sequence[str] | None):
        super().__init__(model, images, splits)
        pixels = self.pixels([0])
        hook = next(name for name in model.shapes if name.startswith(IMAGE_RESID))
        found: list[Tensor] = []
        with (
            torch.no_grad(),
            model.hooks(fwd_hooks=[(hook, lambda x, hook: found.append(model.tags_now(hook.name, x)))]),
        ):
            model({"pixel_values": pixels})
        self.tags = found[0].cpu().reshape(1, -1).expand(len(images), -1).contiguous()

    def take(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels(rows), "tags": self.tags[torch.as_tensor(rows)]}

    def pixels(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        found = super().pixels(rows)
        return found[:, 0] if found.ndim == 5 else found  # of LLaVA-NeXT's tiles the first is the whole picture


class CaptionRows(_Processed):
    """Pictures with captions, for a decoder that looks at the picture through cross-attention, or puts it before (GIT)."""

    def __init__(
        self, model: HookedVLM, images: Sequence[Any], texts: Sequence[str | None] | None, splits: Sequence[str] | None
    ):
        super().__init__(model, images, splits)
        self._end = model.vocabulary.end
        ids = self._written() if texts is None else [self._encoded(row, text) for row, text in enumerate(texts)]
        self._captions = captions(torch.empty(len(ids), 0), ids, model.vocabulary.start, model.vocabulary.pad)
        self.tags = self._captions.tags
        if model.hf.config.model_type == "git":
            self.tags = before(self.tags, 1, patches_of(model.hf, self.pixels([0])) or 0)

    def take(self, rows: np.ndarray) -> dict[str, Tensor]:
        taken = self._captions.take(rows)
        names = ("decoder_input_ids", "decoder_attention_mask")
        if not self._model.hf.config.is_encoder_decoder:
            names = ("input_ids", "attention_mask")
        ids, mask = taken["decoder_input_ids"], taken["decoder_attention_mask"]
        return {
            "pixel_values": self.pixels(rows),
            names[0]: ids,
            names[1]: mask,
            "tags": self.tags[torch.as_tensor(rows)],
        }

    def _encoded(self, row: int, text: str | None) -> list[int]:
        if not text or not text.strip():
            raise DataError(
                f"row {row}: has no caption; leave the picture out, or give no texts and the model writes them"
            )
        return [*self._model.processor.tokenizer(text, add_special_tokens=False)["input_ids"], self._end]

    def _written(self) -> list[list[int]]:
        ids = []
        for part in np.array_split(np.arange(len(self)), -(-len(self) // CHUNK)):
            given = {"pixel_values": self.pixels(part)}
            written = self._model.generate(given, max_new_tokens=MOST_WORDS, do_sample=False, num_beams=1)
            ids += [_until(row[1:].tolist(), self._end) for row in written.cpu()]
        return ids


class PromptRows(_Processed):
    """Texts with placeholders for pictures, padded on the left to one length."""

    def __init__(
        self, model: HookedVLM, images: Sequence[Any], texts: Sequence[str | None], splits: Sequence[str] | None
    ):
        super().__init__(model, images, splits)
        self._texts = [prompt_of(model, text or "") for text in texts]
        found = [self._of_row(row) for row in range(len(images))]
        longest = max(tags.shape[1] for tags in found)
        self.tags = torch.cat([_padded(tags, longest) for tags in found])

    def _of_row(self, row: int) -> Tensor:
        try:
            return self._tags(self._processed([row]))
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"row {row}: the model's processor refuses it ({reason}); correct its text") from error

    def take(self, rows: np.ndarray) -> dict[str, Tensor]:
        inputs, length = self._processed(rows), self.tags.shape[1]
        n = inputs["input_ids"].shape[1]
        texts = {k: x for k, x in inputs.items() if x.ndim == 2 and x.shape == (len(rows), n)}
        pad = self._model.vocabulary.pad
        padded = {k: _padded(x, length, pad if k == "input_ids" else 0) for k, x in texts.items()}
        return {**inputs, **padded, "tags": self.tags[torch.as_tensor(rows)]}

    def _processed(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        texts = [self._texts[int(row)] for row in rows]
        inputs = self._model.processor.both(images=self._pictures(rows), text=texts, padding=True, return_tensors="pt")
        return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}

    def _tags(self, inputs: dict[str, Tensor]) -> Tensor:
        known = self._model.vocabulary
        return tags_of_ids(inputs["input_ids"], inputs["attention_mask"], known.image, known.special)


def prompt_of(model: HookedVLM, text: str) -> str:
    """A text with the placeholder of its picture: by the model's chat template, else before the text."""
    both = model.processor.both
    if getattr(both, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return both.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    placeholder = getattr(both, "image_token", "<image>")
    return text if placeholder in text else f"{placeholder}{text}"


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def _padded(x: Tensor, length: int, value: int = 0) -> Tensor:
    return F.pad(x, (length - x.shape[1], 0), value=value)
