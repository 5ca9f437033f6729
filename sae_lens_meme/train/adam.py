"""Adam on a CPU or a GPU in one pass over memory; the matrices of a `meme_topk` SAE on a CPU in a loop of ours."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from torch.optim import Optimizer

from sae_lens_meme.jit import njit
from sae_lens_meme.train.gradient import plain
from sae_lens_meme.train.sae import MemeTopKTrainingSAE
from sae_lens_meme.train.threads import even_parts, in_parts

_MOMENTS = ("exp_avg", "exp_avg_sq")


def use_fused_adam(trainer: SAETrainer[Any, Any]) -> None:
    """Have `trainer` take the steps that it would have taken, several times faster.

    torch's fused Adam is one pass over memory. Of a `meme_topk` SAE on a CPU the matrices are updated beforehand, to the
    same bits: `W_enc` then lies in memory as `W_dec` does, latent after latent, since the gradients are made so,
    and torch would copy it.
    """
    sae, optimizer = trainer.sae, trainer.optimizer
    if sae.device.type not in ("cpu", "cuda"):
        return
    for group in optimizer.param_groups:
        group["fused"] = True
    if isinstance(sae, MemeTopKTrainingSAE) and sae.device.type == "cpu" and sae.dtype == torch.float32:
        sae.W_enc.data = sae.W_enc.data.T.contiguous().T
        optimizer.register_step_pre_hook(partial(_update_matrices, (sae.W_enc, sae.W_dec)))
        optimizer.register_state_dict_post_hook(_row_after_row)


@torch.no_grad()
def _update_matrices(matrices: tuple[Tensor, Tensor], optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Before torch's own step, which then finds no gradient of theirs."""
    gradients = {W: plain(W.grad) for W in matrices if W.grad is not None}
    if not gradients:
        return
    group, states = optimizer.param_groups[0], [_next_state(W, optimizer.state[W]) for W in gradients]
    (beta1, beta2), step = group["betas"], states[0]["step"].item()
    W_enc, W_dec = matrices
    arrays = tuple(
        tuple(
            (tensor.T if W is W_enc else tensor).detach().numpy()  # a matrix with one row or column lies both ways
            for tensor in (W, _laid_out_as(W, gradient), *(state[name] for name in _MOMENTS))
        )
        for (W, gradient), state in zip(gradients.items(), states, strict=True)
    )
    step_size, root = group["lr"] / (1 - beta1**step), (1 - beta2**step) ** 0.5
    numbers = np.array([1 - beta1, beta2, 1 - beta2, -step_size, root, group["eps"]], np.float32)
    in_parts(_adam, even_parts(len(W_dec)), arrays, *numbers)
    for W in gradients:
        W.grad = None


def _next_state(W: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Begun as torch begins it; the moments of a checkpoint lie row after row."""
    if not state:
        state |= {"step": torch.zeros(()), **{name: torch.zeros_like(W) for name in _MOMENTS}}
    state |= {"step": state["step"] + 1, **{name: _laid_out_as(W, state[name]) for name in _MOMENTS}}
    return state


def _row_after_row(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """As checkpoints are of old: torch's fused Adam does not look how moments and weights are laid out."""
    states = {i: {name: t.contiguous() for name, t in state.items()} for i, state in state_dict["state"].items()}
    return state_dict | {"state": states}


def _laid_out_as(W: Tensor, tensor: Tensor) -> Tensor:
    return tensor if tensor.stride() == W.stride() else torch.empty_like(W).copy_(tensor)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _adam(start, stop, matrices, new_in_mean, kept_of_square, new_in_square, step, root, eps):
    """torch's formulas in torch's order; with a check for division by zero it would not be vectorised."""
    for W, gradient, mean, square in matrices:
        for row in range(start, stop):
            w, g, m, v = W[row], gradient[row], mean[row], square[row]
            for i in range(len(w)):
                m[i] += new_in_mean * (g[i] - m[i])
                v[i] = new_in_square * g[i] * g[i] + v[i] * kept_of_square
                w[i] += step * m[i] / (np.sqrt(v[i]) / root + eps)
