"""A model over a corpus: decoding in worker processes, the encoder in this one, one shard after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Image, concatenate_datasets
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sae_lens_meme.corpus import load_corpus
from sae_lens_meme.embed.layout import embedding_features, require_finite, unit
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks.names import EMBEDDING_HOOKS, FUSED
from sae_lens_meme.images import open_image
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.shards import shard_names, write_dataset
from sae_lens_meme.storage import StepFolder, read_finished, sha256_json

if TYPE_CHECKING:
    from sae_lens_meme.hooks import HookedMemeCLIP

SHARD_BATCHES = 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def embed_corpus(
    corpus: str | Path,
    *,
    out: str | Path,
    model: str | HookedMemeCLIP = "ViT-L-14/openai",
    fusion: str = "clip",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Embeddings:
    """Embed every meme of a corpus at `hook_image_embed`, `hook_text_embed` and `hook_fused`.

    A killed run resumes at the first missing shard; the result is byte for byte the same.

    Args:
        corpus: the result of the `corpus` step.
        out: the result folder.
        model: an open_clip name, `hf-hub:...`, `demo-encoder`, or a model that is loaded already.
        fusion: `clip` (projected text, d 768 for ViT-L/14) or `memeclip` (un-projected text).
        device: `auto` takes CUDA, then MPS, then the CPU.
        dtype: `auto` is bfloat16 on CUDA and float32 elsewhere; on a CPU with AVX512-BF16,
            `bfloat16` is about four times as fast for ViT-L/14 and keeps two to three digits.
        batch_size: memes a forward pass; the numbers depend on it in the last bit, so it is part of the key.
        workers: processes that decode and tokenise; the default is one a core, at most 8.

    Raises:
        StorageError, ModelError, BadImageError, NonFiniteError.
    """
    from sae_lens_meme.hooks import HookedMemeCLIP

    manifest = read_finished(corpus, "corpus")
    device = _device(device)
    precision = _dtype(dtype, device)
    hooked = HookedMemeCLIP.from_pretrained(model, fusion=fusion, device=device) if isinstance(model, str) else model
    rows = _all_rows(load_corpus(corpus))
    fingerprint = {
        "corpus": sha256_json([manifest["fingerprint"], manifest["files"]]),
        "model": hooked.towers.name,
        "weights": hooked.towers.weights_sha256,
        "preprocess": str(hooked.towers.preprocess),
        "fusion": hooked.fusion,
        "dtype": str(precision).removeprefix("torch."),
        "batch_size": batch_size,
        "rows": len(rows),
    }
    with StepFolder(out, "embed", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            hooked.to(precision) if device == "cpu" else hooked
            _write(folder, rows, hooked, batch_size, _workers(workers), precision, progress)
    return Embeddings.load(out)


def _write(
    folder: StepFolder,
    rows: Dataset,
    model: HookedMemeCLIP,
    batch_size: int,
    workers: int,
    precision: torch.dtype,
    progress: bool,
) -> None:
    starts = range(0, len(rows), SHARD_BATCHES * batch_size)
    shards = [range(s, min(s + SHARD_BATCHES * batch_size, len(rows))) for s in starts]
    missing = [shard for name, shard in zip(shard_names(len(shards)), shards, strict=True) if not folder.has(name)]
    batches = [shard[i : i + batch_size] for shard in missing for i in range(0, len(shard), batch_size)]
    loader = DataLoader(
        _Memes(rows, model.towers.preprocess, model.towers.tokenize),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=min(workers, len(batches)),
        collate_fn=_stack,
        prefetch_factor=2 if workers and batches else None,
    )
    widths = {hook: model.d(hook) for hook in EMBEDDING_HOOKS}
    described = {k: v for k, v in rows.features.items() if k not in ("image", "image_sha256")}
    features = embedding_features(described, widths)
    with progress_bar("embed", sum(map(len, missing)), show=progress) as advance:
        encoded = _encode(loader, model, precision, advance)
        columns = [
            partial(_columns, rows.select_columns(list(described)), shard, encoded, batch_size) for shard in shards
        ]
        write_dataset(folder, features, columns)
    folder.finish(
        model=model.towers.name,
        fusion=model.fusion,
        dtype=str(precision).removeprefix("torch."),
        n_samples=len(rows),
        d_in=widths,
    )


def _columns(
    described: Dataset, shard: range, encoded: Iterator[dict[str, np.ndarray]], batch_size: int
) -> dict[str, Any]:
    """The columns of one shard; the batches of missing shards come out of `encoded` in order."""
    parts = [next(encoded) for _ in range(0, len(shard), batch_size)]
    columns = described[shard.start : shard.stop]
    for hook in EMBEDDING_HOOKS:
        x = np.concatenate([part[hook] for part in parts])
        require_finite(x, hook, columns["id"])
        if hook != FUSED:
            unit(x, hook, columns["id"])
        columns[hook] = x[:, None, :]
    return columns


def _encode(
    loader: DataLoader[Any], model: HookedMemeCLIP, precision: torch.dtype, advance: Callable[[int], None]
) -> Iterator[dict[str, np.ndarray]]:
    device = next(model.parameters()).device
    half = precision != torch.float32
    for pixels, tokens in loader:
        with torch.inference_mode(), torch.autocast(device.type, precision, enabled=half and device.type != "cpu"):
            pixels = pixels.to(device, dtype=precision if device.type == "cpu" else None, non_blocking=True)
            embedded = model.embed_batch(pixels, tokens.to(device, non_blocking=True))
        yield {hook: embedded[hook].float().cpu().numpy() for hook in EMBEDDING_HOOKS}
        advance(len(pixels))


class _Memes(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Decoded, preprocessed pictures and tokenised captions of a corpus."""

    def __init__(self, rows: Dataset, preprocess: Callable[..., Any], tokenize: Callable[..., Any]):
        self._rows = rows.select_columns(["id", "image", "text"]).cast_column("image", Image(decode=False))
        self._preprocess, self._tokenize = preprocess, tokenize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        meme = self._rows[row]
        picture = open_image(meme["image"]["bytes"], name=meme["id"])
        return self._preprocess(picture), self._tokenize([meme["text"]])[0]


def _stack(items: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, tokens = zip(*items, strict=True)
    return torch.stack(pixels), torch.stack(tokens)


def _all_rows(corpus: DatasetDict) -> Dataset:
    return concatenate_datasets([corpus[split] for split in corpus if len(corpus[split])])


def _device(device: str) -> str:
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(dtype: str, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is none of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _workers(workers: int | None) -> int:
    return min(8, os.cpu_count() or 1) if workers is None else workers
