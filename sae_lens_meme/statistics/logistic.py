"""Logistic regression with an L2 penalty, to convergence, on dense or sparse rows.

The optimum is scikit-learn's (`LogisticRegression(C=1)`); the way there is Newton's with preconditioned conjugate
gradients, which takes a tenth of the time of its `newton-cg` on correlated columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit, logsumexp, softmax

TOLERANCE = 1e-8
"""Largest gradient norm of the sum |w|^2/2 + losses, which is 1-strongly convex in the weights."""
NEARLY = 1e-6  # from here on a Newton step that does not halve the gradient has met the limit of float64
MAX_STEPS, MAX_INNER_STEPS = 100, 500
BLOCK_VALUES = 73_728  # of a dense matrix (600 kB, 96 rows of 768): in a core's cache for both products of a pass


class Fit(NamedTuple):
    """One output for two classes (the logit of the second), else one for each class."""

    coef: Float64[np.ndarray, "outputs d"]
    intercept: Float64[np.ndarray, " outputs"]
    gradient_norm: float
    """L2 norm of the gradient of |w|^2/2 + sum of losses where the fit stopped."""


def fit_logistic(x: Any, y: np.ndarray, classes: np.ndarray) -> Fit:
    """Minimise |w|^2/2 + sum of log losses over weights w and intercepts, which are not penalised.

    Args:
        x: float64 [n, d], an array or CSR.
        y: the class of each row.
        classes: sorted, at least two; all occur in `y`.
    """
    target = (y[:, None] == (classes[1:] if len(classes) == 2 else classes)).astype(np.float64)
    regression = _Regression(x, target)
    weights = np.zeros((target.shape[1], x.shape[1] + 1))  # the last column is the intercept
    now, last = regression.at(weights), np.inf
    for _ in range(MAX_STEPS):
        if now.norm <= TOLERANCE or last / 2 < now.norm < NEARLY:
            break
        step, last = regression.newton_step(now), now.norm
        size, slope = 1.0, float((now.gradient * step).sum())
        while (then := regression.at(weights + size * step)).loss > now.loss + 1e-4 * size * slope + 1e-13 * now.loss:
            size /= 2
        weights, now = weights + size * step, then
    return Fit(weights[:, :-1], weights[:, -1], now.norm)


class _Point(NamedTuple):
    loss: float
    gradient: Float64[np.ndarray, "outputs d_1"]
    p: Float64[np.ndarray, "n outputs"]

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.gradient))


class _Regression:
    """The objective, its gradient and its Newton steps, as passes over blocks of rows."""

    def __init__(self, x: Any, target: Float64[np.ndarray, "n outputs"]):
        n, d = x.shape
        size = n if issparse(x) else max(BLOCK_VALUES // d, 1)
        self.blocks = [slice(start, start + size) for start in range(0, n, size)]
        self.parts = [x] if issparse(x) else [x[block] for block in self.blocks]
        self.target = target
        self.curvature, self.basis = _second_moments(x)

    def at(self, weights: np.ndarray) -> _Point:
        p, loss = np.empty_like(self.target), 0.5 * float((weights[:, :-1] ** 2).sum())

        def residuals(block: slice, logits: np.ndarray) -> np.ndarray:
            nonlocal loss
            target = self.target[block]
            loss += float(_log_normaliser(logits).sum() - (target * logits).sum())
            p[block] = expit(logits) if logits.shape[1] == 1 else softmax(logits, axis=1)
            return p[block] - target

        gradient = self._pass(weights, residuals)
        return _Point(loss, gradient, p)

    def newton_step(self, point: _Point) -> np.ndarray:
        """Minus the inverse Hessian times the gradient, as exactly as is worth it so far from the optimum."""
        p, gradient = point.p, point.gradient
        size, shape = gradient.size, gradient.shape
        hessian = LinearOperator((size, size), lambda v: self._hessian(v.reshape(shape), p).ravel(), dtype=float)
        solve = self._near_inverse(p)
        near_inverse = LinearOperator((size, size), lambda v: solve(v.reshape(shape)).ravel(), dtype=float)
        accuracy = max(min(0.1, (point.norm / len(p)) ** 0.5), 0.3 * TOLERANCE / point.norm)
        step, _ = cg(hessian, -gradient.ravel(), rtol=accuracy, M=near_inverse, maxiter=MAX_INNER_STEPS)
        return step.reshape(shape)

    def _hessian(self, step: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The Hessian at probabilities `p` times a step."""

        def weigh(block: slice, change: np.ndarray) -> np.ndarray:
            mine = p[block]
            return mine * (change - (mine * change).sum(axis=1, keepdims=True))

        return self._pass(step, weigh)

    def _pass(self, weights: np.ndarray, function: Callable[[slice, np.ndarray], np.ndarray]) -> np.ndarray:
        """x^T function(x weights), plus the penalty's share; the intercept's column is all ones."""
        out = weights.copy()
        out[:, -1] = 0
        for block, part in zip(self.blocks, self.parts, strict=True):
            values = function(block, part @ weights[:, :-1].T + weights[:, -1])
            out[:, :-1] += values.T @ part
            out[:, -1] += values.sum(axis=0)
        return out

    def _near_inverse(self, p: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The inverse Hessian if all rows had the mean covariance of their classes and columns the mean 0."""
        n = len(p)
        covariance = (p * (1 - p)).mean(axis=0)[:, None] if p.shape[1] == 1 else np.diag(p.mean(axis=0)) - p.T @ p / n
        spread, directions = np.linalg.eigh(covariance)
        spread = np.where(spread > 1e-12, spread, 0)  # adding one number to all logits changes nothing
        of_weights = 1 / (spread[:, None] * self.curvature + 1)
        of_intercept = np.divide(1, n * spread, out=np.zeros_like(spread), where=spread > 0)

        def solve(v: np.ndarray) -> np.ndarray:
            turned = directions.T @ v
            inner = turned[:, :-1] if self.basis is None else turned[:, :-1] @ self.basis
            inner = of_weights * inner
            inner = inner if self.basis is None else inner @ self.basis.T
            return directions @ np.column_stack([inner, of_intercept * turned[:, -1]])

        return solve


def _second_moments(x: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Eigenvalues and eigenvectors of x^T x; of sparse rows the diagonal, which is most of it."""
    if issparse(x):
        return np.asarray(x.multiply(x).sum(axis=0)).ravel(), None
    values, vectors = np.linalg.eigh(x.T @ x)
    return np.maximum(values, 0), vectors


def _log_normaliser(logits: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, logits) if logits.shape[1] == 1 else logsumexp(logits, axis=1)
