"""The encoder of a TopK SAE whose backward pass touches only the k chosen columns of `W_enc`.

For what `cpu.topk_step` is not compiled for: a GPU, another precision, normalised activations. The decoder
needs no kernel of ours: `torch.nn.functional.embedding_bag` is the product of k-sparse latents with `W_dec`,
forward and backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def topk_encode(
    sae_in: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, "d_sae"],
    k: int,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"], Float[Tensor, "batch d_sae"]]:
    """ReLU(TopK_k(sae_in @ W_enc + b_enc)) as values, their latents, and all (detached) pre-activations."""
    values, indices, hidden_pre = _TopKEncode.apply(sae_in, W_enc, b_enc, k)  # type: ignore[misc]
    return values, indices, hidden_pre


def sparse_decode(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], W_dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "batch d_in"]:
    """The sum of k rows of `W_dec` weighted by `values`, without a dense [batch, d_sae] array."""
    return F.embedding_bag(indices, W_dec, per_sample_weights=values.to(W_dec.dtype), mode="sum")


class _TopKEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sae_in: Tensor, W_enc: Tensor, b_enc: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        hidden_pre = torch.addmm(b_enc, sae_in, W_enc)
        values, indices = hidden_pre.topk(k, dim=-1, sorted=False)
        values = values.relu()
        ctx.save_for_backward(sae_in, W_enc, values, indices)
        ctx.mark_non_differentiable(indices, hidden_pre)
        return values, indices, hidden_pre

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        sae_in, W_enc, values, indices = ctx.saved_tensors
        grad = (grads[0] * (values > 0)).to(W_enc.dtype)
        grad_W, grad_b = _sum_by_latent(sae_in.to(W_enc.dtype), grad, indices, W_enc.shape[1])
        # only an SAE that subtracts b_dec from its input needs this one
        grad_in = sparse_decode(grad, indices, W_enc.T.contiguous()) if ctx.needs_input_grad[0] else None
        return grad_in, grad_W.T, grad_b, None


def _sum_by_latent(
    vectors: Float[Tensor, "batch d_in"],
    weights: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    d_sae: int,
) -> tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_sae"]]:
    """For each latent the weighted sum of the vectors that it fired on, and of the weights."""
    latents = indices.flatten()
    order = latents.argsort(stable=True)
    ends = torch.bincount(latents, minlength=d_sae).cumsum(0)
    offsets = F.pad(ends[:-1], (1, 0))
    weights = weights.flatten()[order]
    rows = order // indices.shape[1]
    sums = F.embedding_bag(rows, vectors, offsets=offsets, per_sample_weights=weights, mode="sum")
    ones = vectors.new_ones(1, 1)  # the same reduction, so that it is as deterministic
    totals = F.embedding_bag(torch.zeros_like(rows), ones, offsets=offsets, per_sample_weights=weights, mode="sum")
    return sums, totals.squeeze(1)
