"""The `export` step: batch by batch, so that memory does not grow with the number of latents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_lens_meme.export.activations import activation_rows, public_source
from sae_lens_meme.export.examples import Examples
from sae_lens_meme.export.explanations import Explanations
from sae_lens_meme.export.features import LatentFacts, feature_rows
from sae_lens_meme.export.lift import LiftTable, lift_table
from sae_lens_meme.export.metadata import CONFIG, Described, metadata_rows
from sae_lens_meme.export.multimodal import FOLDER, Shown, multimodal_rows
from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.options import ExportOptions
from sae_lens_meme.export.run import Run
from sae_lens_meme.export.sae import copy_sae, named_config
from sae_lens_meme.export.text import clean
from sae_lens_meme.export.write import Row, batches, write_batch, write_lines, write_zip
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import StepFolder, read_finished, through_stores

STEP = "export"
ROOT = "v1"


@through_stores("evaluation", "sae", "embeddings", "corpus", "attribution")
def export(
    evaluation: str | Path,
    options: ExportOptions | None = None,
    *,
    sae: str | Path,
    embeddings: str | Path,
    attribution: str | Path | None = None,
    corpus: str | Path | None = None,
    out: str | Path,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> Path:
    """Write the folder that Neuronpedia's importer reads, and beside it pictures and signed attributions.

    A killed run resumes at the first missing file; the result is byte for byte the same.

    Args:
        evaluation: the result of `evaluate`: activations, names that hold, class effects.
        options: see `ExportOptions`; or give them by keyword: `export(..., visibility="PUBLIC")`.
        sae: the SAE that was evaluated.
        embeddings: the memes that it was evaluated on.
        attribution: the result of `attribute`; without it memes have no coloured words and no patches.
        corpus: the result of `corpus`, for the pictures.
        out: the result folder.

    Returns:
        The source's folder inside it, `v1/MODEL/SOURCE`.

    Raises:
        StorageError, DataError: see `run.Run`.
        MemeError: an option, the model or a picture is wrong; the message says which.
    """
    options = ExportOptions.of(options, given)
    folders = [None if path is None else Path(path) for path in (attribution, corpus)]
    run = Run(Path(evaluation), Path(sae), Path(embeddings), *folders)
    names = ExportNames.of(run.dictionary, run.hook, options)
    fingerprint = {**run.recorded(), "options": options.recorded(), "neuronpedia_id": names.neuronpedia_id}
    with StepFolder(out, STEP, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            _Writer(folder, run, names, options).write(progress)
    return Path(out) / ROOT / names.neuronpedia_id


def exported(folder: str | Path) -> dict[str, Any]:
    """The facts of a finished export: `model`, `source_set`, `layer`, `source`, `n_latents`.

    Raises:
        StorageError: it is none.
    """
    return read_finished(folder, STEP)["facts"]


class _Writer:
    def __init__(self, folder: StepFolder, run: Run, names: ExportNames, options: ExportOptions):
        self._folder, self._run, self._names, self._options = folder, run, names, options
        self._where = f"{ROOT}/{names.neuronpedia_id}"
        self._facts = LatentFacts(run.latents, run.decoder)
        self._examples = Examples(run.latents, run.memes, run.attributions, options.seed)
        self._explanations = Explanations(run.table("naming"), run.alignment, self._facts, options.seed)

    def write(self, progress: bool) -> None:
        cfg = named_config(self._run.sae, self._names)
        copy_sae(self._folder, self._run.sae, cfg)
        for name in CONFIG:
            write_lines(self._folder, f"{ROOT}/config/{name}.jsonl", [])
        for name, row in metadata_rows(self._described(cfg)).items():
            write_lines(self._folder, f"{self._where}/{name}", [row])
        d_sae = self._run.latents.d_sae
        with progress_bar("export", d_sae, unit="latents", show=progress) as advance:
            for name, latents in batches(d_sae):
                self._batch(name, latents)
                advance(len(latents))
        self._pictures()
        names = self._names
        self._folder.finish(
            **{"model": names.model, "source_set": names.source_set, "layer": names.layer, "source": names.source},
            **{"release": names.release, "n_latents": d_sae, "n_memes": len(self._run.memes)},
        )

    def _batch(self, name: str, latents: range) -> None:
        names, facts, run = self._names, self._facts, self._run
        view = None if run.attributions is None else run.attributions.facts.get("view")
        kinds: dict[str, Callable[[], Iterator[Row]]] = {
            "features": lambda: feature_rows(latents, facts, self._lifts, names, run.hook),
            "activations": lambda: activation_rows(self._examples.of(latents), names, facts.largest, self._origin),
            "explanations": lambda: self._explanations.rows(latents, names),
        }
        if run.attribution is not None or run.corpus is not None:
            kinds[FOLDER] = lambda: multimodal_rows(self._examples.of(latents), names, self._shown, view)
        for kind, rows in kinds.items():
            write_batch(self._folder, f"{self._where}/{kind}/{name}.jsonl.gz", rows)

    def _pictures(self) -> None:
        if (shown := self._shown) is not None:
            for name, memes in shown.files.items():
                write_zip(self._folder, f"{self._where}/{FOLDER}/{name}", lambda memes=memes: shown.content(memes))

    def _origin(self, meme: str) -> tuple[str, str]:
        digest = self._shown.sha256(meme) if self._shown else hashlib.sha256(_bytes(meme)).hexdigest()
        return public_source(self._options.url, meme), f"sha256:{digest}"

    @cached_property
    def _lifts(self) -> LiftTable:
        return lift_table(self._run.memes, self._run.latents, self._run.alignment)

    @cached_property
    def _shown(self) -> Shown | None:
        return None if self._run.corpus is None else Shown(self._run.corpus, set(self._memes()))

    def _memes(self) -> Iterator[str]:
        for _, latents in batches(self._run.latents.d_sae):
            yield from self._examples.memes(latents)

    def _described(self, cfg: dict[str, Any]) -> Described:
        run = self._run
        return Described(
            names=self._names,
            hook=run.hook,
            d_in=int(run.dictionary.cfg.d_in),
            n_memes=len(run.memes),
            sources=sorted({clean(source) for source in run.memes.sources}),
            creator_name=self._options.creator_name,
            visibility=self._options.visibility,
            cfg=cfg,
            lift=self._lifts.note,
            attributed=run.attribution is not None,
            pictures=run.corpus is not None,
            mapped=bool(self._explanations),
        )


def _bytes(meme: str) -> bytes:
    return meme.encode("utf-8", "backslashreplace")
