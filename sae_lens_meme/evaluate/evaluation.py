"""From an SAE folder and embeddings to a folder of results."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError, NonFiniteError, StorageError
from sae_lens_meme.evaluate.content import EVALUATION, content_of, numbers_table
from sae_lens_meme.evaluate.context import Context
from sae_lens_meme.evaluate.options import Options, chosen, listed
from sae_lens_meme.evaluate.others import CONTROL, Unavailable
from sae_lens_meme.evaluate.steps import STEPS, labels_missing
from sae_lens_meme.evaluators.latents import Latents, encode
from sae_lens_meme.figure import draw_figure
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.planted import read_answer_key
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.report import report_html
from sae_lens_meme.storage import StepFolder, read_json, sha256_file, to_json

LATENTS, PAGE, FIGURE = "latents.safetensors", "evaluation.html", "evaluation.png"


def evaluate(
    sae: str | Path,
    embeddings: str | Path,
    *,
    out: str | Path,
    protocol: str = "both",
    concepts: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    only: Collection[str] | None = None,
    skip: Collection[str] | None = None,
    hook: str | None = None,
    reference: str | Path | None = None,
    other_saes: Collection[str] | None = None,
    stability_seeds: int = 0,
    share: float = 0.5,
    answer_key: str | Path | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate an SAE on embeddings; what is done is not done again.

    The folder holds `evaluation.json` (every number with its control), the same tables as a page
    (`evaluation.html`), a figure of it (`evaluation.png`), `latents.safetensors`, `numbers.parquet` (every number with
    its explanation), and one Parquet file an evaluator with a table (`concept_alignment.parquet`, ...).

    Args:
        sae: an SAE folder, ours or any that `sae_lens.SAE.load_from_disk` reads.
        embeddings: the result of `embed`.
        out: the result folder.
        protocol: `corrected`, `published` or `both`.
        concepts: such as `hate=1` or `hateful: hate=1`; default InterVLM's thirteen, or every class of every label.
        tasks: labels for probes and influence; default every label with two classes or more.
        only, skip: names of evaluators.
        hook: the hook to read, for an SAE whose metadata names none.
        reference: embeddings of the same memes by an independent encoder, for monosemanticity.
        other_saes: folders of SAEs of the same recipe with other seeds, for stability.
        stability_seeds: how many such SAEs to train (each takes as long as `train`); they are kept.
        share: of the memes that SAE-V's filter keeps.
        answer_key: the folder with the factors of planted memes.
        bootstrap: resamples of the memes for intervals.

    Returns:
        The content of `evaluation.json`.
    """
    names = chosen(only, skip, answer_key is not None)
    options = Options(protocol, listed(concepts), listed(tasks), names, share, stability_seeds, bootstrap, seed)
    dictionary, memes = load_sae(sae, hook), Embeddings.load(embeddings)
    second = Embeddings.load(reference) if reference is not None else None
    _require_same_memes(memes, second)
    others = _load_others(other_saes or ())
    fingerprint = {
        "sae": _weights(sae),
        "embeddings": memes.fingerprint,
        "reference": second.fingerprint if second else None,
        "other_saes": {name: _weights(path) for name, (path, _) in others.items()},
        "options": vars(options),
        "hook": dictionary.cfg.metadata.hook_name,
        "answer_key": sha256_file(Path(answer_key) / "factors.parquet") if answer_key else None,
    }
    key = read_answer_key(answer_key) if answer_key is not None else None
    kept = (CONTROL, *(f"seed_{i}" for i in range(1, stability_seeds + 1)))
    with StepFolder(out, "evaluate", fingerprint, overwrite=overwrite, keep=kept) as folder:
        if not folder.complete:
            file = folder.write(LATENTS, lambda path: encode(dictionary, memes).save(path))
            loaded = {name: other for name, (_, other) in others.items()}
            context = Context(
                *(dictionary, Path(sae), memes, Latents.load(file), options, folder.path),
                reference=second,
                other_saes=loaded,
                answer_key=key,
            )
            _run(context, progress)
            _write(context, folder)
    return read_json(Path(out) / EVALUATION)


def _run(context: Context, progress: bool) -> None:
    """What one evaluator cannot do on these memes is noted and takes nothing from the others."""
    reason = labels_missing(context.embeddings)
    with progress_bar("evaluate", len(context.options.evaluators), unit="evaluators", show=progress) as advance:
        for name in context.options.evaluators:
            step = STEPS[name]
            advance(0, name.replace("_", " "))
            if reason and step.needs_labels:
                context.skipped[name] = reason
            else:
                try:
                    context.results[name] = step.run(context)
                except Unavailable as error:
                    context.skipped[name] = str(error)
                except (DataError, NonFiniteError) as error:
                    if len(context.options.evaluators) == 1:
                        raise
                    context.skipped[name] = str(error)
            advance(1)
    for name, result in context.results.items():
        if result.numbers and all(value is None for value in result.numbers.values()):
            context.skipped[name] = next(iter(result.reasons.values()))


def _write(context: Context, folder: StepFolder) -> None:
    content = content_of(context)
    tables = {name: result.table for name, result in context.results.items() if result.table is not None}
    for name, table in (tables | {"numbers": numbers_table(content)}).items():
        folder.write(f"{name}.parquet", partial(_write_table, table))
    folder.write(EVALUATION, lambda path: path.write_text(to_json(content), encoding="utf-8"))
    folder.write(PAGE, lambda path: path.write_text(report_html(content), encoding="utf-8"))
    with tempfile.TemporaryDirectory() as drawn:
        picture = Path(drawn) / FIGURE
        if draw_figure(content, picture):
            folder.write(FIGURE, lambda path: path.write_bytes(picture.read_bytes()))
    folder.finish(evaluators=list(context.results))


def load_sae(folder: str | Path, hook: str | None = None) -> Any:
    """Any SAE that SAELens loads, with the hook that it reads.

    Raises:
        StorageError: no SAE is there.
        ModelError: SAELens cannot load it.
        ConfigError: it names no hook, and none is given.
    """
    from sae_lens import SAE

    if not (Path(folder) / "cfg.json").is_file():
        raise StorageError(f"{folder}: is not an SAE folder (no cfg.json); give the folder that train wrote")
    try:
        sae = SAE.load_from_disk(folder)
    except Exception as error:  # SAELens, safetensors and torch raise unrelated classes here
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: SAELens cannot load this SAE ({type(error).__name__}: {reason})") from error
    sae.cfg.metadata.hook_name = hook or sae.cfg.metadata.hook_name
    if sae.cfg.metadata.hook_name is None:
        raise ConfigError(f"{folder}: this SAE names no hook; pass --hook, for example --hook {FUSED}")
    return sae


def _load_others(folders: Collection[str]) -> dict[str, tuple[Path, Any]]:
    """By the last part of their path; the whole path where two have the same one."""
    paths = [Path(folder) for folder in folders]
    names = [path.name if [p.name for p in paths].count(path.name) == 1 else str(path) for path in paths]
    return {name: (path, load_sae(path, None)) for name, path in zip(names, paths, strict=True)}


def _require_same_memes(memes: Embeddings, reference: Embeddings | None) -> None:
    """Before hours of work, not after them."""
    if reference is not None and len(missing := np.setdiff1d(memes.ids, reference.ids)):
        raise DataError(
            f"meme {str(missing[0])!r} is not in the reference ({len(missing)} such memes); embed the same corpus"
        )


def _weights(sae: str | Path) -> dict[str, str]:
    return {name: sha256_file(Path(sae) / name) for name in ("cfg.json", "sae_weights.safetensors")}


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)
