"""MemeCLIP's fused space: heads over cached tower embeddings, trained here where none are given."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from sae_lens_meme.embed.layout import FUSED, IMAGE_EMBED, TEXT_EMBED, embedding_features
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import StepFolder, sha256_file

SHARD_SIZE = 4096
HEADS = "heads.safetensors"


def fuse_with_heads(towers: Embeddings, out: Path, heads: str | Path | None, task: str, overwrite: bool) -> Embeddings:
    """Embeddings with `hook_fused` computed by MemeCLIP's heads from `towers`."""
    fingerprint = {"towers": towers.fingerprint, "heads": sha256_file(heads) if heads else f"trained on {task}"}
    with StepFolder(out, "embed", fingerprint, overwrite=overwrite, keep=("towers",)) as folder:
        if not folder.complete:
            file = folder.write(HEADS, partial(_save_heads, towers, heads, task))
            _write(folder, towers, file)
    return Embeddings.load(out)


def _save_heads(towers: Embeddings, heads: str | Path | None, task: str, path: Path) -> None:
    from sae_lens_meme.hooks.checkpoint import read_memeclip_checkpoint, save_memeclip_heads
    from sae_lens_meme.hooks.train_head import train_memeclip_head

    checkpoint = read_memeclip_checkpoint(heads) if heads else train_memeclip_head(towers, task).checkpoint
    save_memeclip_heads(checkpoint, path)


def _write(folder: StepFolder, towers: Embeddings, heads: Path) -> None:
    from sae_lens_meme.hooks import HookedMemeCLIP

    model = HookedMemeCLIP.from_embeddings(towers, heads=heads)
    widths = {hook: model.widths[hook] for hook in (IMAGE_EMBED, TEXT_EMBED, FUSED)}
    described = {name: kind for name, kind in towers.dataset.features.items() if name not in towers.hooks}
    starts = range(0, len(towers), SHARD_SIZE)
    shards = [partial(_columns, towers, model, range(s, min(s + SHARD_SIZE, len(towers)))) for s in starts]
    write_dataset(folder, embedding_features(described, widths), shards)
    folder.finish(**{**towers.facts, "d_in": widths})


@torch.no_grad()
def _columns(towers: Embeddings, model: Any, rows: range) -> dict[str, Any]:
    columns = towers.dataset.select(rows)
    tokens = torch.arange(rows.start, rows.stop)[:, None]
    _, cache = model.run_with_cache(tokens, return_type=None, names_filter=[FUSED])
    return {
        **columns.remove_columns(list(towers.hooks))[:],
        **{hook: towers.take(hook, rows)[:, None, :] for hook in towers.hooks},
        FUSED: cache[FUSED].numpy(),
    }
