"""The ways a latent acts on a classifier: through a probe on latents, or through the embedding that it writes to.

A route yields, for a block of rows, the change of each output probability for each active pair and multiplier.
`steer_through_model` does the same to a running model, one latent at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64
from scipy.special import softmax
from torch import Tensor

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.evaluators.classifiers import Probe, probabilities
from sae_lens_meme.evaluators.influence.kernels import cosine_deltas, linear_deltas
from sae_lens_meme.metrics.directions import unit_rows


@dataclass(frozen=True, eq=False)
class CosineHead:
    """MemeCLIP's head: scale * cos(relu(W1 h + b1), class vector), then softmax."""

    task: str
    classes: tuple[Any, ...]
    W1: Float[np.ndarray, "hidden d_in"]
    b1: Float[np.ndarray, " hidden"]
    classifier: Float[np.ndarray, "n_classes hidden"]
    scale: float = 30.0

    def __post_init__(self) -> None:
        hidden = len(self.W1)
        if self.b1.shape != (hidden,) or self.classifier.shape != (len(self.classes), hidden):
            raise DataError(
                f"head of {self.task!r}: W1 {self.W1.shape}, b1 {self.b1.shape} and classifier {self.classifier.shape} "
                f"do not fit each other and {len(self.classes)} classes"
            )
        if not all(np.isfinite(weight).all() for weight in (self.W1, self.b1, self.classifier)):
            raise NonFiniteError(f"head of {self.task!r}: a weight is NaN or infinite; train the head again")

    @property
    def class_vectors(self) -> Float64[np.ndarray, "n_classes hidden"]:
        return self.scale * unit_rows(self.classifier.astype(np.float64))

    def pre_activation(self, h: Float[np.ndarray, "n d_in"]) -> Float64[np.ndarray, "n hidden"]:
        return h.astype(np.float64) @ self.W1.T.astype(np.float64) + self.b1

    def predict_proba(self, h: Float[np.ndarray, "n d_in"]) -> Float64[np.ndarray, "n n_classes"]:
        return self.of_pre_activation(self.pre_activation(h))

    def of_pre_activation(self, pre: Float64[np.ndarray, "n hidden"]) -> Float64[np.ndarray, "n n_classes"]:
        return softmax(unit_rows(np.maximum(pre, 0)) @ self.class_vectors.T, axis=1)


class Route(ABC):
    """One classifier, reached in one way, on n rows of latents (float64 CSR)."""

    name: str
    task: str
    classes: tuple[Any, ...]
    n_outputs: int  # 1: the probability of classes[1]
    latents: Any  # float64 CSR [n, d_sae]

    @abstractmethod
    def deltas(
        self, start: int, stop: int, multipliers: Float64[np.ndarray, " m"]
    ) -> Float64[np.ndarray, "nnz m outputs"]:
        """Change of probability when the latent of each pair of these rows is multiplied."""

    @abstractmethod
    def random_deltas(
        self, start: int, stop: int, multipliers: Float64[np.ndarray, " m"], direction: int
    ) -> Float64[np.ndarray, "nnz m outputs"]:
        """The same for a step of equal norm in a fixed random direction."""

    def orthogonal_deltas(
        self, start: int, stop: int, multipliers: Float64[np.ndarray, " m"]
    ) -> Float64[np.ndarray, "nnz m outputs"] | None:
        """The same for a step of equal norm along the latent's direction without its part in the span of the classifier.

        No logit gains by it: what changes is the length by which a row is divided. None where the classifier is not linear.
        """
        return None

    @abstractmethod
    def all_ablated(self) -> Float64[np.ndarray, " outputs"]:
        """Mean change of probability when every active latent is ablated."""

    def block(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """indptr, latents and values of these rows."""
        indptr = self.latents.indptr[start : stop + 1]
        pairs = slice(indptr[0], indptr[-1])
        return (indptr - indptr[0]).astype(np.int64), self.latents.indices[pairs], self.latents.data[pairs]


class LinearRoute(Route):
    """A probe on L2-normalised latents (`latent_route`) or a linear head on the embedding (`embedding_route`)."""

    def __init__(self, name: str, probe: Probe, latents: Any, normalised: bool):
        self.name, self.task, self.classes, self.latents = name, probe.task, probe.classes, latents
        self.n_outputs, self.normalised = len(probe.coef), normalised
        n, d_sae = latents.shape
        self.bias = probe.intercept if normalised else np.zeros(self.n_outputs)
        self.scores = np.empty((n, self.n_outputs))
        self.square, self.tilt = np.ones(n), np.zeros((n, 0))
        self.gain, self.random_gain, self.norms = np.empty((d_sae, self.n_outputs)), np.empty(0), np.ones(d_sae)

    def deltas(self, start: int, stop: int, multipliers: np.ndarray) -> np.ndarray:
        quadratic = multipliers**2 - 1 if self.normalised else np.zeros(len(multipliers))
        _, latents, z = self.block(start, stop)
        return self._run(start, stop, z, latents, self.gain, np.zeros(len(z)), multipliers - 1, quadratic)

    def random_deltas(self, start: int, stop: int, multipliers: np.ndarray, direction: int) -> np.ndarray:
        step = np.abs(multipliers - 1)
        quadratic = step**2 if self.normalised else np.zeros(len(step))
        indptr, latents, z = self.block(start, stop)
        z, gain_of = z * self.norms[latents], np.zeros(len(z), dtype=np.int32)
        gain, tilt = self.random_gain[direction : direction + 1], self.tilt[start:stop, direction]
        return self._run(start, stop, z, gain_of, gain, np.repeat(tilt, np.diff(indptr)), step, quadratic)

    def orthogonal_deltas(self, start: int, stop: int, multipliers: np.ndarray) -> np.ndarray:
        indptr, latents, z = self.block(start, stop)
        if not self.normalised:  # no length counts
            return np.zeros((len(z), len(multipliers), self.n_outputs))
        step, nowhere = multipliers - 1, np.zeros((1, self.n_outputs))
        in_span, own = self._span
        along = z - np.einsum("pc,pc->p", np.repeat(in_span[start:stop], np.diff(indptr), axis=0), self.gain[latents])
        tilt = np.divide(2 * along, own[latents], out=np.zeros_like(z), where=own[latents] > 0)
        return self._run(start, stop, z, np.zeros(len(z), dtype=np.int32), nowhere, tilt, step, step**2)

    @cached_property
    def _span(self) -> tuple[Float64[np.ndarray, "n outputs"], Float64[np.ndarray, " d_sae"]]:
        """Of each row, what times the gain of a latent is the row's part in the span of the probe along that latent;
        of each latent, the length that is left of its unit vector without its part in the span."""
        inverse = np.linalg.pinv(self.gain)  # outputs x d_sae
        left = 1 - np.einsum("fc,cf->f", self.gain, inverse)
        return np.asarray(self.latents @ inverse.T), np.sqrt(np.maximum(left, 0))

    def all_ablated(self) -> np.ndarray:
        norms = np.sqrt(self.square)[:, None]
        before = self.scores / np.where(norms > 0, norms, 1) + self.bias
        after = np.broadcast_to(self.bias, before.shape) if self.normalised else before - self.latents @ self.gain
        change = probabilities(after) - probabilities(before)
        return change[:, -self.n_outputs :].mean(0)

    def _run(
        self, start: int, stop: int, z: Any, gain_of: Any, gain: Any, tilt: Any, step: Any, quadratic: Any
    ) -> np.ndarray:
        indptr, latents, _ = self.block(start, stop)
        out = np.empty((len(z), len(step), self.n_outputs))
        scores, square = self.scores[start:stop], self.square[start:stop]
        linear_deltas(indptr, latents, z, gain_of, scores, square, tilt, gain, self.bias, step, quadratic, out)
        return out


class CosineRoute(Route):
    """Through a Linear -> ReLU -> cosine head: the pre-activation moves by (m-1) z_f W1 d_f, a rank-1 update."""

    def __init__(
        self, head: CosineHead, latents: Any, embeddings: Embeddings, hook: str, rows: np.ndarray,
        decoder: Float64[np.ndarray, "d_sae d_in"], directions: Float64[np.ndarray, "r d_in"],
    ):  # fmt: skip
        self.name, self.task, self.classes, self.latents = "embedding", head.task, head.classes, latents
        self.n_outputs, self.head, self.norms = len(head.classes), head, np.linalg.norm(decoder, axis=1)
        self.embeddings, self.hook, self.rows = embeddings, hook, rows
        W1 = head.W1.T.astype(np.float64)
        self.gain, self.random_gain = decoder @ W1, directions @ W1

    def deltas(self, start: int, stop: int, multipliers: np.ndarray) -> np.ndarray:
        _, latents, z = self.block(start, stop)
        return self._run(start, stop, z, latents, self.gain, multipliers - 1)

    def random_deltas(self, start: int, stop: int, multipliers: np.ndarray, direction: int) -> np.ndarray:
        _, latents, z = self.block(start, stop)
        gain = self.random_gain[direction : direction + 1]
        return self._run(start, stop, z * self.norms[latents], np.zeros_like(latents), gain, np.abs(multipliers - 1))

    def all_ablated(self) -> np.ndarray:
        total = np.zeros(self.n_outputs)
        for start in range(0, len(self.rows), 4096):
            pre = self._pre(start, start + 4096)
            ablated = pre - self.latents[start : start + 4096] @ self.gain
            total += (self.head.of_pre_activation(ablated) - self.head.of_pre_activation(pre)).sum(0)
        return total / len(self.rows)

    def _pre(self, start: int, stop: int) -> np.ndarray:
        return self.head.pre_activation(self.embeddings.take(self.hook, self.rows[start:stop]))

    def _run(self, start: int, stop: int, z: Any, gain_of: Any, gain: Any, step: Any) -> np.ndarray:
        indptr, _, _ = self.block(start, stop)
        out = np.empty((len(z), len(step), self.n_outputs))
        cosine_deltas(indptr, z, gain_of, self._pre(start, stop), gain, self.head.class_vectors, step, out)
        return out


def latent_route(probe: Probe, latents: Any, directions: Float64[np.ndarray, "r d_sae"]) -> LinearRoute:
    """z_f <- m z_f, the row normalised again, then the probe."""
    route = LinearRoute("latent", probe, latents, normalised=True)
    route.scores, route.gain = latents @ probe.coef.T, np.ascontiguousarray(probe.coef.T)
    route.square = np.asarray(latents.multiply(latents).sum(1), dtype=np.float64).ravel()
    route.tilt, route.random_gain = 2 * (latents @ directions.T), directions @ probe.coef.T
    return route


def embedding_route(
    probe: Probe, latents: Any, embeddings: Embeddings, hook: str, rows: np.ndarray,
    decoder: Float64[np.ndarray, "d_sae d_in"], directions: Float64[np.ndarray, "r d_in"],
) -> LinearRoute:  # fmt: skip
    """h <- h + (m-1) z_f d_f, the SAE's error kept, then a linear head."""
    route = LinearRoute("embedding", probe, latents, normalised=False)
    route.scores = np.concatenate([probe.logits(batch) for _, batch in embeddings.batches(hook, rows)])
    route.gain, route.random_gain = decoder @ probe.coef.T, directions @ probe.coef.T
    route.norms, route.tilt = np.linalg.norm(decoder, axis=1), np.zeros((len(rows), len(directions)))
    return route


@torch.no_grad()
def steer_through_model(
    model: Any,
    sae: Any,
    rows: Sequence[int] | np.ndarray,
    latent: int,
    multiplier: float,
    *,
    use_error_term: bool = True,
    batch_size: int = 256,
) -> Float64[np.ndarray, "n_rows n_classes"]:
    """Change of the model's class probabilities for each row when one latent is multiplied.

    Args:
        model: a `HookedMemeCLIP` with a classifier and a source of rows.
        sae: the SAE to attach at its `hook_name`; it is taken off again.
        latent, multiplier: z_f <- multiplier * z_f, 0 for ablation.

    Raises:
        DataError: the SAE has no such latent.
    """
    if not 0 <= latent < sae.cfg.d_sae:
        raise DataError(f"latent {latent} is outside 0..{sae.cfg.d_sae - 1}")

    def scale(acts: Tensor, hook: Any) -> Tensor:
        acts = acts.clone()
        acts[..., latent] *= multiplier
        return acts

    edit = (f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post", scale)
    changes = []
    with model.saes(saes=[sae], use_error_term=use_error_term):
        for start in range(0, len(rows), batch_size):
            tokens = torch.as_tensor(np.asarray(rows[start : start + batch_size])).unsqueeze(1)
            steered = _probabilities(model.run_with_hooks(tokens, return_type="logits", fwd_hooks=[edit]))
            changes.append(steered - _probabilities(model(tokens, return_type="logits")))
    return np.concatenate(changes) if changes else np.empty((0, 0))


def head_of(model: Any) -> CosineHead | Probe:
    """The classifier of a `HookedMemeCLIP`, frozen, for `Influence(heads=[...])`.

    Raises:
        DataError: the model has no classifier.
    """
    if model.heads is not None:
        linear, classifier = model.heads.pre_output[1], model.heads.classifier
        weights = (_array(linear.weight), _array(linear.bias), _array(classifier.weight))
        return CosineHead(str(model.task), tuple(model.classes), *weights, scale=float(classifier.SCALE))
    if model.linear_head is not None:
        weight, bias = _array(model.linear_head.weight), _array(model.linear_head.bias)
        return Probe(str(model.task), tuple(model.classes), weight, bias)
    raise DataError("this model has no classifier; fit one with fit_head, or train MemeCLIP's heads")


def _probabilities(logits: Float[Tensor, "batch 1 n_classes"]) -> Float64[np.ndarray, "batch n_classes"]:
    return rearrange(logits.double().softmax(-1), "b 1 c -> b c").cpu().numpy()


def _array(weight: Tensor) -> Float64[np.ndarray, "..."]:
    return weight.detach().double().cpu().numpy()
