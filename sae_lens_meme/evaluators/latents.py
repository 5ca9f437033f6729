"""The latents of n memes as padded pairs (index, value), the form that every evaluator reads.

A dense n x d_sae array never exists; memory is O(n x k).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import sparse
from torch import Tensor

from sae_lens_meme.device import filled
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError, StorageError
from sae_lens_meme.evaluators.scaled import require_maps_to_itself
from sae_lens_meme.hook_columns import require_finite
from sae_lens_meme.metrics.directions import unit_rows
from sae_lens_meme.storage import atomic_file


@dataclass(frozen=True, eq=False)
class Latents:
    """Active latents of n memes; k is the largest number of active latents of any of them.

    Rows with fewer than k active latents are padded with value 0 at index 0. Within a row the
    active latents come in ascending order.

    Raises:
        DataError: shapes differ, an index is outside `0..d_sae-1`, or an activation is negative.
    """

    indices: Int32[np.ndarray, "n k"]
    values: Float32[np.ndarray, "n k"]
    d_sae: int

    def __post_init__(self) -> None:
        if self.indices.shape != self.values.shape or self.indices.ndim != 2:
            raise DataError(f"latents: indices {self.indices.shape} and values {self.values.shape} must be one [n, k]")
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < self.d_sae:
            wrong = self.indices.min() if self.indices.min() < 0 else self.indices.max()
            raise DataError(f"latents: index {wrong} is outside 0..{self.d_sae - 1}")
        if self.values.size and not self.values.min() >= 0:
            raise DataError(f"latents: activation {self.values.min()} is negative or NaN; latents are 0 or more")

    @classmethod
    def from_csr(cls, matrix: Any) -> Latents:
        """From a sparse matrix [n, d_sae]; explicit zeros are dropped."""
        matrix = sparse.csr_matrix(matrix, dtype=np.float32, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return cls.from_active([Active(np.diff(matrix.indptr), matrix.indices, matrix.data)], int(matrix.shape[1]))

    @classmethod
    def from_active(cls, parts: Iterable[Active], d_sae: int, size: tuple[int, int] | None = None) -> Latents:
        """The memes of all parts, in their order.

        Args:
            size: how many memes there are, and the most latents that are active on one, where that is known: then
                the parts need not be there at once.
        """
        return cls(*_padded(parts, size), d_sae)

    @classmethod
    def concatenate(cls, parts: Sequence[Latents]) -> Latents:
        """The memes of all parts, in their order.

        Raises:
            DataError: the parts are of SAEs of different width.
        """
        if len(widths := {part.d_sae for part in parts}) != 1:
            raise DataError(f"latents cannot be joined: d_sae is {', '.join(map(str, sorted(widths)))}; take one SAE")
        if len(parts) == 1:
            return parts[0]
        k = max(part.indices.shape[1] for part in parts)
        indices, values = (
            np.vstack([np.pad(array, ((0, 0), (0, k - array.shape[1]))) for array in arrays])
            for arrays in ([part.indices for part in parts], [part.values for part in parts])
        )
        return cls(indices, values, parts[0].d_sae)

    @property
    def n_samples(self) -> int:
        return len(self.indices)

    @cached_property
    def l0(self) -> Int[np.ndarray, " n"]:
        """Active latents of each meme."""
        return np.count_nonzero(self.values, axis=1)

    def csr(self) -> sparse.csr_matrix:
        """float32 [n, d_sae], without explicit zeros, sorted; shared: do not change it."""
        return self._csr

    def csc(self) -> sparse.csc_matrix:
        """The same by latent: rows of a latent are ascending."""
        return self._csc

    def rows(self, rows: np.ndarray) -> Latents:
        """The latents of these memes, in this order."""
        return Latents(self.indices[rows], self.values[rows], self.d_sae)

    def save(self, path: str | Path) -> None:
        """Write `indices` and `values` as safetensors, with `d_sae` in the metadata."""
        tensors = {"indices": np.ascontiguousarray(self.indices), "values": np.ascontiguousarray(self.values)}
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata={"d_sae": str(self.d_sae)})

    @classmethod
    def load(cls, path: str | Path) -> Latents:
        """Read what `save` wrote.

        Raises:
            StorageError: the file is not there, is damaged, or holds something else.
        """
        try:
            with safe_open(str(path), framework="pt") as file:  # maps the file; "numpy" would copy it twice
                d_sae = int((file.metadata() or {})["d_sae"])
                return cls(file.get_tensor("indices").numpy(), file.get_tensor("values").numpy(), d_sae)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise StorageError(f"{path}: is not a file of latents ({error}); write it again with `evaluate`") from None

    @cached_property
    def _csr(self) -> sparse.csr_matrix:
        indptr = np.concatenate([[0], np.cumsum(self.l0)])
        if indptr[-1] == self.values.size:  # no row is padded: the same memory, which may be a file's or all workers'
            data = (self.values.reshape(-1), self.indices.reshape(-1), indptr)
        else:
            active = self.values != 0
            data = (self.values[active], self.indices[active], indptr)
        return sparse.csr_matrix(data, shape=(self.n_samples, self.d_sae))

    @cached_property
    def _csc(self) -> sparse.csc_matrix:
        return sparse.csc_matrix(self._csr)


BATCH = 512
"""Vectors that an SAE encodes at once. BLAS adds in a different order when the number of rows differs, so that the last
bit of a latent depends on it: the last batch is filled up."""


SHARD = 16 * BATCH
"""Memes that a worker encodes at once. Whole batches: the bits are those of one process."""


class Active(NamedTuple):
    """The active latents of some memes: how many each has, then columns and values, meme by meme."""

    counts: Int[np.ndarray, " n"]
    columns: Int32[np.ndarray, " active"]
    values: Float32[np.ndarray, " active"]

    @classmethod
    def concatenate(cls, parts: Iterable[Active]) -> Active:
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def encode(
    sae: Any,
    embeddings: Embeddings,
    hook: str | None = None,
    rows: np.ndarray | None = None,
    batch_size: int = BATCH,
) -> Latents:
    """The latents of the memes `rows` (default all), in that order.

    Args:
        sae: any SAELens SAE or training SAE. It is put into `eval` mode and back.
        hook: the column to read, default `sae.cfg.metadata.hook_name`.

    Raises:
        DataError: the SAE's d_in is not the width of the embeddings, or there is no such hook.
        ModelError: as `require_maps_to_itself`.
        NonFiniteError: an embedding or an activation is NaN or infinite; the message names the meme.
    """
    return joined(encode_batches(require_maps_to_itself(sae), embeddings, hook, rows, batch_size), sae)


def joined(parts: Iterable[Active], sae: Any) -> Latents:
    """The memes of all parts, in their order."""
    return Latents.from_active(parts, int(sae.cfg.d_sae))


@torch.no_grad()
def encode_batches(
    sae: Any,
    embeddings: Embeddings,
    hook: str | None = None,
    rows: np.ndarray | None = None,
    batch_size: int = BATCH,
) -> Iterator[Active]:
    """As `encode`, batch by batch."""
    hook = hook_of(sae, embeddings, hook)
    if embeddings.d_in(hook) != sae.cfg.d_in:
        raise DataError(
            f"{hook} has {embeddings.d_in(hook)} dimensions, the SAE has d_in {sae.cfg.d_in}; "
            "give an SAE that was trained on this hook, or its hook"
        )
    with eval_mode(sae):
        for batch_rows, batch in embeddings.batches(hook, rows, batch_size):
            require_finite(batch, hook, embeddings.ids, batch_rows)
            x = filled(torch.from_numpy(batch), batch_size).to(sae.device)
            active = _active(sae.encode(x.to(sae.dtype))[: len(batch)])
            _require_finite_latents(active, batch_rows, embeddings)
            yield active


@torch.no_grad()
def encode_vector(sae: Any, vector: Float[np.ndarray, " d_in"]) -> Latents:
    """The latents of one vector, bit for bit those that `encode` gives it: the vector is repeated to fill a whole batch."""
    with eval_mode(sae):
        x = filled(torch.from_numpy(np.asarray(vector)[None]), BATCH).to(sae.device)
        return joined([_active(sae.encode(x.to(sae.dtype)))], sae).rows(np.arange(1))


@torch.no_grad()
def decoder_rows(sae: Any) -> Float64[np.ndarray, "d_sae d_in"]:
    """What one unit of each latent adds to the embedding: d decode(z) / d z_f.

    W_dec for most SAEs, W_dec over its norms where activations are rescaled by them; any other
    SAE whose decoder is affine is asked latent by latent.

    Raises:
        DataError: the SAE normalises each sample at run time, so that there is no such row.
        NonFiniteError: a weight of the decoder is NaN or infinite.
    """
    if normalises_at_run_time(sae):
        raise DataError(
            f"this SAE uses normalize_activations={sae.cfg.normalize_activations!r}: its decoder has no fixed rows"
        )
    d_sae = int(sae.cfg.d_sae)
    some = np.unique(np.linspace(0, d_sae - 1, 8).astype(int))
    asked = _asked(sae, some)
    W_dec = sae.W_dec.detach().double().cpu().numpy()
    if not np.isfinite(W_dec).all():
        latent = int(np.flatnonzero(~np.isfinite(W_dec).all(axis=1))[0])
        raise NonFiniteError(f"latent {latent}: its row of W_dec has NaN or infinity; train the SAE again")
    for scaled in (np.asarray, unit_rows):
        rows = scaled(W_dec)
        if rows.shape[1] == asked.shape[1] and np.allclose(
            rows[some], asked, rtol=1e-4, atol=1e-4 * np.abs(asked).max()
        ):
            return rows
    return np.concatenate([_asked(sae, np.arange(a, min(a + 1024, d_sae))) for a in range(0, d_sae, 1024)])


def decoder_rows_or_none(sae: Any) -> Float64[np.ndarray, "d_sae d_in"] | None:
    """None where the SAE normalises each meme at run time, so that a latent has no one direction."""
    return None if normalises_at_run_time(sae) else decoder_rows(sae)


def _asked(sae: Any, latents: Sequence[int] | np.ndarray) -> Float64[np.ndarray, "n d_in"]:
    z = torch.zeros(len(latents) + 1, int(sae.cfg.d_sae), device=sae.device, dtype=sae.dtype)
    z[torch.arange(len(latents)), torch.as_tensor(np.asarray(latents))] = 1
    out = sae.decode(z).double().cpu().numpy()
    return out[:-1] - out[-1]


def normalises_at_run_time(sae: Any) -> bool:
    return getattr(sae.cfg, "normalize_activations", "none") in ("layer_norm", "constant_norm_rescale")


def hook_of(sae: Any, embeddings: Embeddings, hook: str | None = None) -> str:
    """`hook`, else the hook the SAE was trained on, else the only hook of the embeddings."""
    hook = hook or sae.cfg.metadata.hook_name
    if hook is None and len(embeddings.hooks) == 1:
        return embeddings.hooks[0]
    if hook is None:
        raise ConfigError(f"the SAE names no hook_name; give hook=, one of {', '.join(embeddings.hooks) or 'none'}")
    return hook


@contextmanager
def eval_mode(sae: Any) -> Iterator[None]:
    """Put the SAE into `eval` mode and leave it as it was found, even after an exception."""
    training = sae.training
    sae.eval()
    try:
        yield
    finally:
        sae.train(training)


def require_latents_of(latents: Latents, embeddings: Embeddings) -> None:
    """Raises DataError unless there is one row of latents for each meme."""
    if not isinstance(latents, Latents):
        raise DataError(f"latents: a {type(latents).__name__} is given; encode(sae, embeddings) makes Latents")
    if latents.n_samples != len(embeddings):
        raise DataError(
            f"the latents are of {latents.n_samples} memes, the embeddings of {len(embeddings)}; encode these embeddings"
        )


def _active(acts: Tensor) -> Active:
    if acts.is_sparse:  # training SAEs with use_sparse_activations
        acts = acts.coalesce()
        (rows, columns), values = acts.indices(), acts.values()
        keep = values != 0
        rows, columns, values = rows[keep], columns[keep], values[keep]
    else:
        rows, columns = acts.nonzero(as_tuple=True)
        values = acts[rows, columns]
    counts = torch.bincount(rows, minlength=len(acts))
    return Active(counts.cpu().numpy(), columns.int().cpu().numpy(), values.float().cpu().numpy())


def _padded(parts: Iterable[Active], size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Each part is let go once it is copied: what is made takes the memory of what it is made from."""
    if size is None:
        parts = deque(parts)
        size = sum(len(part.counts) for part in parts), max((_most(part) for part in parts), default=0)
    indices, values, row, most = np.zeros(size, np.int32), np.zeros(size, np.float32), 0, 0
    for part in _drained(parts):
        rows, filled = slice(row, row := row + len(part.counts)), np.arange(size[1]) < part.counts[:, None]
        indices[rows][filled], values[rows][filled] = part.columns, part.values
        most = max(most, _most(part))
    return (indices, values) if most == size[1] else (indices[:, :most].copy(), values[:, :most].copy())


def _most(part: Active) -> int:
    return int(part.counts.max(initial=0))


def _drained(parts: Iterable[Active]) -> Iterator[Active]:
    while isinstance(parts, deque) and parts:
        yield parts.popleft()
    yield from parts


def _require_finite_latents(active: Active, rows: np.ndarray, embeddings: Embeddings) -> None:
    bad = np.flatnonzero(~np.isfinite(active.values))
    if len(bad):
        row = rows[np.searchsorted(np.cumsum(active.counts), bad[0], side="right")]
        raise NonFiniteError(
            f"latents, row {row} (id {str(embeddings.ids[row])!r}): the SAE gives NaN or infinity for a finite "
            "embedding; its weights are damaged or the embedding is far too large"
        )
