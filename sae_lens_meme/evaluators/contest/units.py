"""The SAE's rivals: directions of the embedding, dense and at equal sparsity, and other dictionaries."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8
from scipy.linalg import LinAlgError, LinAlgWarning, lstsq, solve

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.controls import Fitted, SharedDirections, activations
from sae_lens_meme.evaluators.latents import Latents, decoder_rows
from sae_lens_meme.metrics.ranking import Ranked, auroc
from sae_lens_meme.metrics.threads import in_threads
from sae_lens_meme.standardize import Moments

COLUMNS_AT_ONCE, ROWS_AT_ONCE = 64, 4096
KINDS = ("neurons", "pca", "ica", "random")


@dataclass(frozen=True, eq=False)
class Units:
    """Activations of n memes, and what one unit of each adds to the z-scored embedding."""

    name: str
    values: Any
    """float32 [n, units]: CSC and 0 or more where few fire, else an array of directions with both signs."""
    decoder: Float64[np.ndarray, "units d_in"] | None
    """None where the dictionary has no fixed directions."""
    doubt: str | None = None
    """What to distrust in how it was fitted."""

    @property
    def dense(self) -> bool:
        """Every direction has a value on every meme, and is read with either sign."""
        return isinstance(self.values, np.ndarray)

    def take(self, units: Sequence[int] | np.ndarray) -> Float64[np.ndarray, "n chosen"]:
        chosen = self.values[:, np.asarray(units, dtype=np.int64)]
        return np.asarray(chosen if self.dense else chosen.toarray(), dtype=np.float64)

    def sums(self, weights: Float64[np.ndarray, "n columns"], power: int = 1) -> Float64[np.ndarray, "units columns"]:
        """Of the activations, or of their squares, over memes with these weights."""
        if not self.dense:
            values = self.values if power == 1 else self.values.power(power)
            return np.asarray(values.astype(np.float64).T @ weights)
        total = np.zeros((self.values.shape[1], weights.shape[1]))
        for start in range(0, len(weights), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            total += (self.values[block].astype(np.float64) ** power).T @ weights[block]
        return total

    def auroc(
        self, codes: UInt8[np.ndarray, "n targets"], strata: Int[np.ndarray, " n"], rows: np.ndarray
    ) -> Float64[np.ndarray, "units targets"]:
        """Of every unit for every target on these memes, within strata; NaN without both classes."""
        if not self.dense:
            only = np.zeros_like(codes)
            only[rows] = codes[rows]
            return auroc(Ranked.of(self.values), only, strata).value
        codes, strata = codes[rows], strata[rows]
        width = self.values.shape[1]
        blocks = [np.arange(a, min(a + COLUMNS_AT_ONCE, width)) for a in range(0, width, COLUMNS_AT_ONCE)]
        found = in_threads(lambda block: auroc(ranked(self.values[np.ix_(rows, block)]), codes, strata).value, blocks)
        return np.concatenate(found)


def ranked(columns: Float[np.ndarray, "n columns"]) -> Ranked:
    """Every meme of each column in descending order."""
    n, width = columns.shape
    order = np.argsort(-columns, axis=0, kind="stable")
    values = np.take_along_axis(columns, order, axis=0).T.ravel()
    return Ranked(np.arange(width + 1) * n, order.T.ravel().astype(np.int32), np.ascontiguousarray(values))


def of_dictionary(name: str, sae: Any, latents: Latents, moments: Moments) -> Units:
    """An SAE's latents."""
    try:
        decoder = decoder_rows(sae) / moments.std
    except DataError:  # it normalises each meme at run time
        decoder = None
    return Units(name, latents.csc(), decoder)


def of_directions(
    kind: str,
    embeddings: Embeddings,
    hook: str,
    latents: Latents,
    moments: Moments,
    seed: int,
    fitted: SharedDirections | None = None,
) -> Iterator[Units]:
    """Dense, then with as many units firing on each meme as latents fire (`_k`).

    Dense `random` is a random rotation of the z-scored embedding; at equal sparsity it is as many random directions as
    there are latents.

    Raises:
        DataError: components of embeddings that do not vary.
    """
    fit = (fitted or SharedDirections()).fit
    if kind == "random":
        dense = _rotation(moments, seed)
        few = fit(embeddings, hook, "random_topk", seed, latents.d_sae)
    else:
        dense = few = fit(embeddings, hook, kind, seed, latents.d_sae)
    parts = [np.asarray(dense.transform(batch), np.float32) for _, batch in embeddings.batches(hook)]
    doubt = dense.doubt(kind.upper())
    yield Units(kind, np.concatenate(parts), _decoder(dense, moments), doubt)
    acts, decoder = activations(few, embeddings, hook, latents.l0), _decoder(few, moments)
    yield Units(f"{kind}_k", acts.csc(), np.vstack([decoder, -decoder]) if few.signed else decoder, doubt)


def _rotation(moments: Moments, seed: int) -> Fitted:
    drawn = np.random.default_rng(seed).standard_normal((len(moments.mean), len(moments.mean)))
    turned = np.linalg.qr(drawn)[0] / moments.std[:, None]
    return Fitted(lambda batch: (batch - moments.mean) @ turned, signed=True)


def _decoder(fitted: Fitted, moments: Moments) -> Float64[np.ndarray, "outputs d_in"]:
    """What one unit of each output adds to the z-scored embedding: the inverse of the transform.

    More outputs than dimensions have none; random directions are decoded by themselves, as a tied SAE is.
    """
    d_in = len(moments.mean)
    forth = np.asarray(fitted.transform(np.eye(d_in)) - fitted.transform(np.zeros((1, d_in))), np.float64)
    if forth.shape[1] > d_in:
        return (forth * moments.std[:, None]).T
    return _inverse(forth) / moments.std


def _inverse(x: Float64[np.ndarray, "rows columns"]) -> Float64[np.ndarray, "columns rows"]:
    """The pseudoinverse; that of a square matrix is its inverse where it has one, a twentieth of the time."""
    if x.shape[0] == x.shape[1]:
        with warnings.catch_warnings(), contextlib.suppress(LinAlgError, LinAlgWarning):
            warnings.simplefilter("error", LinAlgWarning)
            return solve(x, np.eye(len(x)))
    back: Any = lstsq(x, np.eye(len(x)), lapack_driver="gelsy")  # a tenth of the time of pinv
    return back[0]
