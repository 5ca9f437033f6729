"""Logistic regression with an L2 penalty, to convergence, on dense or sparse rows, for several labels at once.

The optimum is scikit-learn's (`LogisticRegression`); the way there is Newton's with preconditioned conjugate
gradients, which takes a tenth of the time of its `newton-cg` on correlated columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from scipy.sparse import issparse
from scipy.special import expit, logsumexp, softmax

from sae_lens_meme.metrics.by_column import squares_by_column

TOLERANCE = 1e-8
"""Largest gradient norm of the sum |w|^2/(2 C) + losses, which is 1/C-strongly convex in the weights."""
NEARLY = 1e-6  # from here on a Newton step that does not halve the gradient has met the limit of float64
MAX_STEPS, MAX_INNER_STEPS = 100, 500
BLOCK_VALUES = 196_608
"""Of a dense matrix in one block (1.5 MB, 256 rows of 768): in cache for both products of a pass, and long enough that two
threads do not wait for the interpreter's lock."""

Weights = Float64[np.ndarray, "fits outputs d_1"]  # the last column is the intercept
PerRow = Float64[np.ndarray, "n fits outputs"]
PerFit = Float64[np.ndarray, " fits"]


class Fit(NamedTuple):
    """One output for two classes (the logit of the second), else one for each class."""

    coef: Float64[np.ndarray, "outputs d"]
    intercept: Float64[np.ndarray, " outputs"]
    gradient_norm: float
    """L2 norm of the gradient of |w|^2/(2 C) + sum of losses where the fit stopped."""


def fit_logistic(
    x: Any, labels: Sequence[np.ndarray], classes: np.ndarray, penalties: Sequence[float] | None = None
) -> list[Fit]:
    """Minimise |w|^2/(2 C) + sum of log losses over weights w and intercepts, which are not penalised.

    Fits share every pass over the rows: many of them cost little more than the slowest.

    Args:
        x: float64 [n, d], an array or CSR.
        labels: for each fit the class of each row, such as a label and draws of it permuted.
        classes: sorted, at least two; all occur in each of the labels.
        penalties: C of each fit, default 1.
    """
    outputs = classes[1:] if len(classes) == 2 else classes
    target = np.stack([y[:, None] == outputs for y in labels], axis=1).astype(np.float64)
    strengths = np.ones(len(labels)) if penalties is None else np.asarray(penalties, dtype=np.float64)
    regression = _Regression(x, target, 1 / strengths)
    weights = np.zeros((*target.shape[1:], x.shape[1] + 1))
    now, last = regression.at(weights), np.full(len(labels), np.inf)
    for _ in range(MAX_STEPS):
        done = (now.norm <= TOLERANCE) | ((last / 2 < now.norm) & (now.norm < NEARLY))
        if done.all():
            break
        step, last = regression.newton_step(now, done), now.norm
        weights, now = _line_search(regression, weights, now, step)
    parts = zip(weights[..., :-1], weights[..., -1], now.norm.tolist(), strict=True)
    return [Fit(*part) for part in parts]


class _Point(NamedTuple):
    loss: PerFit
    gradient: Weights
    p: PerRow

    @property
    def norm(self) -> PerFit:
        return _norm(self.gradient)


def _line_search(regression: _Regression, weights: Weights, now: _Point, step: Weights) -> tuple[Weights, _Point]:
    """Halve the steps of the fits whose loss does not fall enough."""
    size, slope = np.ones(len(step)), _dot(now.gradient, step)
    while True:
        moved = weights + size[:, None, None] * step
        then = regression.at(moved)
        too_far = then.loss > now.loss + 1e-4 * size * slope + 1e-13 * now.loss
        if not too_far.any():
            return moved, then
        size[too_far] /= 2


class _Regression:
    """The objective, its gradient and its Newton steps, as passes over blocks of rows."""

    def __init__(self, x: Any, target: PerRow, penalty: PerFit):
        n, d = x.shape
        size = n if issparse(x) else max(BLOCK_VALUES // d, 1)
        self.blocks = [slice(start, start + size) for start in range(0, n, size)]
        self.parts = [x] if issparse(x) else [x[block] for block in self.blocks]
        # twice as fast where memory is the limit; these products only steer, the gradient in float64 says where to stop
        self.narrow = self.parts if issparse(x) else [part.astype(np.float32) for part in self.parts]
        self.target, self.penalty = target, penalty
        self.curvature, self.basis = _second_moments(x)

    def at(self, weights: Weights) -> _Point:
        p, loss = np.empty_like(self.target), 0.5 * self.penalty * (weights[..., :-1] ** 2).sum(axis=(1, 2))

        def residuals(block: slice, logits: PerRow) -> PerRow:
            nonlocal loss
            target, one = self.target[block], logits.shape[-1] == 1
            normaliser = np.logaddexp(0, logits[..., 0]) if one else np.asarray(logsumexp(logits, axis=-1))
            loss = loss + normaliser.sum(axis=0) - (target * logits).sum(axis=(0, 2))
            p[block] = expit(logits) if one else softmax(logits, axis=-1)
            return p[block] - target

        gradient = self._pass(weights, residuals, self.parts)
        return _Point(loss, gradient, p)

    def newton_step(self, point: _Point, done: Bool[np.ndarray, " fits"]) -> Weights:
        """Minus the inverse Hessian times the gradient, as exactly as is worth it so far from the optimum."""
        downhill = np.where(done[:, None, None], 0, -point.gradient)
        accuracy = np.maximum(np.minimum(0.1, np.sqrt(point.norm / len(point.p))) * point.norm, 0.3 * TOLERANCE)
        narrow, wide = (partial(self._hessian, p=point.p, parts=parts) for parts in (self.narrow, self.parts))
        step = _conjugate_gradients(narrow, self._near_inverse(point.p), downhill, accuracy)
        if self.narrow is not self.parts and (_norm(wide(step) - downhill) > 2 * accuracy).any():
            self.narrow = self.parts  # these columns need more digits than float32 has
            return self.newton_step(point, done)
        return step

    def _hessian(self, step: Weights, p: PerRow, parts: list[Any]) -> Weights:
        """The Hessian at probabilities `p` times a step."""
        p = p.astype(parts[0].dtype)

        def weigh(block: slice, change: PerRow) -> PerRow:
            mine = p[block]
            return mine * (change - np.einsum("nfk,nfk->nf", mine, change)[..., None])

        return self._pass(step, weigh, parts)

    def _pass(self, weights: Weights, function: Callable[[slice, PerRow], PerRow], parts: list[Any]) -> Weights:
        """x^T function(x weights), plus the penalty's share; the intercept's column is all ones."""
        flat = weights.reshape(-1, weights.shape[-1])
        columns = np.ascontiguousarray(flat[:, :-1].T, dtype=parts[0].dtype)
        intercepts = flat[:, -1].astype(parts[0].dtype)
        of_weights = flat[:, :-1] * np.repeat(self.penalty, weights.shape[1])[:, None]
        of_intercepts = np.zeros(len(flat))
        for block, part in zip(self.blocks, parts, strict=True):
            values = function(block, (part @ columns + intercepts).reshape(-1, *weights.shape[:2]))
            values = values.reshape(-1, len(flat))
            of_weights += values.T @ part
            of_intercepts += values.sum(axis=0)
        return np.column_stack([of_weights, of_intercepts]).reshape(weights.shape)

    def _near_inverse(self, p: PerRow) -> Callable[[Weights], Weights]:
        """The inverse Hessian if all rows had the mean covariance of their classes and columns the mean 0."""
        n, _, outputs = p.shape
        mean = p.mean(axis=0)
        covariance = np.eye(outputs) * mean[:, None] - np.einsum("nfa,nfb->fab", p, p, optimize=True) / n
        spread, directions = np.linalg.eigh(covariance)
        spread = np.where(spread > 1e-12, spread, 0)  # adding one number to all logits changes nothing
        of_weights = 1 / (spread[..., None] * self.curvature + self.penalty[:, None, None])
        of_intercept = np.divide(1, n * spread, out=np.zeros_like(spread), where=spread > 0)

        def solve(v: Weights) -> Weights:
            turned = directions.swapaxes(1, 2) @ v
            inner = turned[..., :-1] if self.basis is None else turned[..., :-1] @ self.basis
            inner = of_weights * inner
            inner = inner if self.basis is None else inner @ self.basis.T
            return directions @ np.concatenate([inner, (of_intercept * turned[..., -1])[..., None]], axis=-1)

        return solve


def _conjugate_gradients(
    apply: Callable[[Weights], Weights], near_inverse: Callable[[Weights], Weights], b: Weights, accuracy: PerFit
) -> Weights:
    """x with |apply(x) - b| at most `accuracy` for each fit (Hestenes and Stiefel, preconditioned)."""
    x, residual = np.zeros_like(b), b.copy()
    direction = z = near_inverse(residual)
    size = _dot(residual, z)
    for _ in range(MAX_INNER_STEPS):
        moving = _norm(residual) > accuracy
        if not moving.any():
            break
        applied = apply(direction)
        length = np.where(moving, size / np.where(moving, _dot(direction, applied), 1), 0)[:, None, None]
        x, residual = x + length * direction, residual - length * applied
        z = near_inverse(residual)
        size, last = _dot(residual, z), size
        direction = z + (size / np.where(moving, last, 1))[:, None, None] * direction
    return x


def _second_moments(x: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Eigenvalues and eigenvectors of x^T x; of sparse rows the diagonal, which is most of it."""
    if issparse(x):
        return squares_by_column(x), None
    values, vectors = np.linalg.eigh(x.T @ x)
    return np.maximum(values, 0), vectors


def _dot(a: Weights, b: Weights) -> PerFit:
    return np.einsum("fod,fod->f", a, b)


def _norm(a: Weights) -> PerFit:
    return np.sqrt(_dot(a, a))
