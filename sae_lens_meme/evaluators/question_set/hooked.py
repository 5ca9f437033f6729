"""The functions that the question set needs, made from a hooked model and an SAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import decoder_rows, eval_mode
from sae_lens_meme.evaluators.question_set.answers import AnswersOf
from sae_lens_meme.evaluators.question_set.grid import LatentsOf
from sae_lens_meme.hooks import HookedModel

InputsOf = Callable[[Sequence[Any], str], Any]
"""A batch of pictures and a prompt to what the model takes; padded on the left."""
Answer = Callable[[Any], Sequence[str]]
"""What `inputs_of` gave to the model's answers, one per picture."""


def hooked_activations(
    model: Any, hook: str, inputs_of: InputsOf, *, position: int = -1
) -> Callable[[Sequence[Any], str], Tensor]:
    """Activations [pictures, d] at one position of each row, by default the last of the prompt; arguments as for `hooked_latents`."""
    ends_there = {"stop_at_layer": 0} if isinstance(model, HookedModel) else {}

    @torch.no_grad()
    def activations_of(pictures: Sequence[Any], prompt: str) -> Tensor:
        _, cache = model.run_with_cache(inputs_of(pictures, prompt), names_filter=[hook], **ends_there)
        x: Tensor = cache[hook]
        if x.ndim != 3 or len(x) != len(pictures):
            raise DataError(
                f"question set: {hook} gives {tuple(x.shape)} for {len(pictures)} pictures, not (pictures, positions, d); "
                "read a hook of the decoder"
            )
        return x[:, position].float().cpu()

    return activations_of


def hooked_latents(model: Any, sae: Any, inputs_of: InputsOf, *, position: int = -1) -> LatentsOf:
    """Latents of an SAE at one position of each row, by default the last of the prompt.

    Args:
        model: hooked as TransformerLens hooks (`HookedVLM`, `HookedSAETransformer`, any `HookedRootModule`).
        sae: its metadata name the hook, whose activations are (batch, positions, d).
        inputs_of: pictures and a prompt to the model's input; rows of different length must be padded on the left.

    Raises:
        DataError: when called: the hook does not give one row per picture.
    """
    read = hooked_activations(model, str(sae.cfg.metadata.hook_name), inputs_of, position=position)

    @torch.no_grad()
    def latents_of(pictures: Sequence[Any], prompt: str) -> Any:
        with eval_mode(sae):
            return sae.encode(read(pictures, prompt).to(sae.device, sae.dtype)).float().cpu().numpy()

    return latents_of


def hooked_answers(model: Any, sae: Any, inputs_of: InputsOf, answer: Answer, *, batch_size: int = 16) -> AnswersOf:
    """Answers with a latent of the SAE ablated at every position, the SAE's error kept.

    Args:
        answer: inputs to answers, with the model as it is at that moment, such as greedy `generate` and a tokenizer.
        batch_size: pictures in one of its inputs.
    """
    hook = str(sae.cfg.metadata.hook_name)
    rows = torch.from_numpy(decoder_rows(sae)).float()

    def without(latent: int) -> Callable[..., Tensor]:
        def change(x: Tensor, hook: Any) -> Tensor:
            acts = sae.encode(x.to(sae.device, sae.dtype))[..., latent, None].to(x.device).float()
            return (x.float() - acts * rows[latent].to(x.device)).to(x.dtype)

        return change

    @torch.no_grad()
    def answers_of(pictures: Sequence[Any], prompt: str, ablated: int | None) -> list[str]:
        changed = nullcontext() if ablated is None else model.hooks(fwd_hooks=[(hook, without(ablated))])
        with eval_mode(sae), changed:
            parts = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
            return [said for part in parts for said in answer(inputs_of(part, prompt))]

    return answers_of
