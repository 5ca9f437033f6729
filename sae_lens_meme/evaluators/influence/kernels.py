"""Change of class probabilities for every active (meme, latent) pair, in compiled loops over non-zeros.

Rows are in CSR form: the pairs of row i are `indptr[i] : indptr[i + 1]`. All arithmetic is float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from sae_lens_meme.jit import njit

CANCELLED = 1e-4
"""Below this share of the squared norm, what a subtraction leaves is summed again over the other latents."""


@njit(inline="always")
def _to_probabilities(logits, out):
    """Softmax; one logit is a sigmoid."""
    if len(logits) == 1:
        out[0] = 1.0 / (1.0 + math.exp(-logits[0])) if logits[0] > -700.0 else 0.0
    else:
        top = 0
        for c in range(1, len(logits)):
            if logits[c] > logits[top]:
                top = c
        total = 0.0
        for c in range(len(logits)):
            out[c] = math.exp(logits[c] - logits[top]) if c != top else 1.0  # exp is most of the time
            total += out[c]
        inverse = 1.0 / total
        for c in range(len(logits)):
            out[c] *= inverse


@njit()
def _sum_without(latents, z, start, stop, j, gain, scores):
    """Scores (set) and squared norm (returned) of a row without its pair j, summed afresh."""
    norm2 = 0.0
    scores[:] = 0.0
    for other in range(start, stop):
        if other != j:
            norm2 += z[other] * z[other]
            for c in range(len(scores)):
                scores[c] += z[other] * gain[latents[other], c]
    return norm2


@njit(parallel=True)
def linear_deltas(indptr, latents, z, gain_of, scores, square, tilt, gain, bias, step, quadratic, out):
    """Linear head: out[pair, m, c] = p_c(changed) - p_c(as it is).

    The changed logits are (scores + step z gain) / sqrt(square + step z tilt + quadratic z^2) + bias;
    of a zero vector they are the bias. `gain_of` is the row of `gain` of each pair, `tilt` is of each pair. quadratic < 0
    (shrinking a latent of a normalised row) cancels where one latent is nearly the whole row; there
    the sums are taken again.
    """
    for i in prange(len(indptr) - 1):
        start, stop = indptr[i], indptr[i + 1]
        n_classes = len(bias)
        logits, before, after = np.empty(n_classes), np.empty(n_classes), np.empty(n_classes)
        fresh = np.empty(n_classes)
        inverse = 1.0 / math.sqrt(square[i]) if square[i] > 0.0 else 0.0
        for c in range(n_classes):
            logits[c] = scores[i, c] * inverse + bias[c]
        _to_probabilities(logits, before)
        for j in range(start, stop):
            g = gain_of[j]
            for m in range(len(step)):
                shift = step[m] * z[j]
                norm2 = square[i] + shift * tilt[j] + quadratic[m] * z[j] * z[j]
                if quadratic[m] < 0.0 and norm2 < CANCELLED * square[i]:
                    norm2 = _sum_without(latents, z, start, stop, j, gain, fresh) + (quadratic[m] + 1.0) * z[j] * z[j]
                    inverse = 1.0 / math.sqrt(norm2) if norm2 > 0.0 else 0.0
                    for c in range(n_classes):
                        logits[c] = (fresh[c] + (step[m] + 1.0) * z[j] * gain[g, c]) * inverse + bias[c]
                else:
                    inverse = 1.0 / math.sqrt(norm2) if norm2 > 0.0 else 0.0
                    for c in range(n_classes):
                        logits[c] = (scores[i, c] + shift * gain[g, c]) * inverse + bias[c]
                _to_probabilities(logits, after)
                for c in range(n_classes):
                    out[j, m, c] = after[c] - before[c]


@njit(fastmath={"reassoc", "contract"})
def _set_cosine_logits(pre, shift, gain, classes, hidden, out):
    """classes @ relu(pre + shift * gain) / its norm; a zero vector has logits 0."""
    norm2 = 0.0
    for h in range(len(pre)):
        hidden[h] = max(pre[h] + shift * gain[h], 0.0)
        norm2 += hidden[h] * hidden[h]
    inverse = 1.0 / math.sqrt(norm2) if norm2 > 0.0 else 0.0
    for c in range(len(out)):
        dot = 0.0
        for h in range(len(pre)):
            dot += classes[c, h] * hidden[h]
        out[c] = dot * inverse


@njit(parallel=True)
def cosine_deltas(indptr, z, gain_of, pre, gain, classes, step, out):
    """Linear -> ReLU -> cosine head: out[pair, m, c], the pre-activation moved by step z gain."""
    for i in prange(len(indptr) - 1):
        start, stop = indptr[i], indptr[i + 1]
        n_classes = len(classes)
        logits, before, after = np.empty(n_classes), np.empty(n_classes), np.empty(n_classes)
        hidden = np.empty(pre.shape[1])
        _set_cosine_logits(pre[i], 0.0, gain[0], classes, hidden, logits)
        _to_probabilities(logits, before)
        for j in range(start, stop):
            for m in range(len(step)):
                _set_cosine_logits(pre[i], step[m] * z[j], gain[gain_of[j]], classes, hidden, logits)
                _to_probabilities(logits, after)
                for c in range(n_classes):
                    out[j, m, c] = after[c] - before[c]


@njit()
def add_by_latent(latents, deltas, sums):
    """sums[latent, q] += deltas[pair, q]."""
    for j in range(len(latents)):
        for q in range(deltas.shape[1]):
            sums[latents[j], q] += deltas[j, q]


@njit(parallel=True)
def add_resampled(indptr, latents, deltas, weights, sums):
    """sums[q, latent, b] += deltas[pair, q] * weights[row, b]."""
    for q in prange(deltas.shape[1]):
        for i in range(len(indptr) - 1):
            for j in range(indptr[i], indptr[i + 1]):
                delta, f = np.float32(deltas[j, q]), latents[j]
                for b in range(weights.shape[1]):
                    sums[q, f, b] += delta * np.float32(weights[i, b])
