"""A model over a corpus: decoding in worker processes, the encoder in this one, one shard after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sae_lens_meme.corpus import caption_of, load_corpus, load_rows
from sae_lens_meme.device import pick_device
from sae_lens_meme.embed.layout import FUSED, IMAGE_EMBED, TEXT_EMBED, embedding_features, fuse, require_finite
from sae_lens_meme.embed.memeclip import fuse_with_heads
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, ModelError
from sae_lens_meme.images import open_image
from sae_lens_meme.labels import NOT_LABELS
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
    model: str = "ViT-L-14/openai",
    fusion: str = "clip",
    heads: str | Path | None = None,
    task: str = "hate",
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
        model: an open_clip name, `hf-hub:...`, or `demo-encoder`.
        fusion: `clip` (unit image * unit projected text; d 768 for ViT-L/14) or `memeclip` (un-projected
            text through MemeCLIP's heads; d 1024).
        heads: with `memeclip`, a trained checkpoint; without one the heads are trained on the train rows
            of `task`, the epoch picked on its validation rows, and kept as `heads.safetensors`.
        device: `auto` takes CUDA, then MPS, then the CPU.
        dtype: `auto` is bfloat16 on CUDA and float32 elsewhere; on a CPU with AVX512-BF16,
            `bfloat16` is several times as fast for ViT-L/14 and keeps two to three digits.
        batch_size: memes a forward pass; the numbers depend on it in the last bit, so it is part of the key.
        workers: processes that decode and tokenise; the default is one a core, at most 8.

    Raises:
        StorageError, ModelError, BadImageError, NonFiniteError, ConfigError.
    """
    if fusion not in ("clip", "memeclip"):
        raise ConfigError(f"fusion {fusion!r} is none of clip, memeclip")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, it must be 1 or more")
    if fusion == "clip" and heads is not None:
        raise ConfigError(f"heads {str(heads)!r} belong to fusion memeclip; pass --fusion memeclip or leave them out")
    read_finished(corpus, "corpus")
    if fusion == "memeclip":
        _require_heads_or_task(Path(corpus), heads, task)
    towers_out = Path(out) / "towers" if fusion == "memeclip" else Path(out)
    encoder = _Encoder.load(model, fusion, device, dtype, batch_size, workers)
    towers = _embed_towers(Path(corpus), towers_out, encoder, overwrite, progress)
    return towers if fusion == "clip" else fuse_with_heads(towers, Path(out), heads, task, overwrite)


def _require_heads_or_task(corpus: Path, heads: str | Path | None, task: str) -> None:
    """The towers run for hours: what the heads need is looked for before."""
    if heads is not None:
        if not Path(heads).is_file():
            raise ModelError(f"{heads}: no such file; give MemeCLIP's checkpoint, or leave --heads out to train them")
        return
    labels = [name for name in next(iter(load_corpus(corpus).values())).column_names if name not in NOT_LABELS]
    if task not in labels:
        raise ConfigError(f"task {task!r} is not a label of {corpus}; it has {', '.join(labels) or 'none'}")


@dataclass(frozen=True)
class _Encoder:
    """A model and how it is run."""

    model: HookedMemeCLIP
    device: str
    dtype: torch.dtype
    batch_size: int
    workers: int

    @classmethod
    def load(cls, name: str, fusion: Any, device: str, dtype: str, batch_size: int, workers: int | None) -> _Encoder:
        from sae_lens_meme.hooks import HookedMemeCLIP

        device = pick_device(device)
        precision = _dtype(dtype, device)
        model = HookedMemeCLIP.from_pretrained(name, fusion=fusion, device=device)
        return cls(model, device, precision, batch_size, _workers(workers))

    @property
    def facts(self) -> dict[str, Any]:
        towers = self.model.towers
        return {
            "model": towers.name,
            "weights": towers.weights_sha256,
            "preprocess": str(towers.preprocess),
            "fusion": self.model.fusion,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_size": self.batch_size,
        }

    def run(self, batches: DataLoader[Any], advance: Callable[[int], None]) -> Iterator[dict[str, np.ndarray]]:
        """Image and text embeddings, float32, batch by batch."""
        on_cpu = self.device == "cpu"
        if on_cpu:
            # autocast inside inference_mode on a CPU is ten times slower than casting the weights once
            self.model.to(self.dtype)
        for pixels, tokens in batches:
            pixels = pixels.to(self.device, dtype=self.dtype if on_cpu else None, non_blocking=True)
            tokens = tokens.to(self.device, non_blocking=True)
            half = not on_cpu and self.dtype != torch.float32
            with torch.inference_mode(), torch.autocast(self.device, self.dtype, enabled=half):
                embedded = self.model.embed_batch(pixels, tokens)
            yield {hook: embedded[hook].float().cpu().numpy() for hook in (IMAGE_EMBED, TEXT_EMBED)}
            advance(len(pixels))


def _embed_towers(corpus: Path, out: Path, encoder: _Encoder, overwrite: bool, progress: bool) -> Embeddings:
    manifest = read_finished(corpus, "corpus")
    rows = load_rows(corpus)
    source = sha256_json([manifest["fingerprint"], manifest["files"]])
    with StepFolder(out, "embed", {"corpus": source, **encoder.facts}, overwrite=overwrite) as folder:
        if not folder.complete:
            _write(folder, rows, encoder, progress)
    return Embeddings.load(out)


def _write(folder: StepFolder, rows: Dataset, encoder: _Encoder, progress: bool) -> None:
    size = SHARD_BATCHES * encoder.batch_size
    shards = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    missing = [shard for name, shard in zip(shard_names(len(shards)), shards, strict=True) if not folder.has(name)]
    fused = encoder.model.fusion == "clip"
    hooks = (IMAGE_EMBED, TEXT_EMBED, *([FUSED] if fused else []))
    widths = {hook: encoder.model.widths[hook] for hook in hooks}
    described = {name: kind for name, kind in rows.features.items() if name not in ("image", "image_sha256")}
    with progress_bar("embed", sum(map(len, missing)), show=progress) as advance:
        encoded = encoder.run(_loader(rows, missing, encoder), advance)
        texts = rows.select_columns(list(described))
        columns = [partial(_columns, texts, shard, encoded, encoder.batch_size, fused) for shard in shards]
        write_dataset(folder, embedding_features(described, widths), columns)
    folder.finish(**{k: encoder.facts[k] for k in ("model", "fusion", "dtype")}, n_samples=len(rows), d_in=widths)


def _columns(
    described: Dataset, shard: range, encoded: Iterator[dict[str, np.ndarray]], batch_size: int, fused: bool
) -> dict[str, Any]:
    """The columns of one shard; the batches of missing shards come out of `encoded` in order."""
    parts = [next(encoded) for _ in range(0, len(shard), batch_size)]
    columns = described[shard.start : shard.stop]
    vectors = {hook: np.concatenate([part[hook] for part in parts]) for hook in (IMAGE_EMBED, TEXT_EMBED)}
    for hook, x in vectors.items():
        require_finite(x, hook, columns["id"])
    if fused:
        vectors[FUSED] = fuse(vectors[IMAGE_EMBED], vectors[TEXT_EMBED], columns["id"])
    return {**columns, **{hook: x[:, None, :] for hook, x in vectors.items()}}


def _loader(rows: Dataset, shards: list[range], encoder: _Encoder) -> DataLoader[Any]:
    """Decoded batches of the missing shards; a batch never crosses a shard, so that shards depend on nothing else."""
    size = encoder.batch_size
    batches = [list(shard[i : i + size]) for shard in shards for i in range(0, len(shard), size)]
    workers = min(encoder.workers, len(batches))
    towers = encoder.model.towers
    return DataLoader(
        _Memes(rows, towers.preprocess, towers.tokenize),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_stack,
        pin_memory=encoder.device.startswith("cuda"),
    )


class _Memes(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Decoded, preprocessed pictures and tokenised captions of a corpus."""

    def __init__(self, rows: Dataset, preprocess: Callable[..., Any], tokenize: Callable[..., Any]):
        self._rows = rows.select_columns(["id", "image", "text", "text_origin"]).cast_column(
            "image", Image(decode=False)
        )
        self._preprocess, self._tokenize = preprocess, tokenize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        meme = self._rows[row]
        picture = open_image(meme["image"]["bytes"], name=meme["id"])
        return self._preprocess(picture), self._tokenize([caption_of(meme)])[0]


def _stack(items: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, tokens = zip(*items, strict=True)
    return torch.stack(pixels), torch.stack(tokens)


def _dtype(dtype: str, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is none of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _workers(workers: int | None) -> int:
    return min(8, os.cpu_count() or 1) if workers is None else workers
