"""A TopK training step on a CPU in compiled loops: after the encoder's product only k latents of a meme are touched.

Each number is summed by one thread in an order that depends on neither the number of threads nor their
timing, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sae_lens_meme.jit import njit
from sae_lens_meme.train.gradient import MeasuredGradient
from sae_lens_meme.train.kernels import sparse_decode
from sae_lens_meme.train.threads import even_parts, in_parts

_ROWS = 256  # of one product: its 4 MB at 4,096 latents stay in the cache until TopK has read them
_ALIKE = {"contract", "reassoc", "nsz"}  # no assumption about NaN and infinity


def topk_step(
    sae_in: Float[Tensor, "batch d_in"],
    target: Float[Tensor, "batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    k: int,
    memory: Recycled | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch d_in"], Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Mean squared error, reconstruction, and the positive ones of the k largest latents of each row.

    A row with fewer than k positive latents is filled up with value 0. Only the loss has a gradient. All
    tensors are float32 on the CPU.

    Args:
        memory: where the gradients of the matrices are written, over those of an earlier step.
    """
    made = _TopKStep.apply(sae_in, target, W_enc, b_enc, W_dec, b_dec, k, memory or Recycled())
    loss, sae_out, values, indices = made  # type: ignore[misc]
    return loss, sae_out, values, indices


class Recycled:
    """Memory of large arrays, each lent to one tensor, and to another when nobody holds that one any more.

    The system takes back what is that large when it is freed, and makes each page of it anew: at batch 256 a quarter
    of the step, since SAELens drops the gradients after each.
    """

    def __init__(self) -> None:
        self._lent: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def __reduce__(self) -> tuple[type[Recycled], tuple[()]]:
        return Recycled, ()  # a copy begins without any

    def empty(self, shape: torch.Size) -> Tensor:
        """A float32 tensor of any content."""
        free = [i for i, (array, tensors) in enumerate(self._lent) if tensors() is None and array.shape == shape]
        array = self._lent.pop(free[0])[0] if free else np.empty(shape, np.float32)
        view = array.view()  # which the tensor keeps alive
        self._lent.append((array, weakref.ref(view)))
        return torch.from_numpy(view)


def clamp_rows(W: Float[Tensor, "rows columns"]) -> None:
    """Divide each row whose norm is above 1 by its norm."""
    in_parts(_clamp, even_parts(len(W)), W.detach().numpy())


class _TopKStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sae_in: Tensor, target: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, k: int, memory: Recycled) -> tuple[Tensor, ...]:  # fmt: skip
        sae_in = sae_in.contiguous()
        values, indices = _encode(sae_in, W_enc, b_enc, k)
        sae_out, residual, slopes = torch.empty_like(target), torch.empty_like(target), torch.empty_like(values)
        errors = np.empty(len(target))
        arrays = _arrays(values, indices, W_dec, b_dec, target, sae_out, residual, slopes)
        in_parts(_decode, even_parts(len(target)), *arrays, errors)
        ctx.save_for_backward(sae_in, W_enc, values, indices, residual, slopes)
        ctx.memory = memory
        ctx.mark_non_differentiable(sae_out, values, indices)
        return torch.tensor(errors.sum() / target.numel(), dtype=target.dtype), sae_out, values, indices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sae_in, W_enc, values, indices, residual, slopes = ctx.saved_tensors
        scale = 2 * float(grads[0]) / residual.numel()
        ends, rows, of_decoder, of_encoder = _by_latent(*_arrays(values, indices, slopes), scale, W_enc.shape[1])
        by_latent = W_enc.shape[::-1]
        grad_W_enc, grad_W_dec = (ctx.memory.empty(by_latent) for _ in range(2))
        grad_b_enc, squares = W_enc.new_empty(by_latent[0]), np.empty((2, by_latent[0]))
        arrays = _arrays(residual, sae_in, grad_W_dec, grad_W_enc, grad_b_enc)
        in_parts(_gradients, _balanced(ends), ends, rows, of_decoder, of_encoder, *arrays, squares)
        norms = torch.from_numpy(np.sqrt(squares.sum(1)).astype(np.float32))
        grad_in = None
        if ctx.needs_input_grad[0]:  # only of an SAE that subtracts b_dec from its input
            grad_in = sparse_decode(slopes * (values > 0) * scale, indices, W_enc.T.contiguous())
        grad_W_enc = grad_W_enc.T
        if W_enc.is_contiguous():  # row after row: autograd would make such a copy, in new memory
            grad_W_enc = ctx.memory.empty(W_enc.shape).copy_(grad_W_enc)
        matrices = MeasuredGradient.of(grad_W_enc, norms[0]), MeasuredGradient.of(grad_W_dec, norms[1])
        return grad_in, None, matrices[0], grad_b_enc, matrices[1], residual.sum(0) * scale, None, None


def _encode(sae_in: Tensor, W_enc: Tensor, b_enc: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values = sae_in.new_empty(len(sae_in), k)
    indices = torch.empty(len(sae_in), k, dtype=torch.int64)
    for start in range(0, len(sae_in), _ROWS):
        rows = slice(start, start + _ROWS)
        (hidden_pre,) = _arrays(_product(sae_in[rows], W_enc, b_enc))
        chosen = _arrays(values[rows], indices[rows])
        in_parts(_topk, even_parts(len(hidden_pre)), hidden_pre, hidden_pre.view(np.int32), *chosen)
    return values, indices


def _product(x: Tensor, W_enc: Tensor, b_enc: Tensor) -> Tensor:
    """oneDNN's, which torch keeps for its compiler, where there is one: MKL's takes a third longer on AMD."""
    try:
        return torch.ops.mkldnn._linear_pointwise(x, W_enc.T, b_enc, "none", [], "")
    except (AttributeError, RuntimeError):
        return torch.addmm(b_enc, x, W_enc)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _balanced(ends: Int[np.ndarray, " d_sae+1"]) -> list[int]:
    """Latents with about the same number of pairs; a latent alone costs as much as two."""
    cost, parts = ends + 2 * np.arange(len(ends)), torch.get_num_threads()
    inner = np.searchsorted(cost, cost[-1] * np.arange(1, parts) / parts)
    return [0, *inner.tolist(), len(ends) - 1]


@njit(nogil=True)
def _topk(start, stop, hidden_pre, bits, values, indices):
    """Positive floats are in the order of their bits: whole numbers are counted faster than floats are sorted."""
    d_sae, k = hidden_pre.shape[1], values.shape[1]
    n_groups = d_sae  # latent l belongs to group l % n_groups
    while n_groups >= 8 * k and n_groups % 2 == 0:
        n_groups //= 2
    largest, kept_bits, kept = np.empty(n_groups, np.int32), np.empty(d_sae, np.int32), np.empty(d_sae, np.int64)
    for row in range(start, stop):
        undefined = False
        for latent in range(d_sae):
            undefined |= hidden_pre[row, latent] != hidden_pre[row, latent]
        for j in range(n_groups):
            largest[j] = bits[row, j]
        for first in range(n_groups, d_sae, n_groups):
            group = bits[row, first : first + n_groups]
            for j in range(n_groups):
                largest[j] = group[j] if group[j] > largest[j] else largest[j]
        least, n = _kth_largest(largest, k), 0  # k groups hold one that is as large
        for j in range(n_groups):
            if largest[j] >= least:
                for latent in range(j, d_sae, n_groups):
                    kept_bits[n], kept[n] = bits[row, latent], latent
                    n += bits[row, latent] >= least
        least, found = _kth_largest(kept_bits[:n], k), 0
        for i in range(2 * n):  # those above the k-th first: of those equal to it not all may have a place
            if found < k and (kept_bits[i] > least if i < n else kept_bits[i - n] == least):
                latent = kept[i % n]
                indices[row, found], values[row, found] = latent, hidden_pre[row, latent]
                found += 1
        for j in range(found, k):
            indices[row, j], values[row, j] = 0, 0
        if undefined:
            values[row, 0] = np.nan


@njit(nogil=True)
def _kth_largest(bits, k):
    """Of the positive numbers; 1, the least of them, where there are fewer."""
    found = np.int32(0)
    for place in range(30, -1, -1):
        trial = found | np.int32(1 << place)
        n = np.int32(0)
        for i in range(len(bits)):
            n += np.int32(1) if bits[i] >= trial else np.int32(0)
        if n >= k:
            found = trial
    return max(found, np.int32(1))


@njit(nogil=True, fastmath=_ALIKE)
def _decode(start, stop, values, indices, W_dec, b_dec, target, sae_out, residual, slopes, errors):
    """Reconstructions, and while their rows of W_dec are in the cache the slope of half the squared error by latent."""
    for row in range(start, stop):
        out, rest = sae_out[row], residual[row]
        for i in range(len(out)):
            out[i] = b_dec[i]
        _add_rows(out, values[row], indices[row], W_dec)
        error = np.float32(0)
        for i in range(len(out)):
            rest[i] = out[i] - target[row, i]
            error += rest[i] * rest[i]
        errors[row] = error
        for j in range(values.shape[1]):
            direction, slope = W_dec[indices[row, j]], np.float32(0)
            for i in range(len(rest)):
                slope += rest[i] * direction[i]
            slopes[row, j] = slope


@njit(nogil=True)
def _by_latent(values, indices, slopes, scale, d_sae):
    """The pairs of a row and an active latent by latent, rows ascending: where each latent's end, and their weights."""
    ends = np.zeros(d_sae + 1, np.int64)
    for row in range(len(values)):
        for j in range(values.shape[1]):
            ends[indices[row, j] + 1] += values[row, j] > 0
    ends = np.cumsum(ends)
    place = ends[:-1].copy()
    rows = np.empty(ends[-1], np.int64)
    of_decoder, of_encoder = np.empty(ends[-1], np.float32), np.empty(ends[-1], np.float32)
    for row in range(len(values)):
        for j in range(values.shape[1]):
            if values[row, j] > 0:
                at = place[indices[row, j]]
                place[indices[row, j]] += 1
                rows[at], of_decoder[at], of_encoder[at] = row, scale * values[row, j], scale * slopes[row, j]
    return ends, rows, of_decoder, of_encoder


@njit(nogil=True, fastmath=_ALIKE)
def _gradients(start, stop, ends, rows, of_decoder, of_encoder, residual, sae_in, of_W_dec, of_W_enc, of_b_enc, squares):  # fmt: skip
    """Those of latents from `start` to `stop`, zero where one never fired; one table of vectors in the cache at a time."""
    for latent in range(start, stop):
        pairs = slice(ends[latent], ends[latent + 1])
        squares[0, latent] = _sum_of_rows(of_W_enc[latent], of_encoder[pairs], rows[pairs], sae_in)
        of_b_enc[latent] = of_encoder[pairs].sum()
    for latent in range(start, stop):
        pairs = slice(ends[latent], ends[latent + 1])
        squares[1, latent] = _sum_of_rows(of_W_dec[latent], of_decoder[pairs], rows[pairs], residual)


@njit(nogil=True, fastmath=_ALIKE)
def _sum_of_rows(out, weights, rows, table):
    """out = sum of weights[j] table[rows[j]], and its squared length."""
    out[:] = 0
    _add_rows(out, weights, rows, table)
    return _square(out)


@njit(nogil=True, fastmath=_ALIKE)
def _add_rows(out, weights, rows, table):
    """out += sum of weights[j] table[rows[j]], four rows in one pass over `out`."""
    whole = len(rows) // 4 * 4
    for j in range(0, whole, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        A, B, C, D = table[rows[j]], table[rows[j + 1]], table[rows[j + 2]], table[rows[j + 3]]
        for i in range(len(out)):
            out[i] += (a * A[i] + b * B[i]) + (c * C[i] + d * D[i])
    for j in range(whole, len(rows)):
        weight, row = weights[j], table[rows[j]]
        for i in range(len(out)):
            out[i] += weight * row[i]


@njit(nogil=True, fastmath=_ALIKE)
def _clamp(start, stop, W):
    for row in range(start, stop):
        vector = W[row]
        square = _square(vector)
        if square > 1:
            norm = np.sqrt(square)
            for i in range(len(vector)):
                vector[i] /= norm


@njit(nogil=True, fastmath=_ALIKE)
def _square(vector):
    square = np.float32(0)
    for i in range(len(vector)):
        square += vector[i] * vector[i]
    return square
