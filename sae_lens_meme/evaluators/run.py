"""The `evaluate` step: from an SAE folder and embeddings to a folder of results."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens_meme.device import pick_device
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators import registry
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.cautions import cautions
from sae_lens_meme.evaluators.content import EVALUATION, LATENTS, content_of, numbers_table
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.opened import Opened, stock_sae
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.workers import CANNOT, Found, evaluating, measured
from sae_lens_meme.importers.options import STEP as IMPORT
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.provenance import RUNNER_CFG
from sae_lens_meme.report import draw_figure, report_html, report_text
from sae_lens_meme.storage import (
    MANIFEST,
    StepFolder,
    fetched,
    read_finished,
    read_json,
    read_manifest,
    through_stores,
    to_json,
)

PAGE, TEXT, FIGURE = "evaluation.html", "evaluation.txt", "evaluation.png"
CONVERTED = "sae"
"""The stock SAE that one of another project was converted to."""


@through_stores()
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
        return _evaluate(sae, stock, embeddings, options, Path(out), overwrite, progress)


def _evaluate(
    given: str | Path,
    sae: Path,
    embeddings: str | Path,
    options: EvaluateOptions,
    out: Path,
    overwrite: bool,
    progress: bool,
) -> dict[str, Any]:
    opened = Opened.of_stock(sae, embeddings, options)
    kept = (CONTROL, *(f"seed_{i}" for i in range(1, options.stability_seeds + 1)))
    converts, stands = sae != fetched(given), out / CONVERTED
    if stands.is_dir() and (converted(out) is None or stands.resolve() == fetched(given).resolve()):
        if converts:
            raise StorageError(
                f"{stands}: is an SAE of its own, which the converted one would replace; choose another --out"
            )
        kept = (*kept, CONVERTED)
    trained_here = ("train", IMPORT)
    with StepFolder(out, "evaluate", opened.fingerprint, overwrite=overwrite, keep=kept, own=trained_here) as folder:
        if not folder.complete:
            with evaluating(opened, partial(Opened.of, given, embeddings, options), options) as workers:
                file = folder.write(LATENTS, lambda path: workers.encode(progress).save(path))
                context = opened.context(
                    Latents.load(file),
                    train_shuffled=lambda: workers.trained(
                        folder.home / CONTROL, partial(train_control, sae, opened.memes)
                    ),
                    train_seed=lambda i: workers.trained(
                        folder.home / f"seed_{i}", partial(train_seed, sae, opened.memes, offset=i)
                    ),
                    warnings=cautions(opened.sae, opened.memes),
                )
                run_evaluators(context, options.names(), progress, workers.measure)
            if converts:
                _copy_whole(sae, folder.path / CONVERTED)
            write_results(folder, content_of(context), context.results)
    return read_json(out / EVALUATION)


def _copy_whole(sae: Path, to: Path) -> None:
    """A copy that is there whole or not at all."""
    beside = to.with_name(f".{to.name}")
    shutil.copytree(sae, beside, dirs_exist_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    beside.replace(to)


def converted(out: str | Path) -> Path | None:
    """The stock SAE beside an evaluation, if it was converted and is not an SAE of its own."""
    folder = Path(out) / CONVERTED
    return folder if (folder / MANIFEST).is_file() and read_manifest(folder)["step"] == IMPORT else None


def run_evaluators(
    context: Context, names: list[str], progress: bool = False, measure: Callable[..., Iterator[Found]] | None = None
) -> None:
    """If one evaluator cannot run on these memes, that is noted and the others still run.

    Args:
        measure: measures evaluators on workers, many at once; without it they are measured here, one after the other.

    Raises:
        DataError, NonFiniteError: from an evaluator that runs alone.
    """
    unlabelled, waiting = labels_missing(context.embeddings), dict[str, Evaluator]()

    def note(name: str, found: Found) -> None:
        if isinstance(found, Result):
            context.results[name] = found
        elif len(names) == 1 and not isinstance(found, Unavailable):
            raise found
        else:
            context.skipped[name] = str(found)

    with progress_bar("evaluate", len(names), unit="evaluators", show=progress) as advance:

        def measure_waiting() -> None:
            made = dict(waiting)
            waiting.clear()
            for name, found in zip(made, (measure or measured)(context, made), strict=True):
                note(name, found)
                advance(1)

        if measure is not None:
            context.results = Awaited(measure_waiting)
        for name in names:
            evaluator = registry.find(name)
            advance(0, name.replace("_", " "))
            try:
                if unlabelled and evaluator.needs_labels:
                    raise Unavailable(unlabelled)
                waiting[name] = evaluator.from_context(context)
            except CANNOT as error:
                note(name, error)
                advance(1)
            if measure is None:
                measure_waiting()
        measure_waiting()
    place = {name: i for i, name in enumerate(names)}
    context.skipped = dict(sorted(context.skipped.items(), key=lambda item: place.get(item[0].partition("/")[0], -1)))
    for name, result in context.results.items():
        if result.measures and all(measure.value is None for measure in result.measures):
            context.skipped[name] = str(result.measures[0].reason)


class Awaited(dict[str, Result]):
    """The results so far, of which some are being measured: who asks for one waits until all of these are."""

    def __init__(self, wait: Callable[[], None]):
        self._wait = wait

    def get(self, name: str, default: Any = None) -> Any:
        self._wait()
        return super().get(name, default)

    def __getitem__(self, name: str) -> Result:
        self._wait()
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._wait()
        return super().__contains__(name)


def labels_missing(embeddings: Embeddings) -> str | None:
    """Why evaluators of labels cannot run, or None."""
    if any(len(embeddings.label(name).classes) > 1 for name in embeddings.label_names):
        return None
    return "no label has two classes; add label columns to the corpus or to the table"


def write_results(folder: StepFolder, content: dict[str, Any], results: Mapping[str, Result]) -> None:
    """The numbers, tables, page and figure of an evaluation, and the end of its step."""
    tables = {name: result.table for name, result in results.items() if result.table is not None}
    for name, table in (tables | {"numbers": numbers_table(content)}).items():
        folder.write_table(f"{name}.parquet", table)
    folder.write_text(EVALUATION, to_json(content))
    folder.write_text(PAGE, report_html(content))
    folder.write_text(TEXT, report_text(content))
    with tempfile.TemporaryDirectory() as drawn:
        picture = Path(drawn) / FIGURE
        if draw_figure(content, picture):
            folder.write(FIGURE, lambda path: path.write_bytes(picture.read_bytes()))
    folder.finish(evaluators=list(results))


CONTROL = "control_shuffled"


def train_control(sae: Path, embeddings: Embeddings, out: Path) -> Any:
    """The same recipe trained on embeddings whose dimensions are permuted independently.

    Raises:
        Unavailable: the SAE was not trained by `train`, or on several hooks at once.
    """
    from sae_lens_meme.train import train

    return train(_recipe(sae), out=out, embeddings=embeddings, shuffled=True, overwrite=True, progress=False)


def train_seed(sae: Path, embeddings: Embeddings, out: Path, offset: int) -> Any:
    """The same recipe with its seed raised by `offset`.

    Raises:
        Unavailable: as for `train_control`.
    """
    from sae_lens_meme.train import train

    config = _recipe(sae)
    other = replace(config, section={**config.section, "seed": config.seed + offset})
    return train(other, out=out, embeddings=embeddings, overwrite=True, progress=False)


def _recipe(sae: Path) -> Any:
    from sae_lens_meme.train import TrainConfig
    from sae_lens_meme.train.config import Recipe

    if (sae.parent / RUNNER_CFG).is_file() and not (sae / MANIFEST).is_file():
        raise Unavailable("this SAE was trained together with others; train it alone to have this control")
    try:
        fingerprint = read_finished(sae, "train")["fingerprint"]
    except StorageError:
        raise Unavailable("this SAE was not trained by `train`: its recipe is not known") from None
    if "begun_with" in fingerprint:
        raise Unavailable("this SAE was trained further from given weights: its recipe alone cannot reproduce it")
    config = fingerprint["config"]
    dictionary = {key: value for key, value in config["sae"].items() if key != "device"}
    config = {**config, "sae": dictionary, "device": _device_here(config["device"])}
    return TrainConfig(config, Recipe(**fingerprint["recipe"]))


def _device_here(name: str) -> str:
    """The device of a training, or `auto` where this machine has none of that name."""
    try:
        return pick_device(name)
    except ConfigError:
        return "auto"
