"""A model and its settings: from the options of `embed`, or those that some embeddings were made with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from sae_lens_meme.device import filled, pick_device
from sae_lens_meme.embed.int8 import only_what_is_read, products_in_int8
from sae_lens_meme.embed.options import HEADS, EmbedOptions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.hooks.names import IMAGE_EMBED, IMAGE_RESID, TEXT_EMBED, TEXT_RESID
from sae_lens_meme.storage import read_manifest

if TYPE_CHECKING:
    from sae_lens_meme.hooks import HookedMemeCLIP

TOWERS = "towers"
"""The folder inside embeddings of fusion memeclip that holds those of the towers."""


@dataclass(frozen=True)
class Encoder:
    """A model, its device, its precision and the size of its batches."""

    model: HookedMemeCLIP
    device: str
    dtype: torch.dtype
    batch_size: int
    workers: int

    @classmethod
    def load(cls, options: EmbedOptions) -> Encoder:
        from sae_lens_meme.hooks import HookedMemeCLIP

        device = pick_device(options.device)
        name = options.model if options.weights is None else f"{options.model}@{options.weights}"
        model = HookedMemeCLIP.from_pretrained(name, fusion=options.fusion, device=device)
        if options.resize is not None:
            model.towers.resize(options.resize)
        dtype = _dtype(options.dtype, device)
        return cls(_cast(model, dtype, device), device, dtype, options.batch_size, _workers(options, device))

    @classmethod
    def of_embeddings(cls, embeddings: Embeddings, device: str = "auto") -> Encoder:
        """The model that made these embeddings, run as it was then, with MemeCLIP's heads where they were used.

        Raises:
            DataError: no model made them.
            ModelError: the model has other weights now.
        """
        from sae_lens_meme.hooks import HookedMemeCLIP

        facts, folder = embeddings.facts, require_model(embeddings)
        towers = folder / TOWERS
        made = read_manifest(towers if towers.is_dir() else folder)["fingerprint"]
        device, dtype = pick_device(device), getattr(torch, facts["dtype"])
        if facts["fusion"] == "memeclip":
            model = HookedMemeCLIP.from_memeclip_checkpoint(folder / HEADS, facts["model"], device=device)
        else:
            model = HookedMemeCLIP.from_pretrained(facts["model"], device=device)
        if made.get("weights") not in (None, model.towers.weights_sha256):
            raise ModelError(f"{folder}: made with other weights of {facts['model']!r}; embed the corpus again")
        if facts.get("resize") is not None:
            model.towers.resize(facts["resize"])
        return cls(_cast(model, dtype, device), device, dtype, made.get("batch_size", 64), workers=0)

    @property
    def facts(self) -> dict[str, Any]:
        towers = self.model.towers
        return {
            "model": towers.name,
            "weights": towers.weights_sha256,
            "preprocess": str(towers.preprocess),
            "fusion": self.model.fusion,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_size": self.batch_size,
        }

    def run(self, batches: Iterable[Any], advance: Callable[[int], None]) -> Iterator[dict[str, np.ndarray]]:
        """Image and text embeddings, float32, batch by batch."""
        for pixels, tokens in batches:
            whole, n = [filled(part, self.batch_size) for part in (pixels, tokens)], len(pixels)
            yield {IMAGE_EMBED: self.encode_image(whole[0])[:n], TEXT_EMBED: self.encode_text(whole[1])[:n]}
            advance(n)

    def encode_meme(self, picture: Any, caption: str | None) -> dict[str, Float[np.ndarray, "1 d"]]:
        """Image and text embedding of one meme, bit for bit those that `embed` gives it.

        It is repeated to fill a whole batch: BLAS adds in a different order when the number of rows differs.

        Args:
            picture: a PIL image from `open_image`.
        """
        pixels = self.model.preprocess(picture)[None].expand(self.batch_size, -1, -1, -1).contiguous()
        tokens = self.model.tokenize([caption]).expand(self.batch_size, -1).contiguous()
        return {IMAGE_EMBED: self.encode_image(pixels)[:1], TEXT_EMBED: self.encode_text(tokens)[:1]}

    def encode_image(self, pixels: torch.Tensor) -> Float[np.ndarray, "batch d_image"]:
        with self._running(), self._reading(IMAGE_RESID):
            dtype = self.dtype if self.device == "cpu" and self.dtype.is_floating_point else None
            pixels = pixels.to(self.device, dtype=dtype, non_blocking=True)
            return self.model.encode_image(pixels).float().cpu().numpy()

    def encode_text(self, tokens: torch.Tensor) -> Float[np.ndarray, "batch d_text"]:
        with self._running(), self._reading(TEXT_RESID, tokens):
            return self.model.encode_text(tokens.to(self.device, non_blocking=True)).float().cpu().numpy()

    def _reading(self, stem: str, tokens: torch.Tensor | None = None) -> AbstractContextManager[None]:
        if self.model.is_hooked(stem):
            return nullcontext()
        return only_what_is_read(self.model.towers.model, tokens)

    @contextmanager
    def _running(self) -> Iterator[None]:
        half = self.device != "cpu" and self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.partition(":")[0], self.dtype, enabled=half):
            yield


def require_model(embeddings: Embeddings) -> Path:
    """The folder of embeddings that a model made.

    Raises:
        DataError: no model made them, or they are of tokens.
    """
    facts = embeddings.facts
    if embeddings.path is None or not {"dtype", "model_class_name"} & facts.keys():
        raise DataError(
            f"{embeddings.path or 'embeddings'}: made from {facts.get('model', 'arrays')}, so there are no pictures and no model to run; "
            "embed a corpus with a model"
        )
    if "model_class_name" in facts:
        raise DataError(f"{embeddings.path}: rows of single tokens, not of memes; embed without --hook")
    return embeddings.path


def _cast(model: HookedMemeCLIP, dtype: torch.dtype, device: str) -> HookedMemeCLIP:
    """On a CPU the towers in `dtype`: autocast inside inference_mode is ten times slower there.

    Raises:
        ConfigError: int8 elsewhere.
    """
    _ = model.towers.weights_sha256  # cached, so that it is of the weights as they were loaded
    if dtype == torch.int8:
        if device != "cpu":
            raise ConfigError(f"embed.dtype int8 works on a CPU only; on {device} use bfloat16, or add --device cpu")
        products_in_int8(model.towers.model)
    elif device == "cpu":
        model.towers.model.to(dtype)
    return model


def _dtype(dtype: str, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    return getattr(torch, dtype)


def _workers(options: EmbedOptions, device: str) -> int:
    if options.workers is None and options.engine != "local" and device == "cpu":  # one of several on these cores
        return 0
    return min(8, os.cpu_count() or 1) if options.workers is None else options.workers
