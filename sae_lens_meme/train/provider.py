"""The stream of training batches: epochs, shuffled, without end, at a position that can be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int

Batch = TypeVar("Batch")


class EpochShuffle(Generic[Batch], Iterator[Batch]):
    """Endless full batches; each epoch visits every row once, in an order that depends on (seed, epoch) only.

    The permutations of successive epochs form one stream that is cut into batches, so that the number
    of samples served is the whole state. SAELens' own cached reader restarts at row 0 and serves
    ragged batches, which corrupt its L0.
    """

    def __init__(self, fetch: Callable[[np.ndarray], Batch], rows: Int[np.ndarray, "n"], batch_size: int, seed: int):
        self._fetch = fetch
        self._rows = np.asarray(rows)
        self._batch_size = batch_size
        self._seed = seed
        self._orders: dict[int, np.ndarray] = {}
        self.n_served = 0

    def __next__(self) -> Batch:
        rows = self.rows_at(self.n_served)
        self.n_served += self._batch_size
        return self._fetch(rows)

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
            self._orders = latest | {epoch: generator.permutation(self._rows)}
        return self._orders[epoch]
