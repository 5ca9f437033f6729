"""Steering for real: hooks on a running model, for the few latents that one wants to see with the closed form beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.classifiers import Probe
from sae_lens_meme.evaluators.influence.routes import CosineHead


@torch.no_grad()
def steer_through_model(
    model: Any,
    sae: Any,
    rows: Sequence[int] | np.ndarray,
    latent: int,
    multiplier: float,
    *,
    use_error_term: bool = True,
    batch_size: int = 256,
) -> Float64[np.ndarray, "n_rows n_classes"]:
    """Change of the model's class probabilities for each row when one latent is multiplied.

    Args:
        model: a `HookedMemeCLIP` with a classifier and a source of rows.
        sae: the SAE to attach at its `hook_name`; it is taken off again.
        latent, multiplier: z_f <- multiplier * z_f, 0 for ablation.

    Raises:
        DataError: the SAE has no such latent.
    """
    if not 0 <= latent < sae.cfg.d_sae:
        raise DataError(f"latent {latent} is outside 0..{sae.cfg.d_sae - 1}")

    def scale(acts: Tensor, hook: Any) -> Tensor:
        acts = acts.clone()
        acts[..., latent] *= multiplier
        return acts

    edit = (f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post", scale)
    changes = []
    with model.saes(saes=[sae], use_error_term=use_error_term):
        for start in range(0, len(rows), batch_size):
            tokens = torch.as_tensor(np.asarray(rows[start : start + batch_size])).unsqueeze(1)
            steered = _probabilities(model.run_with_hooks(tokens, return_type="logits", fwd_hooks=[edit]))
            changes.append(steered - _probabilities(model(tokens, return_type="logits")))
    return np.concatenate(changes) if changes else np.empty((0, 0))


def head_of(model: Any) -> CosineHead | Probe:
    """The classifier of a `HookedMemeCLIP`, frozen, for `Influence(heads=[...])`.

    Raises:
        DataError: the model has no classifier.
    """
    if model.heads is not None:
        linear, classifier = model.heads.pre_output[1], model.heads.classifier
        weights = (_array(linear.weight), _array(linear.bias), _array(classifier.weight))
        return CosineHead(str(model.task), tuple(model.classes), *weights, scale=float(classifier.SCALE))
    if model.linear_head is not None:
        weight, bias = _array(model.linear_head.weight), _array(model.linear_head.bias)
        return Probe(str(model.task), tuple(model.classes), weight, bias)
    raise DataError("this model has no classifier; fit one with fit_head, or train MemeCLIP's heads")


def _probabilities(logits: Float[Tensor, "batch 1 n_classes"]) -> Float64[np.ndarray, "batch n_classes"]:
    return rearrange(logits.double().softmax(-1), "b 1 c -> b c").cpu().numpy()


def _array(weight: Tensor) -> Float64[np.ndarray, "..."]:
    return weight.detach().double().cpu().numpy()
