"""Which rows train, which are held out, and where their activations come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.train.source import Source, Statistics, finite_batches, in_memory, live, shuffled, statistics, stored


@dataclass
class TrainingData:
    """Rows and activations of one training run. Make it with `open_data`."""

    embeddings: Embeddings
    train_rows: Int[np.ndarray, "n_train"]
    heldout_rows: Int[np.ndarray, "n_heldout"]
    heldout_split: str | None  # validation, else test, else None
    sources: dict[str, Source]  # by hook
    d_in: dict[str, int]  # by hook
    live: bool
    statistics: dict[str, Statistics] = field(default_factory=dict)  # by hook, filled by `prepare`

    def prepare(self, *, shuffle_seed: int | None = None, show: bool = True) -> None:
        """Read everything once: statistics, bad rows, and the shuffled control if a seed is given.

        Raises:
            NonFiniteError: names the first row with NaN or infinity.
        """
        for hook, source in self.sources.items():
            self.statistics[hook] = statistics(
                source, self.train_rows, lambda row, hook=hook: self._name(row, hook), show
            )
            for _ in finite_batches(source, self.heldout_rows, lambda row, hook=hook: self._name(row, hook)):
                pass
            self._speed_up(hook, shuffle_seed)

    def _speed_up(self, hook: str, shuffle_seed: int | None) -> None:
        source = self.sources[hook]
        if shuffle_seed is not None:
            self.sources[hook] = shuffled(source, self.train_rows, shuffle_seed)
        if self.live and len(self.heldout_rows):  # read at each epoch: not through the towers again
            fast, heldout = in_memory(source, self.heldout_rows), set(self.heldout_rows.tolist())
            training = self.sources[hook]
            self.sources[hook] = lambda rows: fast(rows) if set(rows.tolist()) <= heldout else training(rows)

    def _name(self, row: int, hook: str) -> str:
        identifier = f' (id "{self.embeddings.ids[row]}")' if "id" in self.embeddings.dataset.column_names else ""
        return f"{self.embeddings.path or 'embeddings'}, row {row}{identifier}, {hook}"


def open_data(embeddings: Embeddings, hooks: list[str], *, model: Any = None, chunk: int = 64) -> TrainingData:
    """Find rows and sources; nothing is read yet but one row of a live model.

    Args:
        embeddings: ids and splits, and the activations unless `model` gives them.
        model: a HookedRootModule that takes row numbers (batch, 1), for live activations.
        chunk: memes in one forward pass of `model`.

    Raises:
        ConfigError: the embeddings have no such hook.
        DataError: fewer than two training rows.
    """
    train_rows = embeddings.rows("train")
    if len(train_rows) < 2:
        raise DataError(
            f"{embeddings.path or 'embeddings'}: {len(train_rows)} rows of split 'train', training needs at least 2"
        )
    heldout_split = next((split for split in ("validation", "test") if len(embeddings.rows(split))), None)
    if model is not None:
        _require_hooks(hooks, [str(name) for name in model.hook_dict], "the model")
        sources = {hook: live(model, hook, chunk) for hook in hooks}
        d_in = {hook: source(train_rows[:1]).shape[-1] for hook, source in sources.items()}
    else:
        _require_hooks(hooks, embeddings.hooks, str(embeddings.path or "embeddings"))
        sources = {hook: stored(embeddings, hook) for hook in hooks}
        d_in = {hook: embeddings.d_in(hook) for hook in hooks}
    heldout = embeddings.rows(heldout_split) if heldout_split else train_rows[:0]
    return TrainingData(embeddings, train_rows, heldout, heldout_split, sources, d_in, model is not None)


def _require_hooks(hooks: list[str], known: Any, where: str) -> None:
    for hook in hooks:
        if hook not in known:
            raise ConfigError(f"train.hook_name is {hook!r}, {where} has {', '.join(known) or 'no hooks'}")
