"""Token rows: the activations at one hook of a transformers model, one row per position, in the layout of embeddings.

Rows of one picture are one group: they are split, drawn and permuted together.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, Features, Value, load_from_disk

from sae_lens_meme.corpus import caption_of, corpus_notes, load_rows
from sae_lens_meme.corpus.build import Pictures
from sae_lens_meme.device import pick_device
from sae_lens_meme.embed.options import EmbedOptions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.engines import ShardEngine, engine_of
from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hook_columns import embedding_features, require_finite, token_features
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.base import state_sha256
from sae_lens_meme.hooks.names import IMAGE_RESID, PROJECTED
from sae_lens_meme.hooks.patches import View, boxes_of_tokens, view_of
from sae_lens_meme.hooks.positions import IMAGE, TAGS, PositionSource, tag_numbers
from sae_lens_meme.hooks.vocabulary import ids_of, spelled
from sae_lens_meme.labels import is_missing
from sae_lens_meme.options import Positive, check_value
from sae_lens_meme.shards import write_computed
from sae_lens_meme.storage import StepFolder, read_finished, sha256_json

SHARD_ITEMS = 256
_MODALITIES = {number: name for name, number in TAGS.items()}


def token_rows(
    model: HookedVLM,
    hook: str,
    images: Sequence[Any],
    texts: Sequence[str | None] | None = None,
    *,
    table: Mapping[str, Sequence[Any]] | None = None,
    keep: str | Collection[str] = ("image",),
    tokens_per_item: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Embeddings:
    """Activations at `hook`, one row per position, in memory.

    Args:
        images: PIL images.
        texts: what a chat model or a captioner reads with each.
        table: columns that describe the pictures: `id`, `split`, `source`, `group`, labels; or a data frame.
        keep: the kinds of positions: `image`, `text`, `special`.
        tokens_per_item: how many of them to draw at random; default all.

    Raises:
        MemeError: the hook, a picture or a text is wrong; the message says which.
    """
    if not isinstance(model, HookedVLM):
        raise ModelError(
            f"token rows are of a HookedVLM, not of a {type(model).__name__}; give one of transformers' models"
        )
    check_value("token_rows.batch_size", batch_size, Positive)
    check_value("token_rows.tokens_per_item", tokens_per_item, Positive | None)
    items = Dataset.from_dict(_described_pictures(len(images), {} if table is None else table))
    with closing(_Reader(model, hook, images, texts, keep, tokens_per_item, seed, batch_size)) as reader:
        columns = reader.columns(items, range(len(items)))
    _notes(len(items), columns["item"], [keep] if isinstance(keep, str) else list(keep))
    features = embedding_features(_described(items), {hook: reader.width})
    rows = Dataset.from_dict({name: columns[name] for name in features}, features=features)
    return Embeddings.from_dataset(rows, **reader.facts)


def _described_pictures(n: int, table: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns of a table in memory, with the number of each picture as its id where it has none.

    Raises:
        DataError: a column has more or fewer cells than there are pictures, or an id is that of two.
    """
    columns = {"id": list(range(n)), **{name: list(cells) for name, cells in table.items() if name != "image"}}
    for name, cells in columns.items():
        if len(cells) != n:
            raise DataError(f"token_rows: {n} pictures but {len(cells)} {name}; give one per picture")
    ids = columns["id"] = [str(cell) for cell in columns["id"]]
    if len(set(ids)) < n:
        twice = next(cell for cell in ids if ids.count(cell) > 1)
        raise DataError(f"token_rows: id {twice!r} is that of two pictures; give every picture an id of its own")
    return columns


def embed_tokens(
    corpus: Path, out: Path, options: EmbedOptions, *, overwrite: bool = False, progress: bool = True
) -> Embeddings:
    """The `embed` step with `--hook`: token rows of a corpus; a killed run resumes at the first missing shard."""
    with (
        engine_of(options.engine, options, partial(_Worker, corpus, options)) as engine,
        StepFolder(out, "embed", engine.facts["fingerprint"], overwrite=overwrite) as folder,
    ):
        if not folder.complete:
            _write(folder, engine, options, progress)
    return Embeddings.load(out)


def _write(folder: StepFolder, engine: ShardEngine, options: EmbedOptions, progress: bool) -> None:
    facts, n = engine.facts, engine.facts["n_items"]
    shards = [range(start, min(start + SHARD_ITEMS, n)) for start in range(0, n, SHARD_ITEMS)]
    features = embedding_features(Features.from_dict(facts["described"]), facts["finish"]["d_in"])
    write_computed(folder, features, shards, engine, progress=progress)
    found: list[Any] = list(load_from_disk(str(folder.path))["item"])
    notes = [*facts["notes"], *_notes(n, found, options.keep or ["image"])]
    folder.finish(**facts["finish"], n_items=n, n_samples=len(found), corpus_notes=notes)


class _Worker:
    """A transformers model over shards of a corpus."""

    def __init__(self, corpus: Path, options: EmbedOptions):
        assert options.hook is not None
        manifest, memes = read_finished(corpus, "corpus"), load_rows(corpus)
        device = pick_device(options.device)
        dtype = "float32" if options.dtype == "auto" and not device.startswith("cuda") else options.dtype
        model = _loaded(options.model, "bfloat16" if dtype == "auto" else dtype, device)
        texts = None
        if options.captions == "corpus":
            texts = [caption_of(meme) for meme in memes.select_columns(["text", "text_origin"]).to_list()]
        keep = options.keep or ["image"]
        how: tuple[Any, ...] = (keep, options.tokens_per_item, options.seed, options.batch_size)
        fingerprint = {
            "corpus": sha256_json([manifest["fingerprint"], manifest["files"]]),
            "model": options.model,
            "weights": state_sha256(model.hf),
            "hook": options.hook,
            "rows": [sorted(keep), *how[1:], options.captions],
            "columns": sorted(token_features()),
            "dtype": dtype,
        }
        self._reader = reader = _Reader(model, options.hook, Pictures(memes), texts, *how)
        self._items = memes.remove_columns("image")
        d_in = {options.hook: reader.width}
        self.facts = {
            "fingerprint": fingerprint,
            "described": Features(_described(self._items)).to_dict(),
            "n_items": len(memes),
            "notes": corpus_notes(manifest["facts"]),
            "finish": {**reader.facts, "model": options.model, "dtype": dtype, "d_in": d_in},
        }

    def __call__(self, tasks: Iterable[range], advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        for shard in tasks:
            yield self._reader.columns(self._items, shard, advance)


def _loaded(name: str, dtype: str, device: str) -> HookedVLM:
    try:
        return HookedVLM.from_pretrained(name, dtype=getattr(torch, dtype)).to(device)
    except ModelError as error:
        raise ModelError(
            f"{error}; with --hook the model is one of transformers, such as openai/clip-vit-large-patch14"
        ) from None


def _notes(n_items: int, found: Sequence[str], keep: Sequence[str]) -> list[str]:
    """What is to be said of pictures without rows.

    Raises:
        DataError: no picture has any.
    """
    kinds, without = ", ".join(keep), n_items - len(set(found))
    if without == n_items:
        raise DataError(f"no picture has a position of kind {kinds} at this hook; keep other kinds")
    return [f"{without:,} of {n_items:,} pictures have no position of kind {kinds}, so they have no rows."] * (
        without > 0
    )


def _described(items: Dataset) -> dict[str, Any]:
    return {**items.features, **token_features(), "group": Value("string")}


class _Kept(NamedTuple):
    """The positions of one item that become rows."""

    positions: np.ndarray
    tags: np.ndarray
    vectors: np.ndarray
    described: dict[str, list[Any]]


class _Reader:
    """Runs a model over pictures and takes the chosen positions of one hook."""

    def __init__(
        self,
        model: HookedVLM,
        hook: str,
        images: Sequence[Any],
        texts: Sequence[str | None] | None,
        keep: str | Collection[str],
        per_item: int | None,
        seed: int,
        batch_size: int,
    ):
        self.width, self._given = model.d(hook), model
        self._model = model.tower() if hook.startswith(IMAGE_RESID) and (model.writes or _has_texts(model)) else model
        self._hook, self._keep = hook, tag_numbers(keep)
        self._per_item, self._seed, self._batch = per_item, seed, batch_size
        read_by_tower = texts if self._model.writes else None
        self._before = self._model.source
        self._model.attach_memes(images, read_by_tower)
        self._source: PositionSource = self._model.source  # type: ignore[assignment]
        self._describer = TokenDescriber(self._model, hook, self._keep)

    def close(self) -> None:
        """Leave the model with the rows that it had, if any, and the hooks."""
        if self._before is not None:
            self._model.source = self._before
        if self._model is not self._given:
            self._model.close()

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "model": self._model.model_name,
            "model_class_name": HookedVLM.__name__,
            "keep": sorted(_MODALITIES[number] for number in self._keep),
            "tokens_per_item": self._per_item,
            "view": None if (view := self._describer.view) is None else view.kind,
        }

    def columns(self, items: Dataset, shard: range, advance: Callable[[int], object] = int) -> dict[str, Any]:
        """The columns of the rows of these items."""
        parts: list[_Kept] = []
        for start in range(shard.start, shard.stop, self._batch):
            rows = np.arange(start, min(start + self._batch, shard.stop))
            parts += self._read(rows, list(items.select(rows)["id"]))
            advance(len(rows))
        owner = np.repeat(np.arange(len(shard)), [len(part.positions) for part in parts])
        positions, tags, vectors = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:3])
        described: dict[str, Any] = items[shard.start : shard.stop]
        repeated = {name: [column[i] for i in owner] for name, column in described.items()}
        ids = [f"{item}@{position}" for item, position in zip(repeated["id"], positions.tolist(), strict=True)]
        require_finite(vectors, self._hook, ids)
        groups = described.get("group") or [None] * len(shard)
        own = [item if is_missing(group) else str(group) for item, group in zip(described["id"], groups, strict=True)]
        return {
            **repeated,
            **{name: [cell for part in parts for cell in part.described[name]] for name in parts[0].described},
            "item": repeated["id"],
            "id": ids,
            "position": positions,
            "modality": [_MODALITIES[tag] for tag in tags.tolist()],
            "group": [own[i] for i in owner],
            self._hook: vectors[:, None, :],
        }

    @torch.no_grad()
    def _read(self, rows: np.ndarray, ids: Sequence[str]) -> list[_Kept]:
        """The chosen positions of each item."""
        inputs = self._source.take(rows)
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        tags_now, hook = self._model.tags_now, self._hook

        def note(x: torch.Tensor, hook: Any) -> None:
            seen.append((x.float().cpu().numpy(), tags_now(hook.name, x).cpu().numpy()))

        with self._model.hooks(fwd_hooks=[(hook, note)]):
            self._model.run_with_cache(inputs, names_filter=[hook], stop_at_layer=0, return_type=None)
        ((x, tags),) = seen
        if x.ndim != 3 or len(x) != len(rows):
            raise ModelError(
                f"{hook}: gives {x.shape[:-1]} positions for {len(rows)} pictures, so that they have no owner here; "
                "take a block of the tower or of the decoder"
            )
        return [self._kept(id, inputs, row, *one) for row, (id, *one) in enumerate(zip(ids, x, tags, strict=True))]

    def _kept(self, item: str, inputs: dict[str, Any], row: int, x: np.ndarray, tags: np.ndarray) -> _Kept:
        places = self._chosen(item, tags)
        columns = self._describer.columns(inputs, row, tags)
        described = {name: [column[place] for place in places] for name, column in columns.items()}
        return _Kept(places, tags[places], x[places], described)

    def _chosen(self, item: str, tags: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(np.isin(tags, self._keep))
        if self._per_item is not None and self._per_item < len(places):
            # by the item and not by its row: the same tokens in whatever order the corpus lies
            generator = np.random.Generator(np.random.PCG64([self._seed, zlib.crc32(str(item).encode())]))
            places = np.sort(generator.choice(places, self._per_item, replace=False))
        return places


def _has_texts(model: HookedVLM) -> bool:
    """Whether it is two towers, as CLIP is."""
    return any(not name.startswith(IMAGE_RESID) for name in model.shapes)


class TokenDescriber:
    """Describes the positions that pass one hook of a model; `kept` are the tags of those that become rows."""

    def __init__(self, model: HookedVLM, hook: str, kept: list[int]):
        self._model, self._reads = model, not hook.startswith((IMAGE_RESID, PROJECTED))
        self.view: View | None = view_of(self._pixels) if IMAGE in kept else None
        """How the boxes of patches lie on the picture."""

    def columns(self, inputs: dict[str, Any], row: int, tags: np.ndarray) -> dict[str, list[Any]]:
        """Of every position of one row of a batch."""
        n = len(tags)
        return {**self._words(inputs, row, tags), "token_box": self._boxes(inputs, row, tags == IMAGE, n)}

    def _words(self, inputs: dict[str, Any], row: int, tags: np.ndarray) -> dict[str, list[Any]]:
        tokenizer, (ids, _) = self._model.processor.tokenizer, ids_of(self._model.hf, inputs)
        n = len(tags)
        if not self._reads or tokenizer is None or ids is None:
            return {name: [None] * n for name in ("token", "token_text", "token_start", "token_end")}
        before = [0] * (n - ids.shape[1])  # GIT's pictures are no ids
        found = spelled(tokenizer, before + ids[row].tolist(), tags, self._model.vocabulary.special)
        text = [found.text] * n
        return {"token": found.words, "token_text": text, "token_start": found.starts, "token_end": found.ends}

    def _boxes(self, inputs: dict[str, Any], row: int, image: np.ndarray, n: int) -> list[list[float] | None]:
        boxes: list[list[float] | None] = [None] * n
        if self.view is not None and image.any():
            placed = self.view.placed(boxes_of_tokens(self._model.hf, inputs, row, int(image.sum())))
            for position, box in zip(np.flatnonzero(image).tolist(), placed.tolist(), strict=True):
                boxes[position] = None if np.isnan(box).any() else box
        return boxes

    def _pixels(self, picture: Any) -> Any:
        found = self._model.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
        return found[0, 0] if found.ndim == 5 else found[0] if found.ndim == 4 else found  # of tiles the first is whole
