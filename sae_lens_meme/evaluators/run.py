"""The `evaluate` step: from an SAE folder and embeddings to a folder of results."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.attributions import STEP, Attributions
from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError, NonFiniteError, StorageError
from sae_lens_meme.evaluators import registry
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.cautions import cautions
from sae_lens_meme.evaluators.content import EVALUATION, content_of, numbers_table
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents, encode
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.retrain import CONTROL, train_control, train_seed
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.planted import read_answer_key
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.provenance import recorded_widths
from sae_lens_meme.report import draw_figure, report_html, report_text
from sae_lens_meme.storage import StepFolder, read_finished, read_json, sha256_file, sha256_json, to_json, verify

LATENTS, PAGE, TEXT, FIGURE = "latents.safetensors", "evaluation.html", "evaluation.txt", "evaluation.png"
CONVERTED = "sae"
"""The stock SAE that one of another project was converted to."""


def evaluate(
    sae: str | Path,
    embeddings: str | Path,
    options: EvaluateOptions | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> dict[str, Any]:
    """Evaluate an SAE on embeddings; a finished evaluation is not repeated.

    The folder holds `evaluation.json` (every number with its control), the same tables as a page
    (`evaluation.html`) and as text (`evaluation.txt`), a figure of it (`evaluation.png`), `latents.safetensors`,
    `numbers.parquet` (every number with its meaning), and one Parquet file per evaluator with a table.

    Args:
        sae: an SAE folder, ours or any that `sae_lens.SAE.load_from_disk` reads; or an SAE of another project, which is
            kept as a stock one in `out/sae`.
        embeddings: the result of `embed`.
        options: or its fields as keywords, see `EvaluateOptions`.
        out: the result folder.

    Returns:
        The content of `evaluation.json`.
    """
    options = options if options is not None else EvaluateOptions(**given)
    options.check()
    with stock_sae(sae, options.hook, options.converter) as stock:
        return _evaluate(stock, embeddings, options, Path(out), overwrite, progress, converted=stock != Path(sae))


def _evaluate(
    sae: Path,
    embeddings: str | Path,
    options: EvaluateOptions,
    out: Path,
    overwrite: bool,
    progress: bool,
    converted: bool,
) -> dict[str, Any]:
    names = options.names()
    dictionary, memes = load_sae(sae, options.hook), Embeddings.load(embeddings)
    memes = memes.without_contaminated() if options.exclude_leaks else memes
    reference = Embeddings.load(options.reference) if options.reference is not None else None
    require_same_memes(memes, reference)
    others = load_others(options.other_saes or ())
    key_folder = options.answer_key
    fingerprint = {
        "sae": sae_weights(sae),
        "embeddings": memes.fingerprint,
        "reference": reference.fingerprint if reference else None,
        "other_saes": {name: sae_weights(path) for name, (path, _) in others.items()},
        "options": options.recorded(),
        "hook": dictionary.cfg.metadata.hook_name,
        "answer_key": sha256_file(key_folder / "factors.parquet") if key_folder else None,
        **({"files": {key: sha256_file(file) for key, file in files.items()}} if (files := options.files()) else {}),
    }
    if options.attribution is not None:
        fingerprint["attribution"] = _attribution_of(options.attribution, fingerprint)
    key = read_answer_key(key_folder) if key_folder is not None else None
    kept = (CONVERTED, CONTROL, *(f"seed_{i}" for i in range(1, options.stability_seeds + 1)))
    with StepFolder(out, "evaluate", fingerprint, overwrite=overwrite, keep=kept) as folder:
        if not folder.complete:
            if converted:
                shutil.copytree(sae, folder.home / CONVERTED, dirs_exist_ok=True)
            file = folder.write(LATENTS, lambda path: encode(dictionary, memes).save(path))
            heads = memes.path / HEADS if memes.path else None
            context = Context(
                *(dictionary, memes, Latents.load(file), options),
                reference=reference,
                other_saes={name: other for name, (_, other) in others.items()},
                train_shuffled=lambda: train_control(sae, memes, folder.home / CONTROL),
                train_seed=lambda i: train_seed(sae, memes, folder.home / f"seed_{i}", i),
                answer_key=key,
                attributions=Attributions.load(options.attribution) if options.attribution else None,
                heads=heads if heads is not None and heads.is_file() else None,
                warnings=cautions(dictionary, memes),
            )
            run_evaluators(context, names, progress)
            write_results(folder, content_of(context), context.results)
    return read_json(out / EVALUATION)


def run_evaluators(context: Context, names: list[str], progress: bool = False) -> None:
    """What one evaluator cannot do on these memes is noted and takes nothing from the others.

    Raises:
        DataError, NonFiniteError: from an evaluator that runs alone.
    """
    unlabelled = labels_missing(context.embeddings)
    with progress_bar("evaluate", len(names), unit="evaluators", show=progress) as advance:
        for name in names:
            evaluator = registry.find(name)
            advance(0, name.replace("_", " "))
            if unlabelled and evaluator.needs_labels:
                context.skipped[name] = unlabelled
            else:
                try:
                    made = evaluator.from_context(context)
                    context.results[name] = made.evaluate(context.sae, context.embeddings, context.latents)
                except Unavailable as error:
                    context.skipped[name] = str(error)
                except (DataError, NonFiniteError) as error:
                    if len(names) == 1:
                        raise
                    context.skipped[name] = str(error)
            advance(1)
    for name, result in context.results.items():
        if result.measures and all(measure.value is None for measure in result.measures):
            context.skipped[name] = str(result.measures[0].reason)


def labels_missing(embeddings: Embeddings) -> str | None:
    """Why evaluators of labels cannot run, or None."""
    if any(len(embeddings.label(name).classes) > 1 for name in embeddings.label_names):
        return None
    return "no label has two classes; add label columns to the corpus or to the table"


def write_results(folder: StepFolder, content: dict[str, Any], results: Mapping[str, Result]) -> None:
    """The numbers, tables, page and figure of an evaluation, and the end of its step."""
    tables = {name: result.table for name, result in results.items() if result.table is not None}
    for name, table in (tables | {"numbers": numbers_table(content)}).items():
        folder.write(f"{name}.parquet", partial(_write_table, table))
    folder.write(EVALUATION, lambda path: path.write_text(to_json(content), encoding="utf-8"))
    folder.write(PAGE, lambda path: path.write_text(report_html(content), encoding="utf-8"))
    folder.write(TEXT, lambda path: path.write_text(report_text(content), encoding="utf-8"))
    with tempfile.TemporaryDirectory() as drawn:
        picture = Path(drawn) / FIGURE
        if draw_figure(content, picture):
            folder.write(FIGURE, lambda path: path.write_bytes(picture.read_bytes()))
    folder.finish(evaluators=list(results))


@contextmanager
def stock_sae(sae: str | Path, hook: str | None = None, converter: str | None = None) -> Iterator[Path]:
    """The folder itself, or that of the stock SAE which one of another project is converted to, for the time being.

    Raises:
        ModelError: no converter reads it.
        ConfigError: there is no such converter.
    """
    from sae_lens_meme.importers import converter_of, import_sae

    if (name := converter or converter_of(sae)) is None:
        yield Path(sae)
        return
    with tempfile.TemporaryDirectory() as made:
        import_sae(sae, stock := Path(made) / CONVERTED, hook=hook, converter=name)
        yield stock


def _require_sae(folder: str | Path) -> None:
    from sae_lens_meme.importers import converter_of

    if (name := converter_of(folder)) is not None:
        what = "an AbsTopK SAE, whose latents have two signs" if name == "abstopk" else f"an SAE of {name}"
        raise StorageError(
            f"{folder}: is {what}; `sae-lens-meme import {name} {folder} --out SAE` makes a stock SAE folder of it"
        )
    if not (Path(folder) / "cfg.json").is_file():
        raise StorageError(
            f"{folder}: is not an SAE folder (no cfg.json); give the folder that train wrote, or name the --converter of evaluate or import for one of another project"
        )


def load_sae(folder: str | Path, hook: str | None = None) -> Any:
    """Any SAE that SAELens loads, with the hook that it reads.

    Raises:
        StorageError: no SAE is there.
        ModelError: SAELens cannot load it.
        ConfigError: it names no hook, and none is given.
    """
    from sae_lens import SAE

    _require_sae(folder)
    verify(folder)
    try:
        sae = SAE.load_from_disk(folder)
    except Exception as error:  # SAELens, safetensors and torch raise unrelated classes here
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: SAELens cannot load this SAE ({type(error).__name__}: {reason})") from error
    require_sae(sae, folder)
    sae.cfg.metadata.hook_name = hook or sae.cfg.metadata.hook_name
    if (
        sae.cfg.metadata.matryoshka_widths is None
    ):  # SAELens saves Matryoshka SAEs as JumpReLU ones, without their groups
        sae.cfg.metadata.matryoshka_widths = recorded_widths(folder)
    if sae.cfg.metadata.hook_name is None:
        raise ConfigError(f"{folder}: this SAE names no hook; pass --hook, for example --hook {FUSED}")
    return sae


def require_sae(sae: Any, where: str | Path) -> Any:
    """Refuse what SAELens loads as an SAE and what does not map the vector of one meme to itself.

    Raises:
        ModelError: a transcoder, or an SAE of sequences.
    """
    architecture = sae.cfg.architecture()
    if "transcoder" in architecture:
        raise ModelError(
            f"{where}: is a {architecture}, which maps one hook to another; give an SAE, which maps one to itself"
        )
    if architecture == "temporal":
        raise ModelError(f"{where}: is a temporal SAE, which reads a sequence of tokens; a meme is one vector")
    return sae


def _attribution_of(folder: Path, evaluated: dict[str, Any]) -> str:
    """A hash of an attribution, which must be of this SAE on these memes."""
    manifest = read_finished(folder, STEP)
    for name in ("sae", "embeddings"):
        if manifest["fingerprint"][name] != evaluated[name]:
            what = "SAE" if name == "sae" else "set of embeddings"
            raise DataError(f"{folder}: is of another {what}; run attribute again")
    return sha256_json(manifest["files"])


def load_others(folders: Collection[str | Path]) -> dict[str, tuple[Path, Any]]:
    """By the last part of their path; the whole path where two have the same one."""
    paths = [Path(folder) for folder in folders]
    names = [path.name if [p.name for p in paths].count(path.name) == 1 else str(path) for path in paths]
    return {name: (path, load_sae(path, None)) for name, path in zip(names, paths, strict=True)}


def require_same_memes(memes: Embeddings, reference: Embeddings | None) -> None:
    """Before hours of work, not after them."""
    if reference is not None and len(missing := np.setdiff1d(memes.ids, reference.ids)):
        raise DataError(
            f"meme {str(missing[0])!r} is not in the reference ({len(missing)} such memes); embed the same corpus"
        )


def sae_weights(sae: str | Path) -> dict[str, str]:
    """Hashes of both files; the id of its pages on Neuronpedia, which `export` may add, makes no other SAE of it."""
    _require_sae(sae)
    verify(sae)  # or a damaged SAE would be taken for another one
    weights, cfg = (sha256_file(Path(sae) / name) for name in ("sae_weights.safetensors", "cfg.json"))
    content = read_json(Path(sae) / "cfg.json")
    if isinstance(content, dict) and (content.get("metadata") or {}).pop("neuronpedia_id", None):
        cfg = hashlib.sha256(json.dumps(content).encode()).hexdigest()  # as SAELens writes it
    return {"cfg.json": cfg, "sae_weights.safetensors": weights}


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)
