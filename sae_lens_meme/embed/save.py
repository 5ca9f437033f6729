"""Embeddings that are in memory, written as `embed` writes them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.shards import Columns, write_dataset
from sae_lens_meme.storage import StepFolder

SHARD_SIZE = 4096


def save_embeddings(embeddings: Embeddings, out: str | Path, *, overwrite: bool = False) -> Embeddings:
    """Write the rows, and MemeCLIP's heads where the embeddings were fused with them.

    Returns:
        The embeddings of the folder.

    Raises:
        StorageError: other embeddings are there.
    """
    starts = range(0, len(embeddings), SHARD_SIZE)
    with StepFolder(out, "embed", {"saved": embeddings.fingerprint}, overwrite=overwrite) as folder:
        if not folder.complete:
            shards = [partial(_rows, embeddings, start) for start in starts]
            write_dataset(folder, embeddings.dataset.features, shards)
            heads = embeddings.path / HEADS if embeddings.path else None
            if heads is not None and heads.is_file():
                folder.write(HEADS, lambda path: shutil.copyfile(heads, path))
            folder.finish(**embeddings.facts)
    return Embeddings.load(out)


def _rows(embeddings: Embeddings, start: int) -> Columns:
    part = embeddings.dataset.with_format("numpy", columns=list(embeddings.hooks))[start : start + SHARD_SIZE]
    rest = embeddings.dataset.remove_columns(list(embeddings.hooks)).with_format(None)[start : start + SHARD_SIZE]
    return {**rest, **part}
