"""Batches of a model's positions, mixed as SAELens mixes them, with a state that a checkpoint can hold.

SAELens' store keeps its mixing buffer in a generator, of which nothing can be saved, and counts rows of its
dataset one behind what it has read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import ActivationsStore
from torch import Tensor

from sae_lens_meme.train.session import replaced


class MixedPositions(Iterator[Tensor]):
    """What `store.get_data_loader()` serves, batch for batch: a test compares them."""

    def __init__(self, store: ActivationsStore):
        self._store = store
        self._chunks = store._iterate_filtered_activations()
        self._n_chunks = 0
        empty = torch.empty(0, store.d_in, device=store.device)
        self._held, self._ready, self._latest = empty, empty, empty

    @torch.no_grad()
    def __next__(self) -> Float[Tensor, "batch d_in"]:
        n = self._store.train_batch_size_tokens
        while len(self._ready) < n:
            self._refill(n)
        self._latest, self._ready = self._ready[:n], self._ready[n:]
        return self._latest

    def take_back(self) -> None:
        """Serve the latest batch once more."""
        self._ready = torch.cat([self._latest, self._ready])

    def _refill(self, batch: int) -> None:
        """Read one chunk; mix and serve once the buffer is full, but for the share that is mixed with the next."""
        size = self._store.n_batches_in_buffer * self._store.training_context_size
        share = self._store.activations_mixing_fraction
        held = torch.cat([self._held, next(self._chunks)])
        self._n_chunks += 1
        if len(held) < size:
            self._held = held
            return
        if share > 0:
            held = held[torch.randperm(len(held))]
        n = max(1, (len(held) - int(size * share)) // batch) * batch
        self._ready, self._held = held[:n], held[n:]

    def state_dict(self) -> dict[str, Any]:
        """Copies: a file of tensors takes none that share memory."""
        return {"n_chunks": self._n_chunks, "held": self._held.clone(), "ready": self._ready.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a new object: the dataset is read on to where it was, without the model."""
        store, device = self._store, self._store.device

        def tokens(raise_on_epoch_end: bool = False) -> Tensor:
            return store.get_batch_tokens(raise_at_epoch_end=raise_on_epoch_end, move_to_model_device=False)

        with replaced(store, "get_filtered_llm_batch", tokens):
            while self._n_chunks < state["n_chunks"]:
                next(self._chunks)
                self._n_chunks += 1
        self._held, self._ready = state["held"].to(device), state["ready"].to(device)
