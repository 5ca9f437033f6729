"""Units that are not an SAE's: raw dimensions, principal and independent components, random directions with a TopK."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.decomposition import PCA, FastICA
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.decoding import memes_at_once
from sae_lens_meme.evaluators.latents import Active, Latents
from sae_lens_meme.standardize import moments

FIT_ROWS = 20_000
"""Components are fitted on at most this many train rows."""

ICA_COMPONENTS, ICA_ROWS, ICA_WORK = 256, 8_192, 30 * 256**2
"""FastICA unmixes at most the 256 leading principal components, on at most this many rows, in at most ICA_WORK / components^2
steps (30 of 256, 500 of 62 or fewer). Unmixing 768 components takes 17,000 rows and minutes; from 8,192 rows it overfits:
on held-out memes they are no less Gaussian than principal components. A step is a rotation of whitened directions, so
that those of a fit that stops at the limit have unit variance too."""


class Fitted(NamedTuple):
    """A fitted transform of embeddings; every output is one unit or, `signed`, two (positive and negative part)."""

    transform: Callable[[Float[np.ndarray, "batch d_in"]], Float[np.ndarray, "batch outputs"]]
    signed: bool
    steps: int | None = None
    """Of an iterative fit, and whether it converged."""
    converged: bool | None = None

    def doubt(self, name: str) -> str | None:
        """Says of an iterative fit that it stopped before it converged; None where there is nothing to say."""
        if self.converged is not False:
            return None
        return f"{name} did not converge in {self.steps:,} step{'s' * (self.steps != 1)}: its components are not independent yet"


def directions(
    embeddings: Embeddings,
    hook: str,
    l0: Int[np.ndarray, " n"],
    kind: str = "neurons",
    seed: int = 0,
    width: int | None = None,
) -> Latents:
    """Directions of the embedding as units, of which on each meme the `l0` with the largest activation fire.

    neurons, pca and ica are d directions of unit variance as 2 d units: unit j is the positive part of direction j,
    unit d + j the negative. random_topk are `width` random directions of the z-scored embedding, as a TopK SAE is
    initialised. Fitted on train rows (on all rows where there are none).

    Args:
        l0: how many units fire on each meme (fewer where fewer are above 0).
        kind: `neurons`, `pca`, `ica` or `random_topk`.
        width: units of random_topk, default 2 d_in.

    Raises:
        ConfigError: no such kind.
        DataError: components are wanted of embeddings that do not vary, or these are too large or too small to
            compute with.
    """
    return activations(fit_directions(embeddings, hook, kind, seed, width), embeddings, hook, l0)


def fit_directions(
    embeddings: Embeddings, hook: str, kind: str = "neurons", seed: int = 0, width: int | None = None
) -> Fitted:
    """The first half of `directions`, which raises the same. The order of the memes does not matter."""
    if kind not in FITS:
        raise ConfigError(f"directions {kind!r} is not one of {', '.join(FITS)}")
    rows = embeddings.rows("train") if len(embeddings.rows("train")) else np.arange(len(embeddings))
    rows = _at_most(FIT_ROWS, embeddings.by_id[np.isin(embeddings.by_id, rows)], seed)
    with _one_line_errors(f"{hook}: {kind} cannot be fitted"):
        return FITS[kind](embeddings.take(hook, rows), seed, width or 2 * embeddings.d_in(hook))


class SharedDirections:
    """Fits that several evaluators share, each made on first use."""

    def __init__(self) -> None:
        self._fits: dict[tuple[Any, ...], Fitted] = {}

    def fit(self, embeddings: Embeddings, hook: str, kind: str, seed: int, width: int) -> Fitted:
        """As `fit_directions`, which raises the same."""
        key = (embeddings.fingerprint, hook, kind, seed, width if kind == "random_topk" else None)
        if key not in self._fits:
            self._fits[key] = fit_directions(embeddings, hook, kind, seed, width)
        return self._fits[key]


def activations(fitted: Fitted, embeddings: Embeddings, hook: str, l0: Int[np.ndarray, " n"]) -> Latents:
    """The units of each meme that fire: the `l0` largest that are above 0."""

    def units(batch: np.ndarray) -> np.ndarray:
        with _one_line_errors(f"{hook}: no directions can be computed"):
            z = np.asarray(fitted.transform(batch), np.float32)
        return np.hstack([z, -z]) if fitted.signed else z

    width = units(embeddings.take(hook, [0])).shape[1]
    batches = embeddings.batches(hook, batch_size=memes_at_once(width, most=4096))
    size = len(l0), int(min(l0.max(initial=0), width))
    return Latents.from_active((_largest(units(batch), l0[rows]) for rows, batch in batches), width, size)


@contextmanager
def _one_line_errors(what: str) -> Iterator[None]:
    """Overflow, and what scikit-learn says about it, as one DataError; no warnings.

    Raises:
        DataError: `what`, and why.
    """
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether ICA converged is in `Fitted`
            yield
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    except (ArithmeticError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{what}: the embeddings are too large or too small to compute with ({reason})") from None


def _largest(size: Float[np.ndarray, "batch units"], l0: Int[np.ndarray, " batch"]) -> Active:
    k = int(min(l0.max(initial=0), size.shape[1]))
    values, indices = (part.numpy() for part in torch.from_numpy(size).topk(k, dim=1))
    fires = (np.arange(k) < l0[:, None]) & (values > 0)
    indptr = np.concatenate([[0], fires.sum(axis=1).cumsum()])
    active = sparse.csr_matrix((values[fires], indices[fires], indptr), shape=size.shape)
    active.sort_indices()
    return Active(np.diff(indptr), active.indices, active.data)


def _at_most(n: int, rows: np.ndarray, seed: int) -> np.ndarray:
    """`rows`, or n of them drawn without replacement."""
    return rows if len(rows) <= n else rows[np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False))]


def _neurons(x: np.ndarray, seed: int, width: int) -> Fitted:
    return Fitted(_scaler(x).transform, signed=True)


def _scaler(x: np.ndarray) -> Any:
    """z-scores, in which a dimension that does not vary stays small."""
    scaler: Any = StandardScaler().fit(x)
    found = moments([x])
    scaler.scale_ = np.where(found.dead, found.std, scaler.scale_)
    return scaler


def _require_variance(x: np.ndarray) -> None:
    if moments([x]).dead.all():
        raise DataError(f"the {len(x):,} embeddings do not vary")


def _pca(x: np.ndarray, seed: int, width: int) -> Fitted:
    _require_variance(x)
    return Fitted(PCA(whiten=True, random_state=seed).fit(x.astype(np.float64)).transform, signed=True)


def _ica(x: np.ndarray, seed: int, width: int) -> Fitted:
    _require_variance(x)
    x = _at_most(ICA_ROWS, x, seed)
    n = min(ICA_COMPONENTS, *x.shape)
    steps = min(ICA_WORK // n**2, 500)
    ica = FastICA(n, whiten="unit-variance", whiten_solver="eigh", max_iter=steps, random_state=seed)
    with threadpool_limits(1, user_api="blas"):  # two threads are slower on these sizes
        ica.fit(x)
    return Fitted(ica.transform, signed=True, steps=int(ica.n_iter_), converged=int(ica.n_iter_) < steps)


def _random_topk(x: np.ndarray, seed: int, width: int) -> Fitted:
    scaler = _scaler(x)
    drawn = np.random.default_rng(seed).standard_normal((x.shape[1], width), np.float32)
    encoder = drawn / np.linalg.norm(drawn, axis=0)
    return Fitted(lambda batch: scaler.transform(batch) @ encoder, signed=False)


FITS: dict[str, Callable[[np.ndarray, int, int], Fitted]] = {
    "neurons": _neurons,
    "pca": _pca,
    "ica": _ica,
    "random_topk": _random_topk,
}
"""From rows of embeddings, a seed and the width of random_topk."""
