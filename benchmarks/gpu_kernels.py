"""A sparse decoder in Triton, beside the `embedding_bag` that the package uses: does a kernel of one's own pay on a GPU?"""

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_COLUMNS: Any = 256


def triton_decode(values: Tensor, indices: Tensor, W_dec: Tensor) -> Tensor:
    """The sum of k rows of `W_dec` weighted by `values`; gradients for `values` and `W_dec`."""
    return _Decode.apply(values, indices, W_dec)  # type: ignore[return-value]


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, W_dec)
        starts = torch.arange(len(values) + 1, device=values.device) * values.shape[1]
        return _weighted_rows(starts, indices.flatten(), values.flatten(), W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        values, indices, W_dec = ctx.saved_tensors
        grad, latents = grads[0].contiguous(), indices.flatten()
        slopes = torch.empty_like(values)
        _dots[(latents.numel(),)](grad, W_dec, latents, slopes, values.shape[1], W_dec.shape[1], BLOCK=_COLUMNS)
        order = latents.argsort(stable=True)  # latent by latent: no atomic sums, so the same bytes again
        starts = torch.zeros(len(W_dec) + 1, dtype=torch.int64, device=values.device)
        starts[1:] = torch.bincount(latents, minlength=len(W_dec)).cumsum(0)
        rows = order // values.shape[1]
        return slopes, None, _weighted_rows(starts, rows, values.flatten()[order], grad)


def _weighted_rows(starts: Tensor, rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """out[i] = the sum of weights[p] table[rows[p]] for p from starts[i] to starts[i + 1]."""
    n, width = len(starts) - 1, table.shape[1]
    out = table.new_empty(n, width)
    _sums[(n, triton.cdiv(width, _COLUMNS))](starts, rows, weights, table, out, width, BLOCK=_COLUMNS)
    return out


@triton.jit
def _sums(starts, rows, weights, table, out, width, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    total = tl.zeros((BLOCK,), tl.float32)
    for p in range(tl.load(starts + i), tl.load(starts + i + 1)):
        row = tl.load(rows + p)
        total += tl.load(weights + p) * tl.load(table + row * width + columns, mask=inside, other=0.0)
    tl.store(out + i * width + columns, total, mask=inside)


@triton.jit
def _dots(grad, table, latents, out, k, width, BLOCK: tl.constexpr):
    p = tl.program_id(0).to(tl.int64)
    latent = tl.load(latents + p)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        a = tl.load(grad + (p // k) * width + columns, mask=columns < width, other=0.0)
        total += a * tl.load(table + latent * width + columns, mask=columns < width, other=0.0)
    tl.store(out + p, tl.sum(total))
