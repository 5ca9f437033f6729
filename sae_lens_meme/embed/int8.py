"""The matrix products of a model's towers in 8-bit integers, for extraction on a CPU.

Weights have one scale an output channel, activations one scale a token, found when they pass (Dettmers et al. 2022,
LLM.int8, without its outlier columns). The products are summed exactly, in 32-bit integers, and a token's scale depends on
no other token: what is computed of a meme does not depend on the memes beside it, nor on how many threads share them.
Attention is in bfloat16 where the CPU multiplies that, else in float32.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier
from typing import Any

import open_clip
import torch
from jaxtyping import BFloat16, Float, Int, Int8
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn

from sae_lens_meme.embed import int8_kernels as kernels

SMALLEST_PRODUCT = 17
"""torch multiplies integers for more rows than 16 only."""
_TOKENS = 1024  # that go through a block together: what is made of them stays in the cache
_STEP = 16  # captions are cut at multiples of it, so that there are few lengths


def products_in_int8(model: nn.Module) -> None:
    """Replace the blocks of the towers, and linear layers elsewhere, in place; for inference only.

    The memes of a batch are shared among torch's threads, block by block.
    """
    for module in list(model.modules()):
        if isinstance(module, Transformer) and module.batch_first:
            made = [_Block(block) if _is_plain(block) else block for block in module.resblocks]
            module.resblocks = nn.ModuleList([_Shared(block) for block in made])
    for module in list(model.modules()):
        if isinstance(module, nn.MultiheadAttention):
            continue  # one that is no such block's reads its weights itself
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child.weight, child.bias))


class Codes:
    """Rows of numbers as 8-bit integers, with the scale of each row; a product needs more than 16, so others follow."""

    def __init__(self, n: int, d: int):
        self.codes, self.scale = torch.empty(max(n, SMALLEST_PRODUCT), d, dtype=torch.int8), torch.empty(n)
        self.codes[n:] = 0

    @classmethod
    def of(cls, x: Float[Tensor, "n d"], norm: nn.LayerNorm | None = None) -> Codes:
        """Of `x`, or of its layer norm."""
        made = cls(*x.shape)
        to = (made.codes.numpy(), made.scale.numpy())
        if norm is None:
            kernels.quantize(x.numpy(), *to)
        else:
            kernels.normalize(x.numpy(), norm.weight.numpy(), norm.bias.numpy(), norm.eps, *to)
        return made


class Int8Linear(nn.Module):
    """x @ weight.T + bias; float32 in, float32 out."""

    int8_original_dtype = torch.float32
    """What open_clip asks a layer without `weight` for."""
    codes: Int8[Tensor, "d_in d_out"]
    scale: Float[Tensor, " d_out"]
    offset: Float[Tensor, " d_out"]

    def __init__(
        self,
        weight: Float[Tensor, "d_out d_in"],
        bias: Float[Tensor, " d_out"] | None,
        factor: Float[Tensor, " d_out"] | None = None,
    ):
        """Each output channel times its `factor`."""
        super().__init__()
        weight = weight.detach().float()
        scale = (weight.abs().amax(dim=1) / kernels.LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        offset = torch.zeros(len(weight)) if bias is None else bias.detach().float().clone()
        self.register_buffer("codes", (weight / scale[:, None]).round().to(torch.int8).T.contiguous())
        self.register_buffer("scale", scale if factor is None else scale * factor)
        self.register_buffer("offset", offset if factor is None else offset * factor)

    def forward(self, x: Float[Tensor, "*shape d_in"]) -> Float[Tensor, "*shape d_out"]:
        rows = x.reshape(-1, x.shape[-1]).float().contiguous()
        return self.restored(Codes.of(rows)).view(*x.shape[:-1], -1)

    def restored(self, x: Codes) -> Float[Tensor, "n d_out"]:
        sums = torch._int_mm(x.codes, self.codes)
        made = sums.view(torch.float32)
        kernels.restore(sums.numpy(), *self._scales(x), made.numpy())
        return made[: len(x.scale)]

    def split(self, x: Codes, parts: int, batch: int, heads: int) -> BFloat16[Tensor, "parts batch heads n d_head"]:
        n, d = len(x.scale) // batch, len(self.scale) // (parts * heads)
        made = torch.empty(parts, batch, heads, n, d, dtype=torch.bfloat16)
        kernels.split(torch._int_mm(x.codes, self.codes).numpy(), *self._scales(x), made.view(torch.int16).numpy())
        return made

    def added(self, x: Codes, to: Float[Tensor, "n d_out"]) -> None:
        kernels.add(torch._int_mm(x.codes, self.codes).numpy(), *self._scales(x), to.numpy())

    def activated(self, x: Codes, quick: bool) -> Codes:
        """Codes of the GELU of what comes out, or of the QuickGELU."""
        made = Codes(len(x.scale), len(self.scale))
        sums = torch._int_mm(x.codes, self.codes)
        kernels.activate(sums.numpy(), *self._scales(x), quick, made.codes.numpy(), made.scale.numpy())
        return made

    def _scales(self, x: Codes) -> tuple[Any, Any, Any]:
        return x.scale.numpy(), self.scale.numpy(), self.offset.numpy()


@contextmanager
def only_what_is_read(clip: Any, tokens: Int[Tensor, "batch n_ctx"] | None = None) -> Iterator[None]:
    """Compute nothing that the embedding does not depend on: of pictures, or of captions where there are `tokens`.

    The last block makes the one token that is read; where attention is causal, nothing is computed behind it. A caption
    is cut at its own length, not at the longest of the batch: it depends on no other caption.
    """
    blocks = _shared(clip.visual if tokens is None else clip)
    if tokens is None and blocks and _reads_the_first(clip.visual):
        blocks[-1].read = 0
    if tokens is not None and isinstance(clip, open_clip.CLIP) and clip.text_pool_type == "argmax":
        ends = tokens.argmax(dim=-1)  # the end token is the largest number
        if blocks:
            blocks[-1].read = ends
        for block in blocks if clip.attn_mask is not None else []:
            block.lengths = ((ends // _STEP + 1) * _STEP).clamp(max=tokens.shape[1])
    try:
        yield
    finally:
        for block in blocks:
            block.lengths = block.read = None


def _shared(tower: Any) -> list[_Shared]:
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", [])
    return [block for block in blocks if isinstance(block, _Shared)]


def _reads_the_first(tower: Any) -> bool:
    """Whether the class token of its last block is all that is read."""
    return isinstance(tower, VisionTransformer) and tower.attn_pool is None and tower.pool_type == "tok"


Rows = Int[Tensor, " n"] | slice
"""Of a batch; a slice is no copy."""


class _Shared(nn.Module):
    """A block of a tower, whose batch is shared among threads that run alone: torch's own share one operation at a time."""

    lengths: Int[Tensor, " batch"] | None = None
    """How many tokens of each row are computed; None: all."""
    read: Int[Tensor, " batch"] | int | None = None
    """The one token of each row that is computed; None: all."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def get_weight_dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if attn_mask is not None and attn_mask.ndim > 2:  # a mask for each row
            return self.block(x, attn_mask=attn_mask)
        made, read = x.clone(), None
        if self.read is not None and isinstance(self.block, _Block):
            read = torch.as_tensor(self.read).expand(len(x))

        @torch.inference_mode()
        def run(rows: Rows, length: int) -> None:
            part, mask = x[rows, :length], None if attn_mask is None else attn_mask[:length, :length]
            if read is None:
                made[rows, :length] = self.block(part, attn_mask=mask)
            else:
                made[torch.arange(len(x))[rows], read[rows]] = self.block(part, attn_mask=mask, read=read[rows])

        threads = torch.get_num_threads()
        each = _pool(os.getpid(), threads).map if threads > 1 else map
        list(each(run, *zip(*self._parts(x.shape[1], len(x), threads), strict=True)))
        return made

    def _parts(self, n_tokens: int, batch: int, threads: int) -> Iterator[tuple[Rows, int]]:
        """Rows of one length, the longest first; as many to each thread."""
        lengths = torch.full((batch,), n_tokens) if self.lengths is None else self.lengths
        for length in sorted(set(lengths.tolist()), reverse=True):
            rows = (lengths == length).nonzero().squeeze(1)
            rounds = -(-len(rows) * length // (threads * _TOKENS))
            for part in rows.split(-(-len(rows) // (threads * rounds))):
                yield part if self.lengths is not None else slice(int(part[0]), int(part[-1]) + 1), length


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


def _is_plain(block: nn.Module) -> bool:
    """Whether a `_Block` computes what this one does."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    act, norms = block.mlp.gelu, (block.ln_1, block.ln_2)
    known = isinstance(act, QuickGELU) or (isinstance(act, nn.GELU) and act.approximate == "none")
    return known and all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for norm in norms)


class _Block(nn.Module):
    """A `ResidualAttentionBlock` in which numbers stay codes from one product to the next where they can."""

    def __init__(self, block: Any):
        super().__init__()
        attention, mlp = block.attn, block.mlp  # of a `ResidualAttentionBlock`
        self.heads, self.quick = attention.num_heads, isinstance(mlp.gelu, QuickGELU)
        self.before: nn.LayerNorm = block.ln_1
        self.between: nn.LayerNorm = block.ln_2
        of_queries = torch.ones(3, attention.embed_dim)
        of_queries[0] = attention.head_dim**-0.5 / math.log(2)
        self.inward = Int8Linear(attention.in_proj_weight, attention.in_proj_bias, of_queries.flatten())
        self.outward = Int8Linear(attention.out_proj.weight, attention.out_proj.bias, _factor(block.ls_1))
        self.widen = Int8Linear(mlp.c_fc.weight, mlp.c_fc.bias)
        self.narrow = Int8Linear(mlp.c_proj.weight, mlp.c_proj.bias, _factor(block.ls_2))

    def forward(
        self, x: Float[Tensor, "batch n d"], attn_mask: Tensor | None = None, read: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch n d"] | Float[Tensor, "batch d"]:
        """With `read`, that token of each row alone."""
        batch, n, d = x.shape
        rows = x.reshape(-1, d)
        of_attention = Codes.of(rows, self.before)
        if BFLOAT16_ATTENTION:
            q, k, v = self.inward.split(of_attention, 3, batch, self.heads)
        else:
            q, k, v = self.inward.restored(of_attention).view(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = _attention(q, k, v, attn_mask, read)
        made = rows.clone() if read is None else x[torch.arange(batch), read]
        self.outward.added(Codes.of(mixed), made)
        self.narrow.added(self.widen.activated(Codes.of(made, self.between), self.quick), made)
        return made if read is not None else made.view(batch, n, d)


def _factor(layer_scale: Any) -> Tensor | None:
    return None if isinstance(layer_scale, nn.Identity) else layer_scale.gamma.detach().float()


BFLOAT16_ATTENTION = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
"""Whether this CPU multiplies bfloat16 faster than float32."""


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, read: Int[Tensor, " batch"] | None
) -> Float[Tensor, "tokens d"]:
    """Softmax to the base 2."""
    if read is not None:
        q = q[torch.arange(len(q)), :, read][:, :, None]
        mask = None if mask is None else mask[read][:, None, None]
    elif mask is not None and mask.ndim > 2:  # a mask for each head of each row
        mask = mask.view(*q.shape[:3], -1)
    if BFLOAT16_ATTENTION and read is None:
        scores = q @ k.mT
        if mask is not None:
            scores += mask / math.log(2)
        kernels.softmax(scores.view(torch.int16).view(-1, scores.shape[-1]).numpy())
        mixed = scores @ v
    else:
        q, k, v = q.float(), k.float(), v.float()
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=math.log(2))
    return (
        mixed.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format).view(-1, q.shape[1] * q.shape[3])
    )
