"""What lies between the integer products of a block, one pass over each row: a row depends on no other.

Sums of a product become numbers by the scale of their row and of their channel, and numbers become codes, 8-bit integers
with the scale at which the largest of the row is 127. `bits` are the same numbers read as integers: positive floats are in
the order of their bits, so that the largest is found many at a time, and a NaN is the largest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sae_lens_meme.jit import njit

LARGEST = 127
_SIGN = np.int32(0x7FFFFFFF)
_FAST: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
"""A sum over a row may be made many at a time, always in one order."""
_one, _half = np.float32(1), np.float32(0.5)


@njit(**_FAST, inline="always")
def _round(x: np.ndarray, bits: np.ndarray, codes: np.ndarray) -> np.float32:
    """`codes = round(x / scale)`; returns the scale."""
    most = np.int32(0)
    for j in range(len(bits)):
        most = max(most, np.int32(bits[j] & _SIGN))  # numba widens what it computes of integers
    largest = np.int32(most).view(np.float32)
    inverse = np.float32(LARGEST) / largest if largest > 0 else np.float32(0)
    for j in range(len(x)):
        codes[j] = np.int8(np.rint(x[j] * inverse))
    return largest / np.float32(LARGEST)


@njit(**_FAST)
def quantize(x: np.ndarray, codes: np.ndarray, scale: np.ndarray) -> None:
    row = np.empty(x.shape[1], np.float32)
    bits = row.view(np.int32)
    for i in range(len(x)):
        row[:] = x[i]
        scale[i] = _round(row, bits, codes[i])


@njit(**_FAST)
def normalize(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, codes: np.ndarray, scale: np.ndarray
) -> None:
    """A layer norm, then `quantize`."""
    d = np.float32(x.shape[1])
    row = np.empty(x.shape[1], np.float32)
    bits = row.view(np.int32)
    for i in range(len(x)):
        total = np.float32(0)
        for j in range(len(row)):
            total += x[i, j]
        mean = total / d
        total = np.float32(0)
        for j in range(len(row)):
            total += (x[i, j] - mean) * (x[i, j] - mean)
        inverse = np.float32(1 / math.sqrt(total / d + eps))
        for j in range(len(row)):
            row[j] = (x[i, j] - mean) * inverse * weight[j] + bias[j]
        scale[i] = _round(row, bits, codes[i])


@njit(**_FAST)
def restore(sums: np.ndarray, scale: np.ndarray, channel: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """`out[i] = sums[i] * scale[i] * channel + offset`; they may be the same memory, so that no page is new."""
    row = np.empty(sums.shape[1], np.float32)
    for i in range(len(scale)):
        for j in range(len(row)):
            row[j] = np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]
        out[i] = row


@njit(**_FAST)
def split(sums: np.ndarray, scale: np.ndarray, channel: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """What `restore` gives, as `out[part, meme, head, token]` in bfloat16."""
    parts, _, heads, n, d = out.shape
    row = np.empty(sums.shape[1], np.float32)
    bits = row.view(np.int32)
    for i in range(len(scale)):
        for j in range(len(row)):
            row[j] = np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]
        for part in range(parts):
            for head in range(heads):
                start, to = (part * heads + head) * d, out[part, i // n, head, i % n]
                of_head = bits[start : start + d]
                for j in range(d):
                    to[j] = _upper_half(of_head[j])


@njit(**_FAST)
def softmax(scores: np.ndarray) -> None:
    """2 to the power of each of a row over their sum, in place; `scores` are bfloat16, read as 16-bit integers.

    The power of the part behind the point is a cubic, within 2e-4, where bfloat16 keeps 4e-3.
    """
    n = scores.shape[1]
    x, power, whole = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    bits, power_bits, whole_bits = x.view(np.int32), power.view(np.int32), whole.view(np.int32)
    for i in range(len(scores)):
        for j in range(n):
            bits[j] = np.int32(scores[i, j]) << 16
        most = np.int32(-0x7FFFFFFF)
        for j in range(n):  # negative floats are in the reverse order of their bits
            most = max(most, np.int32(bits[j] ^ np.int32(np.int32(bits[j] >> 31) & _SIGN)))
        largest = np.int32(np.int32(most) ^ np.int32(np.int32(most >> 31) & _SIGN)).view(np.float32)
        for j in range(n):
            below = max(x[j] - largest, np.float32(-126))
            floor = np.floor(below)
            t = below - floor
            power[j] = _one + t * (np.float32(0.6951786) + t * (np.float32(0.2261808) + t * np.float32(0.0786406)))
            whole_bits[j] = np.int32(np.int32(floor) + 127) << 23
        total = np.float32(0)
        for j in range(n):
            power[j] *= whole[j]
        for j in range(n):
            total += power[j]
        for j in range(n):
            power[j] *= _one / total
        for j in range(n):
            scores[i, j] = _upper_half(power_bits[j])


@njit(**_FAST, inline="always")
def _upper_half(bits: np.int32) -> np.int16:
    """A float32 as bfloat16, rounded to even."""
    odd = np.int32(np.int32(bits >> 16) & 1)
    return np.int16(np.int32(bits + 0x7FFF + odd) >> 16)


@njit(**_FAST)
def add(sums: np.ndarray, scale: np.ndarray, channel: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """Add to `out` what `restore` gives."""
    for i in range(len(scale)):
        for j in range(sums.shape[1]):
            out[i, j] += np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]


@njit(**_FAST)
def activate(
    sums: np.ndarray,
    scale: np.ndarray,
    channel: np.ndarray,
    offset: np.ndarray,
    quick: bool,
    codes: np.ndarray,
    scale_out: np.ndarray,
) -> None:
    """`restore`, GELU or QuickGELU, then `quantize`: x - x * tail(x) where x > 0, else x * tail(-x)."""
    row = np.empty(sums.shape[1], np.float32)
    bits = row.view(np.int32)
    for i in range(len(scale)):
        if quick:
            for j in range(len(row)):
                x = np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]
                size = np.float32(math.fabs(x))
                row[j] = _half * (x + size) - size * _logistic_tail(size)
        else:
            for j in range(len(row)):
                x = np.float32(sums[i, j]) * (scale[i] * channel[j]) + offset[j]
                size = np.float32(math.fabs(x))
                row[j] = _half * (x + size) - size * _normal_tail(size)
        scale_out[i] = _round(row, bits, codes[i])


@njit(**_FAST, inline="always")
def _normal_tail(x: np.float32) -> np.float32:
    """1 - Phi(x) for x >= 0, to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.28)."""
    t = x * np.float32(math.sqrt(0.5))
    p = np.float32(0.0002765672) + t * np.float32(0.0000430638)
    p = np.float32(0.0092705272) + t * (np.float32(0.0001520143) + t * p)
    p = _one + t * (np.float32(0.0705230784) + t * (np.float32(0.0422820123) + t * p))
    return _half / _to_the_16th(p)


@njit(**_FAST, inline="always")
def _logistic_tail(x: np.float32) -> np.float32:
    """1 / (1 + exp(1.702 x)) for x >= 0, to 1e-7: the exponential is the 16th power of its series at a 16th of x."""
    t = min(x * np.float32(1.702 / 16), np.float32(4))
    p = np.float32(1 / 24) + t * (np.float32(1 / 120) + t * np.float32(1 / 720))
    p = _one + t * (_one + t * (_half + t * (np.float32(1 / 6) + t * p)))
    return _one / (_one + _to_the_16th(p))


@njit(**_FAST, inline="always")
def _to_the_16th(x: np.float32) -> np.float32:
    x = x * x
    x = x * x
    x = x * x
    return x * x
