"""Where activations come from: stored embeddings, a live model, or the shuffled control, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.progress import progress_bar

Source = Callable[[np.ndarray], Tensor]
"""Row numbers [n] -> activations float32 [n, d_in]."""

STD_FLOOR = 1e-6  # InterVLM's clamp; a constant dimension is then 0 after standardisation
_CHUNK = 4096


def stored(embeddings: Embeddings, hook: str) -> Source:
    """Activations from the column `hook`."""
    embeddings.d_in(hook)  # names the hooks there are, if it is none of them
    return lambda rows: torch.from_numpy(embeddings.take(hook, rows))


def live(model: Any, hook: str, chunk: int = 64) -> Source:
    """Activations of `model` at `hook`, computed when asked for, `chunk` memes a forward pass."""

    @torch.no_grad()
    def activations(rows: np.ndarray) -> Tensor:
        parts = []
        for start in range(0, len(rows), chunk):
            tokens = torch.from_numpy(np.asarray(rows[start : start + chunk], dtype=np.int64))[:, None]
            _, cache = model.run_with_cache(tokens, names_filter=[hook], return_type=None)
            parts.append(_one_position(cache[hook], hook).float().cpu())
        return torch.cat(parts)

    return activations


def _one_position(x: Float[Tensor, "batch positions d"], hook: str) -> Float[Tensor, "batch d"]:
    """An SAE of one position of several would be spliced into all of them."""
    if x.shape[1] != 1:
        raise ConfigError(
            f"train.hook_name is {hook!r}, which has {x.shape[1]} positions a meme (patches or tokens); "
            "SAEs are trained on hooks with one, such as hook_image_embed, hook_text_embed and hook_fused"
        )
    return x[:, 0]


def in_memory(source: Source, rows: Int[np.ndarray, "n"]) -> Source:
    """A copy of these rows, for rows that are read again and again from a slow source."""
    values, position = source(rows), {int(row): i for i, row in enumerate(rows)}
    return lambda wanted: values[[position[int(row)] for row in wanted]]


def shuffled(source: Source, rows: Int[np.ndarray, "n"], seed: int) -> Source:
    """The control: each dimension of these rows permuted on its own, other rows as they are.

    Every dimension keeps its distribution and all dependence between dimensions is gone. Holds a copy
    of the rows in memory.
    """
    values = source(rows).numpy()
    for dimension in range(values.shape[1]):
        order = np.random.Generator(np.random.PCG64([seed, dimension])).permutation(len(rows))
        values[:, dimension] = values[order, dimension]
    position = np.full(int(rows.max()) + 1, -1)
    position[rows] = np.arange(len(rows))

    def activations(wanted: np.ndarray) -> Tensor:
        at = np.where(wanted < len(position), position[np.minimum(wanted, len(position) - 1)], -1)
        if (at >= 0).all():
            return torch.from_numpy(values[at])
        if (at < 0).all():
            return source(wanted)
        raise DataError("a batch mixes rows of the shuffled control with other rows")

    return activations


@dataclass(frozen=True)
class Statistics:
    """Mean and std (n - 1 in the denominator, at least 1e-6) of each dimension over the training rows, float64."""

    mean: Float[np.ndarray, "d_in"]
    std: Float[np.ndarray, "d_in"]


def statistics(
    source: Source, rows: Int[np.ndarray, "n"], describe: Callable[[int], str], show: bool = True
) -> Statistics:
    """One pass over all training rows.

    Args:
        describe: names a row in an error message.

    Raises:
        NonFiniteError: a row holds NaN or infinity.
    """
    count, mean, squares = 0, np.float64(0), np.float64(0)
    with progress_bar("Statistics of the training rows", len(rows), show=show) as advance:
        for part, batch in finite_batches(source, rows, describe):
            values = batch.double().numpy()
            delta = values.mean(0) - mean  # Chan, Golub and LeVeque's update: no cancellation
            squares = squares + values.var(0) * len(part) + delta**2 * (count * len(part) / (count + len(part)))
            mean = mean + delta * (len(part) / (count + len(part)))
            count += len(part)
            advance(len(part))
    return Statistics(np.asarray(mean), np.maximum(np.sqrt(squares / (count - 1)), STD_FLOOR))


def finite_batches(
    source: Source, rows: Int[np.ndarray, "n"], describe: Callable[[int], str]
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Batches of `(rows, activations)`; stops at the first row that is not finite and names it."""
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        values = source(part)
        bad = (~torch.isfinite(values).all(dim=1)).nonzero()
        if len(bad):
            row = int(part[int(bad[0])])
            raise NonFiniteError(f"{describe(row)} holds NaN or infinity; embed it again or leave it out")
        yield part, values
