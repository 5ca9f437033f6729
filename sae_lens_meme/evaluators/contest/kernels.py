"""Logistic regression on a handful of columns: Newton's method with the whole Hessian."""

from __future__ import annotations

import numpy as np

from sae_lens_meme.jit import njit


@njit(nogil=True)
def fit_few(x, y, C, start):
    """Weights, then the intercept, that minimise |w|^2 / (2 C) + sum of log losses (scikit-learn's objective).

    x float64 [n, k], y bool [n]; `start` [k + 1] is where to begin. The intercept is not penalised.
    """
    k = x.shape[1]
    weights, gradient, hessian = start.copy(), np.empty(k + 1), np.empty((k + 1, k + 1))
    loss = _derivatives(x, y, C, weights, gradient, hessian)
    for _ in range(100):
        step = np.linalg.solve(hessian, gradient)
        decrement = np.dot(gradient, step)  # twice what is left of the loss
        if decrement < 1e-12:
            break
        size = 1.0
        while True:
            moved = weights - size * step
            then = _derivatives(x, y, C, moved, gradient, hessian)
            if then <= loss - 1e-4 * size * decrement or size < 1e-6:
                break
            size /= 2
        weights, loss = moved, then
    return weights


@njit(nogil=True)
def logits_few(x, weights):
    """x w + intercept, summed column by column: equal rows give equal logits wherever they stand."""
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = _logit(x[i], weights)
    return out


@njit(nogil=True)
def _logit(row, weights):
    logit = weights[len(row)]
    for j in range(len(row)):
        logit += row[j] * weights[j]
    return logit


@njit(nogil=True)
def _derivatives(x, y, C, weights, gradient, hessian):
    n, k = x.shape
    gradient[:], hessian[:], loss = 0.0, 0.0, 0.0
    for i in range(n):
        logit = _logit(x[i], weights)
        p = 1.0 / (1.0 + np.exp(-abs(logit)))
        loss -= np.log(p) if y[i] == (logit >= 0) else np.log(p) - abs(logit)
        p = p if logit >= 0 else 1.0 - p
        residual, curvature = p - y[i], p * (1.0 - p)
        for a in range(k):
            value = x[i, a]
            if value != 0.0:
                gradient[a] += residual * value
                scaled = curvature * value
                for b in range(a + 1):
                    hessian[a, b] += scaled * x[i, b]
                hessian[k, a] += scaled
        gradient[k] += residual
        hessian[k, k] += curvature
    for a in range(k):
        loss += weights[a] * weights[a] / (2.0 * C)
        gradient[a] += weights[a] / C
        hessian[a, a] += 1.0 / C
    hessian[k, k] += 1e-10  # all rows on one side, to the last digit
    for a in range(k + 1):
        for b in range(a):
            hessian[b, a] = hessian[a, b]
    return loss
