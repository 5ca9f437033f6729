"""The matrix products of a model's towers in 8-bit integers, for extraction on a CPU.

Weights have one scale an output channel, activations one scale a token, found when they pass (Dettmers et al. 2022,
LLM.int8, without its outlier columns). The products are summed exactly, in 32-bit integers, and a token's scale depends on
no other token: what is computed of a meme does not depend on the memes beside it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int8
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from sae_lens_meme.jit import njit

LARGEST = 127
SMALLEST_PRODUCT = 17
"""torch multiplies integers for more rows than 16 only."""


def products_in_int8(model: nn.Module) -> None:
    """Replace the linear layers of the model, and of the attention in its blocks, in place; for inference only."""
    for module in list(model.modules()):
        if isinstance(module, ResidualAttentionBlock) and isinstance(module.attn, nn.MultiheadAttention):
            module.attn = _Attention(module.attn)  # type: ignore[assignment]
        if isinstance(module, nn.MultiheadAttention):
            continue  # one that is no block's reads its weights itself
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child.weight, child.bias))


class Int8Linear(nn.Module):
    """x @ weight.T + bias; float32 in, float32 out."""

    int8_original_dtype = torch.float32
    """What open_clip asks a layer without `weight` for."""
    codes: Int8[Tensor, "d_out d_in"]
    scale: Float[Tensor, " d_out"]
    offset: Float[Tensor, " d_out"]

    def __init__(self, weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None):
        super().__init__()
        weight = weight.detach().float()
        scale = (weight.abs().amax(dim=1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        offset = torch.zeros(len(weight)) if bias is None else bias.detach().float().clone()
        self.register_buffer("codes", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, x: Float[Tensor, "*shape d_in"]) -> Float[Tensor, "*shape d_out"]:
        rows = x.reshape(-1, x.shape[-1]).float().contiguous()
        n = len(rows)
        codes = torch.zeros(max(n, SMALLEST_PRODUCT), rows.shape[1], dtype=torch.int8)
        scale = torch.empty(n)
        _quantize(rows.numpy(), codes.numpy(), scale.numpy())
        sums = torch._int_mm(codes, self.codes.T)
        made = torch.empty(n, sums.shape[1])
        _restore(sums.numpy(), scale.numpy(), self.scale.numpy(), self.offset.numpy(), made.numpy())
        return made.view(*x.shape[:-1], -1)


class _Attention(nn.Module):
    """Self-attention of a block of open_clip, with the signature of `nn.MultiheadAttention`."""

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.heads, self.batch_first = attention.num_heads, attention.batch_first
        self.inward = Int8Linear(attention.in_proj_weight, attention.in_proj_bias)
        self.outward = Int8Linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, x: Tensor, *_: Tensor, attn_mask: Tensor | None = None, **__: object) -> tuple[Tensor, None]:
        x = x if self.batch_first else x.transpose(0, 1)
        batch, tokens, d = x.shape
        parts = self.inward(x).view(batch, tokens, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts, attn_mask=attn_mask)
        out = self.outward(mixed.transpose(1, 2).reshape(batch, tokens, d))
        return out if self.batch_first else out.transpose(0, 1), None


@njit()
def _quantize(x: np.ndarray, codes: np.ndarray, scale: np.ndarray) -> None:
    """`codes[i] = round(x[i] / scale[i])` with the scale at which the largest value of the row is 127."""
    for i in range(x.shape[0]):
        largest = np.float32(0)
        for j in range(x.shape[1]):
            largest = max(largest, abs(x[i, j]))
        scale[i] = largest / np.float32(LARGEST)
        inverse = np.float32(LARGEST) / largest if largest > 0 else np.float32(0)
        for j in range(x.shape[1]):
            codes[i, j] = np.int8(np.rint(x[i, j] * inverse))


@njit()
def _restore(sums: np.ndarray, scale: np.ndarray, channel: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]
