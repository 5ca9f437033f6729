"""Upper tails of one hypergeometric and of a sum of independent ones, in log space.

Relative accuracy is near 1e-12 at any p, also where p itself underflows, and at any table size.
"""

from __future__ import annotations

import math

import numpy as np

from sae_lens_meme.jit import njit

MAX_TERMS = 4_000_000
"""A convolution of more terms than this is not done: `log_tail_of_sum` returns NaN (about 4 ms)."""

MEDIAN_RULE = math.log(0.25)
"""A sum of independent hypergeometrics is one of independent Bernoullis (Vatutin and Mikhailov 1982), so that its median is
less than 1 from its mean (Jogdeo and Samuels 1968): P(A >= a) is at least 1/2 for a up to the mean."""

_NEGLIGIBLE = 1e-17  # of the largest term
_LOG_2PI = math.log(2 * math.pi)
_STIRLING_ERROR = np.array(
    [0.0] + [math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - 0.5 * _LOG_2PI for n in range(1, 16)]
)


@njit(nogil=True)
def log_tail(a, fires, true, n, bound=0.0):
    """Natural log of P(A >= a), A the true ones among `fires` draws of `n` of which `true` are true.

    Where it is above `bound`, 0 may come instead: then it need not be known.
    """
    low, high = max(0, fires + true - n), min(fires, true)
    if a <= low or (bound < MEDIAN_RULE and a * n <= fires * true):
        return 0.0
    if a > high:
        return -math.inf
    if a > _mode(0.0, fires, true, n):
        first = log_pmf(a, fires, true, n)
        return first + math.log(_sum_up(a, fires, true, n)) if first <= bound else 0.0
    below = math.exp(log_pmf(a - 1, fires, true, n)) * _sum_down(a - 1, fires, true, n)
    return math.log1p(-below)


@njit(nogil=True)
def log_tail_of_sum(a, fires, true, n, work):
    """Natural log of P(A_1 + ... + A_S >= a) for independent hypergeometrics A_s.

    All are tilted by one odds ratio so that the sum peaks at `a` (they are then Fisher's noncentral
    hypergeometrics); of each only the window that holds all but 1e-17 of its mass is convolved, and
    the tilt is undone in the last sum.

    Args:
        a: int; fires, true, n: int [S].
        work: float64 [3, m], m at least 1 + the sum of `min(fires, true)`.
    """
    log_odds = _tilt(a, fires, true, n)
    product, factor, spare = work[0], work[1], work[2]
    product[0], start, size = 1.0, 0, 1
    log_scale, excess = 0.0, -a
    for s in range(len(n)):
        mode = _mode(log_odds, fires[s], true[s], n[s])
        log_scale += log_pmf(mode, fires[s], true[s], n[s])
        excess += mode
        low, length = _window(mode, log_odds, fires[s], true[s], n[s], factor)
        if s == len(n) - 1:
            total = _tail_product(a - start - low, product, size, factor, length, spare, log_odds)
            return min(0.0, math.log(total) + log_scale + log_odds * excess) if total > 0 else -math.inf
        if size * length > MAX_TERMS:
            return math.nan
        size = convolve(product, size, factor, length, spare)
        start += low
    return math.nan


@njit(nogil=True)
def log_pmf(x, fires, true, n):
    """Natural log of P(A = x), by Loader's saddle-point form (2000), which subtracts no large numbers."""
    rate = fires / n
    return _log_binomial(x, true, rate) + _log_binomial(fires - x, n - true, rate) - _log_binomial(fires, n, rate)


@njit(nogil=True)
def fill_pmf(fires, true, n, out):
    """out[x] = P(A = x) for x from 0 to min(fires, true); returns how many x there are."""
    low, high, mode = max(0, fires + true - n), min(fires, true), _mode(0.0, fires, true, n)
    out[:low], out[mode] = 0.0, math.exp(log_pmf(mode, fires, true, n))
    for x in range(mode, high):
        out[x + 1] = out[x] * _ratio(x + 1, fires, true, n)
    for x in range(mode, low, -1):
        out[x - 1] = out[x] / _ratio(x, fires, true, n)
    return high + 1


@njit(nogil=True)
def _sum_up(x, fires, true, n):
    """P(A >= x) / P(A = x), for x above the mode."""
    total = term = 1.0
    for y in range(x + 1, min(fires, true) + 1):
        term *= _ratio(y, fires, true, n)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return total


@njit(nogil=True)
def _sum_down(x, fires, true, n):
    """P(A <= x) / P(A = x), for x below the mode."""
    total = term = 1.0
    for y in range(x, max(0, fires + true - n), -1):
        term /= _ratio(y, fires, true, n)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return total


@njit(nogil=True, inline="always")
def _ratio(x, fires, true, n):
    """P(A = x) / P(A = x - 1)."""
    return (true - x + 1.0) * (fires - x + 1.0) / (float(x) * (n - fires - true + x))


@njit(nogil=True)
def _window(mode, log_odds, fires, true, n, out):
    """Tilted terms over the one at the mode, from the first to the last that counts: (first, how many)."""
    low, high, odds = max(0, fires + true - n), min(fires, true), math.exp(log_odds)
    out[0], below, term = 1.0, 0, 1.0
    while mode - below > low and term > _NEGLIGIBLE:
        term /= odds * _ratio(mode - below, fires, true, n)
        below += 1
        out[below] = term
    out[: below + 1] = out[: below + 1][::-1].copy()
    x, term = mode, 1.0
    while x < high and term > _NEGLIGIBLE:
        x += 1
        term *= odds * _ratio(x, fires, true, n)
        out[below + x - mode] = term
    return mode - below, below + x - mode + 1


@njit(nogil=True)
def convolve(product, size, factor, length, spare):
    """`product[:size]` becomes its convolution with `factor[:length]`; returns the new size."""
    new = size + length - 1
    spare[:new] = 0.0
    for x in range(size):
        for y in range(length):
            spare[x + y] += product[x] * factor[y]
    product[:new] = spare[:new]
    return new


@njit(nogil=True)
def _tail_product(a, product, size, factor, length, tails, log_odds):
    """Sum over x + y >= a of product[x] factor[y] odds^(a - x - y), by suffix sums of the factor."""
    decay = math.exp(-log_odds)
    tails[length - 1] = factor[length - 1]
    for y in range(length - 2, -1, -1):
        tails[y] = factor[y] + decay * tails[y + 1]
    total = 0.0
    for x in range(size):
        first = a - x
        if first <= 0:
            total += product[x] * tails[0] * math.exp(log_odds * first)
        elif first < length:
            total += product[x] * tails[first]
    return total


@njit(nogil=True)
def _tilt(a, fires, true, n):
    """A log odds ratio, 0 or more, at which the modes sum to about `a`: a guess, brackets, then bisection.

    It decides only how many digits are kept.
    """
    if _sum_of_modes(0.0, fires, true, n) >= a:
        return 0.0
    mean, variance = 0.0, 0.0
    for s in range(len(n)):
        share = fires[s] / n[s]
        mean += share * true[s]
        variance += share * (1.0 - share) * true[s] * (n[s] - true[s]) / n[s]
    low, high = 0.0, max((a - mean) / variance, 0.01)
    while high < 60.0 and _sum_of_modes(high, fires, true, n) < a:
        low, high = high, 2.0 * high
    for _ in range(6):
        middle = 0.5 * (low + high)
        if _sum_of_modes(middle, fires, true, n) >= a:
            high = middle
        else:
            low = middle
    return min(high, 60.0)


@njit(nogil=True)
def _sum_of_modes(log_odds, fires, true, n):
    total = 0
    for s in range(len(n)):
        total += _mode(log_odds, fires[s], true[s], n[s])
    return total


@njit(nogil=True)
def _mode(log_odds, fires, true, n):
    """Mode of Fisher's noncentral hypergeometric (McCullagh and Nelder)."""
    odds = math.exp(log_odds)
    b = odds * (true + fires + 2.0) + (n - fires - true)
    c = odds * (true + 1.0) * (fires + 1.0)
    root = math.sqrt(max(0.0, b * b - 4.0 * (odds - 1.0) * c))
    return min(max(int(2.0 * c / (b + root)), 0, fires + true - n), min(fires, true))


@njit(nogil=True)
def _log_binomial(x, n, p):
    if x == 0:
        return n * math.log1p(-p) if n > 0 else 0.0
    if x == n:
        return n * (math.log(p) if p < 0.5 else math.log1p(p - 1.0))
    q = 1.0 - p
    error = _stirling_error(n) - _stirling_error(x) - _stirling_error(n - x)
    return error - _deviance(x, n * p) - _deviance(n - x, n * q) - 0.5 * (_LOG_2PI + math.log(x * (n - x) / n))


@njit(nogil=True)
def _stirling_error(n):
    """log n! minus Stirling's formula."""
    if n < 16:
        return _STIRLING_ERROR[n]
    square = float(n) * n
    series = 1 / 1680 - (1 / 1188) / square
    return (1 / 12 - (1 / 360 - (1 / 1260 - series / square) / square) / square) / n


@njit(nogil=True)
def _deviance(x, mean):
    """x log(x / mean) + mean - x, without cancellation near x = mean."""
    if abs(x - mean) >= 0.1 * (x + mean):
        return x * math.log(x / mean) + mean - x
    v = (x - mean) / (x + mean)
    total, power = (x - mean) * v, 2.0 * x * v
    for j in range(1, 1000):
        power *= v * v
        new = total + power / (2 * j + 1)
        if new == total:
            break
        total = new
    return total
