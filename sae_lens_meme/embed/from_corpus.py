"""A model over a corpus: decoding in worker processes, the encoder in this one, one shard after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features
from sklearn.metrics.pairwise import paired_cosine_distances
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sae_lens_meme.corpus import caption_of, corpus_notes, load_corpus, load_rows
from sae_lens_meme.corpus.build import Pictures
from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embed.options import HEADS, EmbedOptions, check_token_options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.engines import ShardEngine, engine_of
from sae_lens_meme.errors import ConfigError, ModelError
from sae_lens_meme.hook_columns import embedding_features, require_finite
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, fuse
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.labels import NOT_LABELS
from sae_lens_meme.ocr import Captions
from sae_lens_meme.shards import write_computed, write_dataset
from sae_lens_meme.storage import StepFolder, read_finished, sha256_file, sha256_json, url_of

SHARD_BATCHES = 16
FUSED_SHARD = 4096
MEMES_A_WORKER = 32
"""A decoding process beside a large model takes as long to begin and to end as to decode about so many memes."""
SIDES = (IMAGE_EMBED, TEXT_EMBED)


def embed_corpus(
    corpus: str | Path,
    out: str | Path,
    options: EmbedOptions | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> Embeddings:
    """Embed every meme of a corpus at `hook_image_embed`, `hook_text_embed` and `hook_fused`.

    A killed run resumes at the first missing shard; the result is byte for byte the same. With fusion
    memeclip the heads are kept as `heads.safetensors`.

    Args:
        corpus: the result of the `corpus` step.
        out: the result folder.
        options: see `EmbedOptions`; or give them by keyword: `embed_corpus(corpus, out, model="demo-encoder")`.

    Raises:
        MemeError: a folder, the model, a picture, an embedding or an option is wrong; the message says which.
    """
    options = EmbedOptions.of(options, given)
    corpus, out = Path(corpus), Path(out)
    check_token_options(options)
    if options.hook is not None:
        from sae_lens_meme.embed.tokens import embed_tokens

        return embed_tokens(corpus, out, options, overwrite=overwrite, progress=progress)
    if options.fusion == "clip" and options.heads is not None:
        raise ConfigError(
            f"heads {str(options.heads)!r} belong to fusion memeclip; pass --fusion memeclip or leave them out"
        )
    if options.fusion == "memeclip" and url_of(out) is not None:
        raise ConfigError(f"{out}: fusion memeclip writes to a folder of this machine only; choose a local --out")
    read_finished(corpus, "corpus")
    if options.fusion == "clip":
        return _embed_towers(corpus, out, options, overwrite, progress)
    _require_heads_or_task(corpus, options)
    towers = _embed_towers(corpus, out / "towers", options, overwrite, progress)
    return _fuse_with_heads(towers, out, options, overwrite)


def _require_heads_or_task(corpus: Path, options: EmbedOptions) -> None:
    """The towers run for hours, so what the heads need is checked before."""
    if options.heads is not None:
        if not options.heads.is_file():
            raise ModelError(
                f"{options.heads}: no such file; give MemeCLIP's checkpoint, or leave --heads out to train them"
            )
        return
    labels = [name for name in next(iter(load_corpus(corpus).values())).column_names if name not in NOT_LABELS]
    if options.task not in labels:
        raise ConfigError(f"task {options.task!r} is not a label of {corpus}; it has {', '.join(labels) or 'none'}")


def _embed_towers(corpus: Path, out: Path, options: EmbedOptions, overwrite: bool, progress: bool) -> Embeddings:
    with (
        engine_of(options.engine, options, partial(_Worker, corpus, options)) as engine,
        StepFolder(out, "embed", engine.facts["fingerprint"], overwrite=overwrite) as folder,
    ):
        if not folder.complete:
            _write(folder, engine, progress)
    return Embeddings.load(out)


def _write(folder: StepFolder, engine: ShardEngine, progress: bool) -> None:
    facts = engine.facts
    size, n = SHARD_BATCHES * facts["fingerprint"]["batch_size"], facts["finish"]["n_samples"]
    shards = [range(start, min(start + size, n)) for start in range(0, n, size)]
    features = embedding_features(Features.from_dict(facts["described"]), facts["finish"]["d_in"])
    write_computed(folder, features, shards, engine, progress=progress)
    folder.finish(**facts["finish"])


class _Worker:
    """The encoder over shards of a corpus, with the captions that `ocr` read."""

    def __init__(self, corpus: Path, options: EmbedOptions):
        self._encoder = encoder = Encoder.load(options)
        manifest = read_finished(corpus, "corpus")
        rows, notes, read = load_rows(corpus), corpus_notes(manifest["facts"]), {}
        fingerprint = {"corpus": sha256_json([manifest["fingerprint"], manifest["files"]]), **encoder.facts}
        if options.ocr is not None:
            captions = Captions.load(options.ocr)
            rows, note = captions.fill(rows)
            fingerprint["ocr"], notes, read = captions.fingerprint, [*notes, note], {"ocr": captions.facts["engine"]}
        if options.dtype == "int8":
            read["cosine_to_float32"], note = _fidelity(encoder, options, rows)
            notes = [*notes, note]
        self._rows, self._fused = rows, encoder.model.fusion == "clip"
        described = {name: kind for name, kind in rows.features.items() if name != "image"}
        self._texts = rows.select_columns(list(described))
        self.facts = {
            "fingerprint": fingerprint,
            "described": Features(described).to_dict(),
            "finish": {
                **{key: encoder.facts[key] for key in ("model", "fusion", "dtype")},
                "resize": encoder.model.towers.resized,
                "n_samples": len(rows),
                "d_in": {hook: encoder.model.d(hook) for hook in (*SIDES, *([FUSED] if self._fused else []))},
                "corpus_notes": notes,
                **read,
            },
        }

    def __call__(self, tasks: Iterable[range], advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        shards = list(tasks)
        encoded = self._encoder.run(_loader(self._rows, shards, self._encoder), advance)
        for shard in shards:
            yield _columns(self._texts, shard, encoded, self._encoder.batch_size, self._fused)


def _fidelity(encoder: Encoder, options: EmbedOptions, rows: Dataset) -> tuple[dict[str, float], str]:
    """The smallest cosine between an embedding and the same in float32, over one batch of memes from all of the corpus."""
    some = rows.select(np.linspace(0, len(rows) - 1, min(encoder.batch_size, len(rows))).astype(int))
    exact = Encoder.load(options.model_copy(update={"dtype": "float32"}))
    of = [next(each.run(_loader(some, [range(len(some))], each), lambda _: None)) for each in (encoder, exact)]
    least = {hook: float(1 - paired_cosine_distances(of[0][hook], of[1][hook]).max()) for hook in SIDES}
    image, text = (f"{1 - least[hook]:.1e}" for hook in SIDES)
    said = f"embedded in int8: cosine distance to float32 at most {image} for pictures and {text} for captions"
    return least, f"{said}, on {len(some)} memes"


def _columns(
    described: Dataset, shard: range, encoded: Iterator[dict[str, np.ndarray]], batch_size: int, fused: bool
) -> dict[str, Any]:
    """The columns of one shard; the batches of missing shards come out of `encoded` in order."""
    parts = [next(encoded) for _ in range(0, len(shard), batch_size)]
    columns = described[shard.start : shard.stop]
    vectors = {hook: np.concatenate([part[hook] for part in parts]) for hook in SIDES}
    for hook, x in vectors.items():
        require_finite(x, hook, columns["id"])
    if fused:
        vectors[FUSED] = fuse(vectors[IMAGE_EMBED], vectors[TEXT_EMBED], columns["id"])
    return {**columns, **{hook: x[:, None, :] for hook, x in vectors.items()}}


def _loader(rows: Dataset, shards: list[range], encoder: Encoder) -> DataLoader[Any]:
    """Decoded batches of the missing shards; a batch never crosses a shard, so that shards depend on nothing else."""
    size = encoder.batch_size
    batches = [list(shard[i : i + size]) for shard in shards for i in range(0, len(shard), size)]
    workers = min(encoder.workers, -(-sum(map(len, batches)) // MEMES_A_WORKER))
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
        self._captions, self._pictures = rows.select_columns(["text", "text_origin"]), Pictures(rows)
        self._preprocess, self._tokenize = preprocess, tokenize

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._preprocess(self._pictures[row]), self._tokenize([caption_of(self._captions[row])])[0]


def _stack(items: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, tokens = zip(*items, strict=True)
    return torch.stack(pixels), torch.stack(tokens)


def _fuse_with_heads(towers: Embeddings, out: Path, options: EmbedOptions, overwrite: bool) -> Embeddings:
    """Embeddings with `hook_fused` computed by MemeCLIP's heads from `towers`."""
    heads = sha256_file(options.heads) if options.heads else f"trained on {options.task}"
    fingerprint = {"towers": towers.fingerprint, "heads": heads}
    with StepFolder(out, "embed", fingerprint, overwrite=overwrite, keep=("towers",)) as folder:
        if not folder.complete:
            _write_fused(folder, towers, folder.write(HEADS, partial(_save_heads, towers, options)))
    return Embeddings.load(out)


def _save_heads(towers: Embeddings, options: EmbedOptions, path: Path) -> None:
    from sae_lens_meme.hooks import read_memeclip_checkpoint, save_memeclip_heads, train_memeclip_head

    given = options.heads
    checkpoint = read_memeclip_checkpoint(given) if given else train_memeclip_head(towers, options.task).checkpoint
    save_memeclip_heads(checkpoint, path)


def _write_fused(folder: StepFolder, towers: Embeddings, heads: Path) -> None:
    from sae_lens_meme.hooks import HookedMemeCLIP

    model = HookedMemeCLIP.from_embeddings(towers, heads=heads)  # it refuses heads of another CLIP
    assert model.heads is not None
    widths = {hook: model.d(hook) for hook in (*SIDES, FUSED)}
    described = {name: kind for name, kind in towers.dataset.features.items() if name not in towers.hooks}
    starts = range(0, len(towers), FUSED_SHARD)
    parts = [range(start, min(start + FUSED_SHARD, len(towers))) for start in starts]
    shards = [partial(_fused_columns, towers, model.heads, rows) for rows in parts]
    write_dataset(folder, embedding_features(described, widths), shards)
    folder.finish(**{**towers.facts, "d_in": widths})


def _fused_columns(towers: Embeddings, heads: MemeCLIPHeads, rows: range) -> dict[str, Any]:
    columns = towers.dataset.select(rows).remove_columns(list(towers.hooks))[:]
    vectors = {hook: towers.take(hook, rows) for hook in SIDES}
    vectors[FUSED] = fuse(vectors[IMAGE_EMBED], vectors[TEXT_EMBED], columns["id"], heads)
    return {**columns, **{hook: x[:, None, :] for hook, x in vectors.items()}}
