"""Which memes are measured."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError


def measured_rows(embeddings: Embeddings, which: str = "held_out") -> tuple[Int[np.ndarray, " rows"], str]:
    """Rows, ascending, and what to call them: test rows, else validation rows, else all; with "all" all of them.

    Raises:
        ConfigError: `which` is neither.
    """
    require_which(which)
    split, rows = embeddings.held_out()
    if which == "all" or split is None:
        return np.arange(len(embeddings)), "all rows" if which == "all" else "all rows (none are held out)"
    return rows, f"{split} rows"


def require_which(which: str) -> None:
    """Raises ConfigError unless it is one of the two."""
    if which not in ("held_out", "all"):
        raise ConfigError(f"rows={which!r}; give 'held_out' or 'all'")


def name_of_held_out(split: str | None) -> str:
    """What printed text calls the rows of `Embeddings.held_out` and of tasks."""
    if split == "test":
        return "held-out memes"
    return "validation memes (none are test memes)" if split else "no memes are held out"
