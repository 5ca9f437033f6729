"""The `attribute` step: memes are occluded block by block, each once for all latents that need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.attribute.attributor import Attributor, Meme, view_of
from sae_lens_meme.attribute.choose import choose_latents, choose_memes
from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.attributions import FEATURES, GRID, STEP, TOP, Attributions
from sae_lens_meme.corpus import caption_of, load_rows
from sae_lens_meme.corpus.build import Pictures, require_memes
from sae_lens_meme.embed.encoder import Encoder, require_model
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.engines import ShardEngine, engine_of
from sae_lens_meme.evaluators.latents import encode, hook_of
from sae_lens_meme.evaluators.opened import load_sae, sae_weights
from sae_lens_meme.evaluators.rows import measured_rows
from sae_lens_meme.shards import write_computed
from sae_lens_meme.storage import MANIFEST, StepFolder, fetched, read_finished, sha256_file, sha256_json

BLOCK = 64
"""Memes a shard."""


def attribute(
    sae: str | Path,
    embeddings: str | Path,
    corpus: str | Path,
    options: AttributeOptions | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> Attributions:
    """Find the memes of each latent, and what each word and each patch of them does to its pre-activation.

    A killed run resumes at the first missing block; the result is byte for byte the same.

    Args:
        sae: an SAE folder, ours or any that `sae_lens.SAE.load_from_disk` reads.
        embeddings: the result of `embed`, of this corpus and by a model.
        corpus: the result of `corpus`.
        options: see `AttributeOptions`; or give them by keyword: `attribute(..., top=10)`.
        out: the result folder.

    Raises:
        DataError: the embeddings were made from arrays, or from other memes.
        StorageError, ModelError, ConfigError, BadImageError, NonFiniteError.
    """
    options = AttributeOptions.of(options, given)
    sae, embeddings, corpus = Path(sae), Path(embeddings), Path(corpus)
    dictionary, memes = load_sae(sae, options.hook), Embeddings.load(embeddings)
    manifest = read_finished(corpus, "corpus")
    fingerprint = {
        "sae": sae_weights(sae),
        "hook": dictionary.cfg.metadata.hook_name,
        "embeddings": memes.fingerprint,
        "corpus": sha256_json([manifest["fingerprint"], manifest["files"]]),
        "options": options.recorded(),
    }
    require_model(memes)
    with StepFolder(out, STEP, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            asked, chosen = _chosen(dictionary, memes, options)
            make_worker = partial(_Worker, sae, embeddings, corpus, options, chosen)
            with engine_of(options.engine, options, make_worker) as engine:
                _write(folder, engine, chosen, progress)
            folder.finish(
                latents=asked, n_memes=chosen["row"].nunique(), grid=GRID, view=engine.facts["view"], rows=options.rows
            )
    return Attributions.load(out)


def _chosen(sae: Any, memes: Embeddings, options: AttributeOptions) -> tuple[list[int], pd.DataFrame]:
    """The latents, and a row per latent and meme that is attributed."""
    latents = encode(sae, memes)
    rows, _ = measured_rows(memes, options.rows)
    asked = choose_latents(latents, rows, options)
    return asked, choose_memes(latents, memes, asked, rows, options).sort_values(["row", "latent"], kind="stable")


def _write(folder: StepFolder, engine: ShardEngine, chosen: pd.DataFrame, progress: bool) -> None:
    rows = np.unique(chosen["row"])
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    write_computed(folder, FEATURES, blocks, engine, progress=progress)


class _Worker:
    """The model and the SAE over blocks of the memes that were chosen."""

    def __init__(self, sae: Path, embeddings: Path, corpus: Path, options: AttributeOptions, chosen: pd.DataFrame):
        dictionary, memes = load_sae(sae, options.hook), Embeddings.load(embeddings)
        encoder = Encoder.of_embeddings(memes, options.device)
        dictionary.to(encoder.device)
        self._source, self._chosen = _Source(corpus, memes, np.unique(chosen["row"])), chosen
        hook = hook_of(dictionary, memes)
        self._attributor = Attributor(dictionary, hook, encoder, memes, options.pairs, options.batch_size)
        self.facts = {
            "sae": sae_weights(sae),
            "embeddings": sha256_file(fetched(embeddings) / MANIFEST),
            "corpus": sha256_file(fetched(corpus) / MANIFEST),
            "encoder": encoder.facts,
            "view": view_of(encoder),
        }

    def __call__(self, tasks: Iterable[np.ndarray], advance: Callable[[int], None]) -> Iterator[dict[str, list[Any]]]:
        for block in tasks:
            chosen = self._chosen[self._chosen["row"].isin(block)]
            yield _columns(chosen, block, self._source, self._attributor, advance)


def _columns(
    chosen: Any, block: np.ndarray, source: _Source, attributor: Attributor, advance: Callable[[int], None]
) -> dict[str, list[Any]]:
    """The columns of one shard."""
    memes = [source[row] for row in block]
    by_meme = [part for _, part in chosen.groupby("row", sort=True)]
    found = attributor.attribute(memes, [part["latent"].tolist() for part in by_meme])
    rows = [
        _row(choice, meme, attribution)
        for meme, part, attributions in zip(memes, by_meme, found, strict=True)
        for choice, attribution in zip(part.itertuples(), attributions, strict=True)
    ]
    advance(len(memes))
    return {name: [row[name] for row in rows] for name in FEATURES}


def _row(choice: Any, meme: Meme, attribution: Any) -> dict[str, Any]:
    top = choice.kind == TOP
    return {
        **{"latent": choice.latent, "id": meme.id, "kind": choice.kind, "rank": choice.rank},
        "interval": None if top else choice.interval,
        "interval_low": None if top else choice.interval_low,
        "interval_high": None if top else choice.interval_high,
        "interval_share": None if top else choice.interval_share,
        "activation": choice.activation,
        **attribution._asdict(),
        "interactions": [pair._asdict() for pair in attribution.interactions],
    }


class _Source(Sequence[Any]):
    """The memes of a corpus by their row in the embeddings: pictures of the corpus, captions as they were embedded."""

    def __init__(self, corpus: Path, embeddings: Embeddings, rows: np.ndarray):
        self.rows = rows
        dataset = load_rows(corpus)
        place = {identity: i for i, identity in enumerate(dataset["id"])}
        ids = [str(embeddings.ids[row]) for row in rows]
        require_memes(corpus, ids, place)
        self._ids = dict(zip(rows.tolist(), ids, strict=True))
        self._place, self._pictures = place, Pictures(dataset)
        self._captions = embeddings.dataset.select_columns(["text", "text_origin"])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Meme:
        identity = self._ids[int(row)]
        return Meme(identity, self._pictures[self._place[identity]], caption_of(self._captions[int(row)]))
