"""A gradient whose norm is known: what made it has added up its squares while they were in the cache."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_aten: Any = torch.ops.aten
_NORMS = (_aten.linalg_vector_norm.default, _aten._foreach_norm.Scalar)
_PRODUCTS = (_aten.mul_.Tensor, _aten._foreach_mul_.Tensor)


class MeasuredGradient(Tensor):
    """Clipping neither reads it for its norm nor multiplies it by 1: two passes over memory less.

    Any other operation is that of torch on `entries`; one that changes them forgets the norm.
    """

    entries: Tensor
    known: list[tuple[Tensor, int]]
    """The norm and the version of `entries` that has it, if it is known; what is detached shares this."""

    @staticmethod
    def __new__(cls, entries: Tensor, known: list[tuple[Tensor, int]]) -> MeasuredGradient:
        made = Tensor._make_subclass(cls, entries)  # type: ignore[attr-defined]
        made.entries, made.known = entries, known
        return made

    @classmethod
    def of(cls, entries: Tensor, norm: Tensor) -> MeasuredGradient:
        return cls(entries, [(norm, entries._version)])

    def numpy(self, *, force: bool = False) -> Any:
        return self.entries.numpy(force=force)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return copy.deepcopy(self.entries, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.entries.__reduce_ex__(protocol)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _aten.detach.default:  # as autograd does before it keeps one
            return cls(args[0].entries, args[0].known)
        if func in _NORMS and not kwargs and args[1:] in ((), (2,)):
            return _each(_norm, args[0])
        if func in _PRODUCTS:
            return _each(lambda gradient: _times(gradient, args[1]), args[0])
        if func._schema.is_mutable:
            tree_map_only(cls, _forget, (args, kwargs or {}))
        return func(*tree_map_only(cls, plain, args), **tree_map_only(cls, plain, kwargs or {}))


def _each(function: Any, gradients: Any) -> Any:
    return [function(g) for g in gradients] if isinstance(gradients, (list, tuple)) else function(gradients)


def _norm(gradient: Tensor) -> Tensor:
    known = gradient.known if isinstance(gradient, MeasuredGradient) else ()
    unchanged = [norm for norm, version in known if version == plain(gradient)._version]  # nor through a view
    return unchanged[0] if unchanged else torch.linalg.vector_norm(plain(gradient))


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    if isinstance(factor, Tensor) and factor.numel() == 1 and factor.item() == 1:
        return gradient
    plain(gradient).mul_(factor)
    _forget(gradient)
    return gradient


def plain(gradient: Tensor) -> Tensor:
    """The gradient as a tensor of torch."""
    return gradient.entries if isinstance(gradient, MeasuredGradient) else gradient


def _forget(gradient: Tensor) -> None:
    if isinstance(gradient, MeasuredGradient):
        gradient.known.clear()
