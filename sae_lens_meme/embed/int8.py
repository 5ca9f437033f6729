"""The matrix products of a model's towers in 8-bit integers, for extraction on a CPU.

Weights have one scale an output channel, activations one scale a token, found when they pass (Dettmers et al. 2022,
LLM.int8, without its outlier columns). The products are summed exactly, in 32-bit integers, and a token's scale depends on
no other token: what is computed of a meme does not depend on the memes beside it, nor on how many threads share them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Int, Int8
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn

from sae_lens_meme.jit import njit

LARGEST = 127
SMALLEST_PRODUCT = 17
"""torch multiplies integers for more rows than 16 only."""
_TOKENS = 1024  # that go through a block together: what is made of them stays in the cache
_STEP = 16  # captions are cut at multiples of it, so that there are few lengths


def products_in_int8(model: nn.Module) -> None:
    """Replace the linear layers of the model, and of the attention in its blocks, in place; for inference only.

    The memes of a batch are shared among torch's threads, block by block.
    """
    for module in list(model.modules()):
        if isinstance(module, Transformer):
            module.resblocks = nn.ModuleList([_Shared(block, module.batch_first) for block in module.resblocks])
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
        _quantize(rows.numpy(), rows.view(torch.int32).numpy(), codes.numpy(), scale.numpy())
        sums = torch._int_mm(codes, self.codes.T)
        made = sums.view(torch.float32)
        _restore(sums.numpy(), scale.numpy(), self.scale.numpy(), self.offset.numpy(), made.numpy())
        return made[:n].view(*x.shape[:-1], -1)


@contextmanager
def cut_captions(clip: Any, tokens: Int[Tensor, "batch n_ctx"]) -> Iterator[None]:
    """Compute nothing behind the end token, where attention is causal and the end token is what is read.

    A caption is cut at its own length, not at the longest of the batch: it depends on no other caption.
    """
    causal = isinstance(clip, open_clip.CLIP) and clip.attn_mask is not None and clip.text_pool_type == "argmax"
    blocks = [block for block in clip.transformer.resblocks if isinstance(block, _Shared)] if causal else []
    ends = (tokens.argmax(dim=-1) // _STEP + 1) * _STEP  # the end token is the largest number
    for block in blocks:
        block.lengths = ends.clamp(max=tokens.shape[1])
    try:
        yield
    finally:
        for block in blocks:
            block.lengths = None


class _Shared(nn.Module):
    """A block of a tower, whose batch is shared among threads that run alone: torch's own share one operation at a time."""

    lengths: Int[Tensor, " batch"] | None = None
    """How many tokens of each row are computed; None: all."""

    def __init__(self, block: nn.Module, batch_first: bool):
        super().__init__()
        self.block, self._batch_first = block, batch_first

    def get_weight_dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if not self._batch_first or (attn_mask is not None and attn_mask.ndim > 2):  # a mask for each row
            return self.block(x, attn_mask=attn_mask)
        made = x.clone()

        @torch.inference_mode()
        def run(rows: Int[Tensor, " n"], length: int) -> None:
            mask = None if attn_mask is None else attn_mask[:length, :length]
            made[rows, :length] = self.block(x[rows, :length], attn_mask=mask)

        threads = torch.get_num_threads()
        each = _pool(os.getpid(), threads).map if threads > 1 else map
        list(each(run, *zip(*self._parts(x.shape[1], len(x), threads), strict=True)))
        return made

    def _parts(self, n_tokens: int, batch: int, threads: int) -> Iterator[tuple[Int[Tensor, " n"], int]]:
        """Rows of one length, the longest first; as many to each thread."""
        lengths = torch.full((batch,), n_tokens) if self.lengths is None else self.lengths
        for length in sorted(set(lengths.tolist()), reverse=True):
            rows = (lengths == length).nonzero().squeeze(1)
            rounds = -(-len(rows) * length // (threads * _TOKENS))
            yield from ((part, length) for part in rows.split(-(-len(rows) // (threads * rounds))))


@cache
def _pool(pid: int, n: int) -> ThreadPoolExecutor:
    """Threads of this process in each of which torch has one thread; a fork has none of them."""
    ready = Barrier(n + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(n, initializer=begin)
    for _ in range(n):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(n)  # it is also what threads get that are begun later
    return pool


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


@njit(nogil=True)
def _quantize(x: np.ndarray, bits: np.ndarray, codes: np.ndarray, scale: np.ndarray) -> None:
    """`codes[i] = round(x[i] / scale[i])` with the scale at which the largest value of the row is 127.

    Positive floats are in the order of their bits, `bits`, whose largest is found many at a time.
    """
    for i in range(x.shape[0]):
        most = np.int32(0)
        for j in range(x.shape[1]):
            most = max(most, bits[i, j] & np.int32(0x7FFFFFFF))
        largest = np.float32(0)
        for j in range(x.shape[1]):
            if bits[i, j] & np.int32(0x7FFFFFFF) == most:
                largest = abs(x[i, j])
                break
        scale[i] = largest / np.float32(LARGEST)
        inverse = np.float32(LARGEST) / largest if largest > 0 else np.float32(0)
        for j in range(x.shape[1]):
            codes[i, j] = np.int8(np.rint(x[i, j] * inverse))


@njit(nogil=True)
def _restore(sums: np.ndarray, scale: np.ndarray, channel: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """`out[i] = sums[i] * scale[i] * channel + offset`; they are the same memory, so that no page is new."""
    made = np.empty(sums.shape[1], np.float32)
    for i in range(len(scale)):
        for j in range(len(made)):
            made[j] = np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]
        out[i] = made
