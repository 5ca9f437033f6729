"""How well activations rank memes: AUROC, the best F1 over all thresholds, and F1 at a given threshold.

All latents x concepts in one sweep over the activations that exist; silent memes are one tie at the bottom.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from sae_lens_meme.jit import njit
from sae_lens_meme.metrics.by_column import kept_rows, sort_descending

Matrix = Float[np.ndarray, "latents concepts"]


class Ranked(NamedTuple):
    """The active memes of each latent in descending order of activation: those of latent i are `starts[i]:starts[i + 1]`."""

    starts: Int[np.ndarray, " latents_1"]
    rows: Int[np.ndarray, " active"]
    values: Float[np.ndarray, " active"]

    @classmethod
    def of(cls, active: Any) -> Ranked:
        """From a sparse float32 matrix [n, latents], which stays as it is."""
        columns = active.copy() if active.format == "csc" else active.tocsc()
        sort_descending(columns.indptr, columns.indices, columns.data)
        return cls(columns.indptr, columns.indices, columns.data)

    def known_in(self, codes: UInt8[np.ndarray, "n concepts"]) -> Ranked:
        """Without the memes that are unknown under every concept."""
        known = np.asarray(codes.any(axis=1))
        if known.all():
            return self
        return Ranked(*kept_rows(self.starts, self.rows, self.values, known))

    def columns(self, latents: Int[np.ndarray, " some"], n: int) -> Float[np.ndarray, "n some"]:
        """The activations of these latents on all n memes; -1 is a latent that never fires."""
        found = np.zeros((n, len(latents)), np.float32)
        for column, latent in enumerate(latents):
            if latent >= 0:
                mine = slice(self.starts[latent], self.starts[latent + 1])
                found[self.rows[mine], column] = self.values[mine]
        return found


class Auroc(NamedTuple):
    """AUROC within strata, with DeLong's standard error; NaN where no stratum has both classes."""

    value: Matrix
    standard_error: Matrix


class BestF1(NamedTuple):
    """The largest F1 of `activation >= threshold`; the threshold is NaN where no known meme is active."""

    f1: Matrix
    threshold: Matrix


def auroc(
    ranked: Ranked,
    codes: UInt8[np.ndarray, "n concepts"],
    strata: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
) -> Auroc:
    """Probability that a true meme is more active than a false one of the same stratum, ties half.

    Strata weigh by their number of (true, false) pairs.

    Args:
        groups: memes of one are not independent evidence: their placements are summed before they are squared
            (Obuchowski 1997). Default each meme its own.
    """
    of = (*ranked.known_in(codes), codes, strata, int(strata.max(initial=0)) + 1)
    found = Auroc(*_auroc(*of))
    if groups is None or len(np.unique(groups)) == len(groups):
        return found
    known, group = np.flatnonzero(codes.any(axis=1)), np.zeros(len(groups), np.int64)
    group[known] = np.unique(groups[known], return_inverse=True)[1]
    return found._replace(standard_error=_error_over_groups(*of, group, known))


def auroc_of_scores(
    scores: Float[np.ndarray, " n"],
    true: Bool[np.ndarray, " n"],
    strata: Int[np.ndarray, " n"],
    weights: Int[np.ndarray, "n replicates"] | None = None,
) -> Float[np.ndarray, " replicates"]:
    """The same of one score, also of resampled memes.

    Args:
        weights: how often each meme is drawn (uint8 or wider); default once, one replicate.

    Returns:
        NaN where no stratum has both classes.
    """
    weights = np.ones((len(scores), 1), np.uint8) if weights is None else weights
    order, n_strata = np.argsort(scores, kind="stable"), int(strata.max(initial=0)) + 1
    return _weighted_auroc(scores[order], np.asarray(true)[order], strata[order], n_strata, weights[order])


def best_f1(
    ranked: Ranked, codes: UInt8[np.ndarray, "n concepts"], worth: Bool[np.ndarray, "latents concepts"] | None = None
) -> BestF1:
    """Over every threshold above 0 that occurs; 0, and NaN as threshold, of pairs that are not `worth` a look (default all)."""
    n_true, wanted = (codes == 2).sum(axis=0), np.ones((1, 1), np.bool_) if worth is None else worth
    return BestF1(*_best_f1(*ranked.known_in(codes), codes, n_true, wanted))


def confusion(
    ranked: Ranked, codes: UInt8[np.ndarray, "n concepts"], threshold: Matrix
) -> tuple[np.ndarray, np.ndarray]:
    """Memes with `activation >= threshold`: (those that are true, all), int64 [latents, concepts]."""
    return _confusion(*ranked.known_in(codes), codes, threshold)


@njit(nogil=True)
def _best_f1(starts, rows, values, codes, n_true, worth):
    latents, concepts = len(starts) - 1, codes.shape[1]
    f1, threshold = np.zeros((latents, concepts)), np.full((latents, concepts), np.nan)
    for i in range(latents):
        low, high, mine = starts[i], starts[i + 1], worth[i % len(worth)]
        if not mine.any():
            continue
        local, ends = _by_concept(rows[low:high], codes), _ends_of_ties(values[low:high])
        for c in range(concepts):
            if mine[c % len(mine)]:
                position, f1[i, c] = _best_cut(local[c], ends, n_true[c])
                if position >= 0:
                    threshold[i, c] = values[low + position]
    return f1, threshold


@njit(nogil=True)
def _best_cut(code, ends, n_true):
    """Where to cut the ranked memes for the largest F1 = 2 true / (fired + n_true), and that F1."""
    true, size, best_true, best_size, position = 0, n_true, -1, 1, -1  # whole numbers add up faster than floats
    for j in range(len(code)):
        true += code[j] >> 1
        size += (code[j] + 1) >> 1
        if true * best_size > best_true * size and ends[j] == j + 1 and size > n_true:
            best_true, best_size, position = true, size, j
    return position, max(2.0 * best_true / best_size, 0.0)


@njit(nogil=True)
def _by_concept(rows, codes):
    """The codes of these memes, one contiguous row per concept: the sweeps then run in registers."""
    local = np.empty((codes.shape[1], len(rows)), np.uint8)
    for j in range(len(rows)):
        for c in range(codes.shape[1]):
            local[c, j] = codes[rows[j], c]
    return local


@njit(nogil=True)
def _ends_of_ties(values):
    """For each place in descending order, one past the last place with the same activation."""
    ends = np.empty(len(values), np.int64)
    end = len(values)
    for j in range(len(values) - 1, -1, -1):
        if j + 1 < len(values) and values[j] != values[j + 1]:
            end = j + 1
        ends[j] = end
    return ends


@njit(nogil=True)
def _confusion(starts, rows, values, codes, threshold):
    true, fired = np.zeros(threshold.shape, np.int64), np.zeros(threshold.shape, np.int64)
    for i in range(len(starts) - 1):
        for j in range(starts[i], starts[i + 1]):
            code = codes[rows[j]]
            for c in range(codes.shape[1]):
                fires = values[j] >= threshold[i, c]
                fired[i, c] += fires and code[c] != 0
                true[i, c] += fires and code[c] == 2
    return true, fired


@njit(nogil=True)
def _auroc(starts, rows, values, codes, strata, n_strata):
    latents, concepts = len(starts) - 1, codes.shape[1]
    totals = _totals(codes, strata, n_strata)
    value, error = np.empty((latents, concepts)), np.empty((latents, concepts))
    seen, moments, tied = np.empty((3, n_strata)), np.empty((3, n_strata)), np.empty((3, n_strata))
    for i in range(latents):
        active = rows[starts[i] : starts[i + 1]]
        ends = _ends_of_ties(values[starts[i] : starts[i + 1]])
        local, stratum = _by_concept(active, codes), strata[active]
        for c in range(concepts):
            _placements(local[c], stratum, ends, totals[c], seen, moments, tied)
            value[i, c], error[i, c] = _combined(totals[c], seen, moments)
    return value, error


@njit(nogil=True)
def _totals(codes, strata, n_strata):
    """Of unknown, false and true memes of each concept and stratum."""
    totals = np.zeros((codes.shape[1], 3, n_strata))
    for row in range(len(codes)):
        for c in range(codes.shape[1]):
            totals[c, codes[row, c], strata[row]] += 1
    return totals


@njit(nogil=True)
def _placements(code, stratum, ends, totals, seen, moments, tied):
    """How many active memes of each code there are, and sums over their placements.

    The placement of a true meme is the number of false ones below it, ties half; of a false one the
    number of true ones above it. `moments`: sum and squares over true memes, squares over false ones.
    """
    seen[:], moments[:], tied[:] = 0.0, 0.0, 0.0
    j = 0
    while j < len(code):
        single = ends[j] == j + 1  # nearly always: equal float activations are duplicates of a meme
        for k in range(j, j if single else ends[j]):
            tied[code[k], stratum[k]] += 1.0
        for k in range(j, ends[j]):
            s = stratum[k]
            if code[k] == 2:
                below = totals[1, s] - seen[1, s] - 0.5 * tied[1, s]
                moments[0, s] += below
                moments[1, s] += below * below
            elif code[k] == 1:
                above = seen[2, s] + 0.5 * tied[2, s]
                moments[2, s] += above * above
        for k in range(j, ends[j]):
            seen[code[k], stratum[k]] += 1.0
        if not single:
            tied[:] = 0.0
        j = ends[j]


@njit(nogil=True)
def _combined(totals, seen, moments):
    """AUROC and DeLong's standard error from the active memes' placements and the silent tie.

    The error is NaN where it is not known: no stratum has two memes of each kind, or all placements are alike (two
    kinds that are apart, or a constant), of which DeLong's formula says 0.
    """
    pairs, wins, variance, known = 0.0, 0.0, 0.0, False
    for s in range(totals.shape[1]):
        n_false, n_true = totals[1, s], totals[2, s]
        if n_false == 0 or n_true == 0:
            continue
        silent_false, silent_true = n_false - seen[1, s], n_true - seen[2, s]
        below, above = 0.5 * silent_false, seen[2, s] + 0.5 * silent_true
        sum_true = moments[0, s] + silent_true * below
        squares_true = moments[1, s] + silent_true * below * below
        squares_false = moments[2, s] + silent_false * above * above
        pairs += n_true * n_false
        wins += sum_true
        known = known or (n_true > 1 and n_false > 1)
        # sums of squared deviations of the placements, each still in units of a count of memes
        spread_true = squares_true - sum_true * sum_true / n_true
        spread_false = squares_false - sum_true * sum_true / n_false
        if n_true > 1:
            variance += n_true * spread_true / (n_true - 1)
        if n_false > 1:
            variance += n_false * spread_false / (n_false - 1)
    if pairs == 0:
        return np.nan, np.nan
    error = np.sqrt(variance) / pairs if known and variance > 1e-6 else np.nan
    return wins / pairs, error


@njit(nogil=True)
def _error_over_groups(starts, rows, values, codes, strata, n_strata, groups, known):
    """NaN where fewer than two groups have true or false memes, or all placements are alike."""
    latents, concepts = len(starts) - 1, codes.shape[1]
    error, n = np.full((latents, concepts), np.nan), _totals(codes, strata, n_strata)
    seen, moments, tied = np.empty((3, n_strata)), np.empty((3, n_strata)), np.empty((3, n_strata))
    silent = np.empty((3, n_strata))
    for i in range(latents):
        active, ends = rows[starts[i] : starts[i + 1]], _ends_of_ties(values[starts[i] : starts[i + 1]])
        local, stratum = _by_concept(active, codes), strata[active]
        for c in range(concepts):
            _placements(local[c], stratum, ends, n[c], seen, moments, tied)
            silent[2] = 0.5 * (n[c, 1] - seen[1])
            silent[1] = seen[2] + 0.5 * (n[c, 2] - seen[2])
            wins, pairs = moments[0] + (n[c, 2] - seen[2]) * silent[2], n[c, 1] * n[c, 2]
            # how far each meme's placement is from the mean of its kind; at first as if all were silent
            sums, kinds = np.zeros(groups.max() + 1), np.zeros((3, groups.max() + 1), np.bool_)
            for row in known:
                code, s = codes[row, c], strata[row]
                if code and pairs[s] > 0:
                    sums[groups[row]] += silent[code, s] - wins[s] / n[c, code, s]
                    kinds[code, groups[row]] = True
            seen[:] = 0.0
            for j in range(len(active)):
                if j == 0 or ends[j] != ends[j - 1]:
                    tied[:] = 0.0
                    for k in range(j, ends[j]):
                        tied[local[c, k], stratum[k]] += 1.0
                    seen += tied
                code, s = local[c, j], stratum[j]
                if code and pairs[s] > 0:
                    other = seen[3 - code, s] - 0.5 * tied[3 - code, s]
                    sums[groups[active[j]]] += (n[c, 1, s] - other if code == 2 else other) - silent[code, s]
            there = (kinds[1] | kinds[2]).sum()
            variance = (sums**2).sum() * there / max(there - 1, 1)
            if kinds[1].sum() > 1 and kinds[2].sum() > 1 and variance > 1e-6:
                error[i, c] = np.sqrt(variance) / pairs.sum()
    return error


@njit(nogil=True)
def _weighted_auroc(scores, true, strata, n_strata, weights):
    """float64 [replicates]; memes are in ascending order of score."""
    replicates = weights.shape[1]
    n_false, n_true = np.zeros((n_strata, replicates)), np.zeros((n_strata, replicates))
    won, start = np.zeros(replicates), 0
    while start < len(scores):
        stop = start + 1
        while stop < len(scores) and scores[stop] == scores[start]:
            stop += 1
        # A true meme beats the false ones below it and half of those it ties with: the mean of the counts before
        # and after the tied ones are added.
        _add_half_of(n_false, start, stop, true, strata, weights, won)
        for k in range(start, stop):
            counts = n_true[strata[k]] if true[k] else n_false[strata[k]]
            for r in range(replicates):
                counts[r] += weights[k, r]
        _add_half_of(n_false, start, stop, true, strata, weights, won)
        start = stop
    pairs = (n_false * n_true).sum(axis=0)
    return np.where(pairs > 0, won / np.maximum(pairs, 1.0), np.nan)


@njit(nogil=True)
def _add_half_of(n_false, start, stop, true, strata, weights, won):
    for k in range(start, stop):
        if true[k]:
            below = n_false[strata[k]]
            for r in range(len(won)):
                won[r] += 0.5 * weights[k, r] * below[r]
