"""A model's answers to pictures, and what the latents of an SAE do on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.names import DECODER_CROSS, DECODER_RESID
from sae_lens_meme.hooks.positions import PAD, tagged
from sae_lens_meme.hooks.processors import prompt_of
from sae_lens_meme.steer.latents import ALL, Where

Progress = Callable[[int], object]
CAPTION = 20
"""New tokens of a caption on which latents are read."""
_WRITTEN = (DECODER_RESID, DECODER_CROSS)


@dataclass(frozen=True)
class Asker:
    """Shows pictures to a model with one prompt; a captioner gets none."""

    model: HookedVLM
    pictures: Sequence[Any]
    prompt: str
    max_new_tokens: int = 5
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.model.processor is None or self.model.processor.tokenizer is None:
            raise ModelError(f"{self.model.model_name}: has no processor and tokenizer, so it cannot be asked")

    def answers(self, advance: Progress = int) -> list[str]:
        """What it writes, greedily, as the model is at this moment."""
        found: list[str] = []
        for inputs in self.batches():
            found += (written := self.written(inputs))
            advance(len(written))
        return found

    def written(self, inputs: dict[str, Any]) -> list[str]:
        """The answers to one batch."""
        ids = self.model.generate(inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1)
        start = inputs["input_ids"].shape[1] if "input_ids" in inputs else 1
        return self.model.processor.tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)

    def batches(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.pictures), self.batch_size):
            yield self.inputs(self.pictures[start : start + self.batch_size])

    def inputs(self, pictures: Sequence[Any]) -> dict[str, Any]:
        """What the model takes of these pictures and the prompt, padded on the left."""
        processor, captioner = self.model.processor, self.model.vocabulary.image is None
        if captioner:
            return dict(processor.image_processor(images=list(pictures), return_tensors="pt"))
        texts = [prompt_of(self.model, self.prompt)] * len(pictures)
        return dict(processor.both(images=list(pictures), text=texts, padding=True, return_tensors="pt"))


@dataclass(frozen=True)
class LatentFiring:
    """What the latents do on pictures that are not asked about."""

    rates: Float[np.ndarray, " d_sae"]
    """Share of the positions at which each fires."""
    largest: Float[np.ndarray, " d_sae"]
    top: Int[np.ndarray, "top d_sae"]
    """The pictures with the largest activations of each."""


@torch.no_grad()
def firing(asker: Asker, sae: Any, where: Where = ALL, top: int = 16) -> LatentFiring:
    """One pass over the pictures, and no answer; the positions are those of the prompt that would be changed."""
    model, hook = asker.model, str(sae.cfg.metadata.hook_name)
    fired, n, row = torch.zeros(sae.cfg.d_sae), 0, 0
    best, which = torch.empty(0, sae.cfg.d_sae), torch.empty(0, sae.cfg.d_sae, dtype=torch.long)
    for inputs in asker.batches():
        x, kept = _seen(model, hook, inputs, where)
        n_pictures = len(next(iter(inputs.values())))
        if len(x) != n_pictures:
            raise ModelError(
                f"{hook}: gives {tuple(x.shape[:-1])} positions for {n_pictures} pictures, so that no picture owns them; "
                "take a block of the decoder"
            )
        for one, mask in zip(x, kept, strict=True):  # a picture at a time: its latents are positions x d_sae
            acts = sae.encode(one[mask].to(sae.device)).float().cpu()
            fired, n = fired + (acts > 0).sum(0), n + len(acts)
            largest = acts.amax(0, keepdim=True) if len(acts) else torch.zeros(1, sae.cfg.d_sae)
            best, places = torch.cat([best, largest]).topk(min(top, len(best) + 1), dim=0)
            which = torch.cat([which, torch.full_like(largest, row, dtype=torch.long)]).gather(0, places)
            row += 1
    which[best <= 0] = -1
    return LatentFiring((fired / max(n, 1)).numpy(), best[0].numpy(), which.numpy())


def _seen(model: HookedVLM, hook: str, inputs: dict[str, Any], where: Where) -> tuple[Tensor, Tensor]:
    """Activations, and the positions that count: a chat model's of the prompt; a captioner's decoder writes them first."""
    found: list[tuple[Tensor, Tensor]] = []
    prompted = "input_ids" in inputs or not hook.startswith(_WRITTEN)
    kinds = [] if isinstance(where, Tensor) or where == ALL else list(where)
    kinds = [kind for kind in kinds if not (prompted and kind == "generated")]

    def note(x: Tensor, hook: Any) -> None:
        tags = model.tags_now(hook.name, x)
        found.append((x, tagged(tags, kinds) if kinds else tags != PAD))

    with model.hooks(fwd_hooks=[(hook, note)]):
        if "input_ids" in inputs:
            model.run_with_cache(inputs, names_filter=[hook], stop_at_layer=0, return_type=None)
        else:
            model.generate(inputs, max_new_tokens=1 if prompted else CAPTION, do_sample=False, num_beams=1)
    if prompted:
        return found[0]
    x, kept = zip(*found, strict=True)
    return torch.cat(x, dim=1), torch.cat(kept, dim=1)


def first_word(answer: str) -> str | None:
    """The first word in lower case; None where there is none."""
    found = re.search(r"\w[\w'-]*", answer)
    return found[0].casefold() if found else None
