"""Weighted sums of unit embeddings over the non-zeros of each latent, and overlaps of top sets, in compiled loops.

Activations are in CSC form: the memes of latent f are `rows[indptr[f] : indptr[f + 1]]`, ascending. Sums are
float64, those of permutations float32.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Int
from numba import prange

from sae_lens_meme.jit import njit
from sae_lens_meme.metrics.hypergeometric import convolve, fill_pmf


def balanced(size: Int[np.ndarray, " latents"]) -> Int[np.ndarray, " latents"]:
    """An order of the latents in which each thread's stretch holds its share of the non-zeros."""
    descending = np.argsort(-size, kind="stable")
    threads = numba.get_num_threads()
    return np.concatenate([descending[i::threads] for i in range(threads)])


@njit()
def advance(begin, stop_at, rows, stop_row):
    """For each latent the first place from `begin` on whose row is `stop_row` or later."""
    out = np.empty_like(begin)
    for f in range(len(begin)):
        j = begin[f]
        while j < stop_at[f] and rows[j] < stop_row:
            j += 1
        out[f] = j
    return out


@njit(parallel=True, fastmath={"reassoc", "contract"})
def row_products(x, y, out):
    """out[i] = x_i . y_i."""
    for i in prange(len(x)):
        total = 0.0
        for q in range(x.shape[1]):
            total += np.float64(x[i, q]) * np.float64(y[i, q])
        out[i] = total


@njit()
def add_by_stratum(x, scale, strata, out):
    """out[strata[i]] += scale[i] x_i."""
    for i in range(len(x)):
        for q in range(x.shape[1]):
            out[strata[i], q] += scale[i] * x[i, q]


@njit()
def pair_weights(indptr, left, right, out):
    """out[f] = sum over n != m of left_n right_m, from running sums: nothing is subtracted."""
    for f in range(len(indptr) - 1):
        total, lefts, rights = 0.0, 0.0, 0.0
        for j in range(indptr[f], indptr[f + 1]):
            total += left[j] * rights + right[j] * lefts
            lefts += left[j]
            rights += right[j]
        out[f] = total


@njit(inline="always")
def _add_rows(rows, weights, begin, end, x, first, v):
    """v += sum of weights_j x_j; four rows at a time, so that v is loaded and stored a quarter as often."""
    j = begin
    while j + 3 < end:
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        x0, x1, x2, x3 = x[rows[j] - first], x[rows[j + 1] - first], x[rows[j + 2] - first], x[rows[j + 3] - first]
        for q in range(len(v)):
            v[q] += (w0 * x0[q] + w1 * x1[q]) + (w2 * x2[q] + w3 * x3[q])
        j += 4
    while j < end:
        w0, x0 = weights[j], x[rows[j] - first]
        for q in range(len(v)):
            v[q] += w0 * x0[q]
        j += 1


@njit(parallel=True)
def add_weighted(order, begin, end, rows, weights, x, first, sums):
    """sums[f] += weights_j x[rows_j - first] over j in begin[f] : end[f]."""
    for i in prange(len(order)):
        f = order[i]
        _add_rows(rows, weights, begin[f], end[f], x, first, sums[f])


@njit(parallel=True, fastmath={"reassoc", "contract"})
def products(order, begin, end, rows, x, first, sums, out):
    """out[j] = x[rows_j - first] . sums[f] over j in begin[f] : end[f]."""
    for i in prange(len(order)):
        f = order[i]
        v = sums[f]
        for j in range(begin[f], end[f]):
            row = x[rows[j] - first]
            total = 0.0
            for q in range(len(v)):
                total += v[q] * row[q]
            out[j] = total


@njit(parallel=True, fastmath={"reassoc", "contract"})
def permuted_pair_sums(latents, indptr, rows, weights, side, units, pairs, diagonal, to, out):
    """out[draw, p, i]: sum over n != m of a_n b_m e_n . e_m of latent latents[i] after rows move by `to[draw]`.

    Embedding h is `units[h]`, its weights are `weights[side[h]]`; pair p multiplies the embeddings pairs[p],
    and `diagonal[p]` are their products within a meme.
    """
    for draw in prange(len(to)):
        v = np.empty((units.shape[0], units.shape[2]), np.float32)
        moved = np.empty(len(rows), rows.dtype)
        for j in range(len(rows)):
            moved[j] = to[draw, rows[j]]
        for i in range(len(latents)):
            begin, end = indptr[latents[i]], indptr[latents[i] + 1]
            v[:] = 0.0
            for h in range(len(units)):
                _add_rows(moved, weights[side[h]], begin, end, units[h], 0, v[h])
            for p in range(len(pairs)):
                left, right = v[pairs[p, 0]], v[pairs[p, 1]]
                a, b, within = weights[side[pairs[p, 0]]], weights[side[pairs[p, 1]]], diagonal[p]
                total = np.float32(0.0)
                for q in range(len(left)):
                    total += left[q] * right[q]
                for j in range(begin, end):
                    total -= a[j] * b[j] * within[moved[j]]
                out[draw, p, i] = total


@njit()
def overlaps(top, meme_starts, meme_units):
    """How many members each two top sets share: a histogram over pairs, and each set's nearest with its overlap.

    `top` is [units, size]; meme m is in the top sets `meme_units[meme_starts[m] : meme_starts[m + 1]]`.
    """
    n_units, size = top.shape
    histogram = np.zeros(size + 1, np.int64)
    nearest, largest = np.full(n_units, -1, np.int64), np.zeros(n_units, np.int64)
    shared, touched = np.zeros(n_units, np.int64), np.empty(n_units, np.int64)
    for u in range(n_units):
        n_touched = 0
        for m in top[u]:
            for other in meme_units[meme_starts[m] : meme_starts[m + 1]]:
                if shared[other] == 0:
                    touched[n_touched] = other
                    n_touched += 1
                shared[other] += 1
        for other in touched[:n_touched]:
            if other > u:
                histogram[shared[other]] += 1
            if other != u and (shared[other] > largest[u] or (shared[other] == largest[u] and other < nearest[u])):
                nearest[u], largest[u] = other, shared[other]
            shared[other] = 0
    histogram[0] = n_units * (n_units - 1) // 2 - histogram.sum()
    return histogram, nearest, largest


@njit()
def overlap_in_strata(sizes, most):
    """P(two sets share x of a stratum) for every k and l members that they have of it, up to `most`: table and starts.

    Of stratum s, k, l and x are in `table[starts[s] :]` as an array of most + 1 in each direction.
    """
    starts = np.zeros(len(sizes) + 1, np.int64)
    starts[1:] = np.cumsum((most + 1) ** 3)
    table = np.zeros(starts[-1])
    for s in range(len(sizes)):
        m = most[s] + 1
        for cell in range(m * m):
            fill_pmf(cell // m, cell % m, sizes[s], table[starts[s] + cell * m : starts[s] + (cell + 1) * m])
    return table, starts


@njit(parallel=True)
def random_overlaps(drawn, how_many, table, starts, most, histogram, log_at_most):
    """Members shared by two sets of random memes, over all pairs of sets.

    `how_many[p]` sets have a random meme of each stratum in `drawn[p]` (ascending, repeated), none twice. Sums over the
    pairs of which p is the first: histogram[p, x] is the expected number of pairs that share x, log_at_most[p, x] the log
    of the probability that none shares more, the pairs taken as independent.
    """
    n_kinds, top = drawn.shape
    for i in prange(n_kinds):
        p = i // 2 if i % 2 == 0 else n_kinds - 1 - i // 2  # early kinds have the most pairs
        shared, spare = np.empty(top + 1), np.empty(top + 1)
        for q in range(p, n_kinds):
            pairs = how_many[p] * how_many[q] if q > p else how_many[p] * (how_many[p] - 1) // 2
            if pairs == 0:
                continue
            length, at_most = _shared_members(drawn[p], drawn[q], table, starts, most, shared, spare), 0.0
            for x in range(length):
                histogram[p, x] += pairs * shared[x]
                at_most += shared[x]
                if x < length - 1:  # that they share at most what they can is certain
                    log_at_most[p, x] += pairs * np.log(at_most) if at_most > 0 else -np.inf


@njit()
def _shared_members(one, other, table, starts, most, shared, spare):
    """shared[x]: probability that two such sets share x; returns how many x there are. Strata are independent."""
    shared[0], length, i, j = 1.0, 1, 0, 0
    while i < len(one) and j < len(other):
        if one[i] != other[j]:
            i, j = (i + 1, j) if one[i] < other[j] else (i, j + 1)
            continue
        s, first_i, first_j = one[i], i, j
        while i < len(one) and one[i] == s:
            i += 1
        while j < len(other) and other[j] == s:
            j += 1
        k, of_one, of_other = most[s] + 1, i - first_i, j - first_j
        begin = starts[s] + (of_one * k + of_other) * k
        length = convolve(shared, length, table[begin : begin + k], min(of_one, of_other) + 1, spare)
    return length


@njit()
def first_kept(starts, rows, keep, units, out):
    """out[u]: the first rows of unit units[u] that are kept, as many as fit or as there are; -1 in the rest."""
    out[:] = -1
    for u in range(len(units)):
        k = 0
        for j in range(starts[units[u]], starts[units[u] + 1]):
            if keep[rows[j]]:
                out[u, k] = rows[j]
                k += 1
                if k == out.shape[1]:
                    break


@njit()
def mean_common_depth(sets, paths):
    """Mean over pairs of members of a set of the length of what their paths begin with in common; NaN without a pair.

    Members of -1 end a set; `paths[m]` are nodes from below the root down, -1 after the last.
    """
    out = np.full(len(sets), np.nan)
    for u in range(len(sets)):
        total, n_pairs = 0, 0
        for k in range(sets.shape[1]):
            if sets[u, k] < 0:
                break
            for other in range(k):
                a, b = paths[sets[u, k]], paths[sets[u, other]]
                depth = 0
                while depth < len(a) and a[depth] >= 0 and a[depth] == b[depth]:
                    depth += 1
                total += depth
                n_pairs += 1
        if n_pairs > 0:
            out[u] = total / n_pairs
    return out
