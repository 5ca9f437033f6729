"""Latents [batch, d_sae] that are held as the k of each row that TopK kept."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

_aten: Any = torch.ops.aten


class KeptLatents(Tensor):
    """SAELens' firing statistics of it, changes of type and sums, need no dense array; any other operation makes one.

    A sparse tensor of torch would be sorted for each sum. A row may hold a latent more than once if all
    but one of the values are 0.
    """

    kept: Float[Tensor, "batch k"]
    latents: Int[Tensor, "batch k"]

    @staticmethod
    def __new__(cls, kept: Tensor, latents: Tensor, d_sae: int) -> KeptLatents:
        made = Tensor._make_wrapper_subclass(cls, (len(kept), d_sae), dtype=kept.dtype, device=kept.device)  # type: ignore[attr-defined]
        made.kept, made.latents = kept, latents
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own, kwargs = args[0], kwargs or {}
        if func is _aten._to_copy.default and set(kwargs) == {"dtype"}:
            return cls(own.kept.to(**kwargs), own.latents, own.shape[1])
        if func is _aten.sum.dim_IntList and not kwargs and len(args) == 2:
            if args[1] in ([0], [-2]):
                return own.kept.new_zeros(own.shape[1]).index_add_(0, own.latents.flatten(), own.kept.flatten())
            if args[1] in ([1], [-1]):
                return own.kept.sum(-1)
        return func(*tree_map_only(cls, cls.dense, args), **tree_map_only(cls, cls.dense, kwargs))

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        return self.kept.new_zeros(self.shape).scatter_add_(1, self.latents, self.kept)
