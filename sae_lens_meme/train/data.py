"""Which rows train and which validate, where their activations come from, and in which order they are served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.standardize import Moments, moments

Source = Callable[[np.ndarray], Tensor]
"""Row numbers [n] -> activations float32 [n, d_in]."""
Batch = TypeVar("Batch")

_CHUNK = 4096
_BLOCK, _BLOCKS = 1024, 16
"""Rows that are read together (3 MB of float32 at 768 dimensions), and the fewest blocks that a buffer mixes."""
_LARGEST, _SMALLEST = 1e17, 1e-17  # SAEs are trained in float32, in which squares beyond these overflow or vanish


@dataclass
class TrainingData:
    """Rows and activations of one training run. Make it with `open_data`."""

    embeddings: Embeddings
    train_rows: Int[np.ndarray, "n_train"]
    validation_rows: Int[np.ndarray, "n_validation"]
    """Rows that are monitored and that early stopping looks at; may be none. Test rows are never read."""
    sources: dict[str, Source]  # by hook
    d_in: dict[str, int]  # by hook
    live: bool
    moments: dict[str, Moments] = field(default_factory=dict)  # of the training rows by hook, filled by `prepare`

    def prepare(self, *, shuffle_seed: int | None = None, show: bool = True) -> None:
        """Read everything once: mean and std, bad rows, and the shuffled control if a seed is given.

        Raises:
            NonFiniteError: names the first row with NaN or infinity.
            DataError: a value is too large for float32, or the training rows do not vary.
        """
        for hook, source in dict(self.sources).items():
            with progress_bar("Statistics of the training rows", len(self.train_rows), show=show) as advance:
                self.moments[hook] = moments(self._checked(hook, self.train_rows, advance))
            self._require_variation(hook)
            if shuffle_seed is not None:
                self.sources[hook] = shuffled(source, self.train_rows, shuffle_seed)
            if self.live and len(rows := self.validation_rows):  # read at each epoch: not through the towers again
                self.sources[hook] = _replaced(self.sources[hook], rows, source(rows))
            for _ in self._checked(hook, self.validation_rows):
                pass

    def _checked(self, hook: str, rows: np.ndarray, advance: Callable[[int], object] = int) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            values = self.sources[hook](part).numpy()
            if len(bad := np.flatnonzero(~np.isfinite(values).all(axis=1))):
                raise NonFiniteError(
                    f"{self._name(int(part[bad[0]]), hook)} holds NaN or infinity; embed it again or leave it out"
                )
            if len(bad := np.flatnonzero((np.abs(values) > _LARGEST).any(axis=1))):
                raise DataError(
                    f"{self._name(int(part[bad[0]]), hook)} holds {np.abs(values[bad[0]]).max():.3g}, the square of which "
                    "overflows float32; scale the embeddings down or leave it out"
                )
            yield values
            advance(len(part))

    def _require_variation(self, hook: str) -> None:
        where = f"{self._where}, {hook}: the {len(self.train_rows):,} training rows"
        _, std, dead = self.moments[hook]
        if dead.all():
            raise DataError(f"{where} are all alike, so there is nothing to learn; check the model or the arrays")
        if std.max() < _SMALLEST:
            raise DataError(
                f"{where} vary by only {std.max():.3g}, the square of which is 0 in float32; scale the embeddings up"
            )

    def _name(self, row: int, hook: str) -> str:
        identifier = f' (id "{self.embeddings.ids[row]}")' if "id" in self.embeddings.dataset.column_names else ""
        return f"{self._where}, row {row}{identifier}, {hook}"

    @property
    def _where(self) -> str:
        return str(self.embeddings.path or "embeddings")


def open_data(embeddings: Embeddings, hooks: list[str], *, model: Any = None, chunk: int = 64) -> TrainingData:
    """Find rows and sources; nothing is read yet except one row of a live model.

    Args:
        embeddings: ids and splits, and the activations unless `model` gives them.
        model: a HookedRootModule that takes row numbers (batch, 1), for live activations.
        chunk: memes in one forward pass of `model`.

    Raises:
        ConfigError: the embeddings have no such hook.
        DataError: fewer than two training rows.
    """
    train_rows, validation_rows = embeddings.rows("train"), embeddings.rows("validation")
    if len(train_rows) < 2:
        raise DataError(
            f"{embeddings.path or 'embeddings'}: {len(train_rows)} rows of split 'train', training needs at least 2"
        )
    if model is not None:
        _require_hooks(hooks, [str(name) for name in model.hook_dict], "the model")
        sources = {hook: live(model, hook, chunk) for hook in hooks}
        d_in = {hook: source(train_rows[:1]).shape[-1] for hook, source in sources.items()}
    else:
        _require_hooks(hooks, embeddings.hooks, str(embeddings.path or "embeddings"))
        sources = {hook: stored(embeddings, hook) for hook in hooks}
        d_in = {hook: embeddings.d_in(hook) for hook in hooks}
    return TrainingData(embeddings, train_rows, validation_rows, sources, d_in, model is not None)


def _require_hooks(hooks: list[str], known: Any, where: str) -> None:
    for hook in hooks:
        if hook not in known:
            raise ConfigError(f"train.hook_name is {hook!r}, {where} has {', '.join(known) or 'no hooks'}")


def stored(embeddings: Embeddings, hook: str) -> Source:
    """Activations from the column `hook`."""
    return lambda rows: torch.from_numpy(embeddings.take(hook, rows))


def live(model: Any, hook: str, chunk: int = 64) -> Source:
    """Activations of `model` at `hook`, computed on demand, `chunk` memes per forward pass."""

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
            "add keep: [image] or keep: [text], or train on a hook with one: hook_image_embed, hook_text_embed, hook_fused"
        )
    return x[:, 0]


def shuffled(source: Source, rows: Int[np.ndarray, "n"], seed: int) -> Source:
    """The control: each dimension of these rows (ascending) permuted on its own, other rows as they are.

    Every dimension keeps its distribution and all dependence between dimensions is gone. Holds a copy
    of the rows in memory.
    """
    values = source(rows).numpy()
    for dimension in range(values.shape[1]):
        order = np.random.Generator(np.random.PCG64([seed, dimension])).permutation(len(rows))
        values[:, dimension] = values[order, dimension]
    return _replaced(source, rows, torch.from_numpy(values))


def _replaced(source: Source, rows: Int[np.ndarray, "n"], values: Tensor) -> Source:
    """These values for these rows (ascending); a batch is of such rows or of others, which come from the source."""

    def activations(wanted: np.ndarray) -> Tensor:
        at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
        known = rows[at] == wanted
        if known.all():
            return values[at]
        if known.any():
            raise DataError("a batch mixes rows that were read before with other rows")
        return source(wanted)

    return activations


class EpochShuffle(Generic[Batch], Iterator[Batch]):
    """Endless full batches; each epoch visits every row once, in an order that depends on (seed, epoch) only.

    The permutations of successive epochs form one stream that is cut into batches, so that the number
    of samples served is the whole state. SAELens' own cached reader restarts at row 0 and serves
    ragged batches, which corrupt its L0.
    """

    def __init__(
        self,
        fetch: Callable[[np.ndarray], Batch],
        rows: Int[np.ndarray, "n"],
        batch_size: int,
        seed: int,
        buffer: int | None = None,
    ):
        self._fetch = fetch
        self._rows = np.asarray(rows)
        self._batch_size = batch_size
        self._seed = seed
        self._buffer = buffer
        self._orders: dict[int, np.ndarray] = {}
        self.n_served = 0

    def __next__(self) -> Batch:
        rows = self.rows_at(self.n_served)
        self.n_served += self._batch_size
        return self._fetch(rows)

    def take_back(self) -> None:
        """Serve the latest batch once more."""
        self.n_served -= self._batch_size

    def rows_at(self, position: int) -> Int[np.ndarray, "batch"]:
        """The rows of the batch that starts at this position of the stream."""
        epoch, start = divmod(position, len(self._rows))
        parts, missing = [], self._batch_size
        while missing:
            part = self._order(epoch)[start : start + missing]
            parts.append(part)
            missing, epoch, start = missing - len(part), epoch + 1, 0
        return np.concatenate(parts)

    def state_dict(self) -> dict[str, Any]:
        return {"n_served": self.n_served, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n_served = int(state["n_served"])
        self._seed = int(state["seed"])
        self._orders.clear()

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch])))
            latest = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders = latest | {epoch: permuted(self._rows, generator, self._buffer)}
        return self._orders[epoch]


def permuted(
    rows: Int[np.ndarray, "n"], generator: np.random.Generator, buffer: int | None = None
) -> Int[np.ndarray, "n"]:
    """These rows in an order at random; with a buffer blocks of neighbours are, and `buffer` rows at a time are mixed.

    Whoever reads them in this order reads the disk in blocks, of which so many as fill the buffer are in memory.
    """
    if buffer is None or buffer >= len(rows):
        return generator.permutation(rows)
    block = max(1, min(_BLOCK, buffer // _BLOCKS))
    blocks = np.array_split(rows, range(block, len(rows), block))
    order = np.concatenate([blocks[i] for i in generator.permutation(len(blocks))])
    for start in range(0, len(order), buffer):
        order[start : start + buffer] = generator.permutation(order[start : start + buffer])
    return order
