"""The command `user-study`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sae_lens_meme.errors import BadTableError, ConfigError
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.user_study.agreement import SPARSITY, Scores, monosemanticity_of, sparsity, user_agreement
from sae_lens_meme.evaluators.user_study.study import ACTIVATIONS, PAIRS, UserStudy, read_scores
from sae_lens_meme.storage import StepFolder, sha256_file, to_json


def compare_with_users(
    folder: str | Path,
    out: str | Path,
    *,
    embeds: Sequence[str | Path] = (),
    scores: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Result:
    """The command `user-study`: published scores of the study, sparsity, MS under other embeddings, and given scores.

    Args:
        folder: of the study.
        out: gets `user_study.json` and `user_study.parquet`.
        embeds: `.npy` files [pictures, d] in the order of `activations.csv`; each gives MS under it, named by its file.
        scores: CSV files with `k` and `score`; each is a metric, named by its file.

    Raises:
        BadTableError, DataError, StorageError: one line each, with what to do.
    """
    study = UserStudy.read(folder)
    given = [Path(file) for file in (*embeds, *scores)]
    inside = [study.folder / name for name in (PAIRS, ACTIVATIONS) if (study.folder / name).is_file()]
    if missing := next((file for file in given if not file.is_file()), None):
        raise BadTableError(f"{missing}: no such file")
    fingerprint = {"study": [sha256_file(file) for file in inside], "given": {f.name: sha256_file(f) for f in given}}
    metrics: dict[str, Scores] = dict(study.published)
    makers = {}
    for file in map(Path, embeds):
        if (name := f"MS {file.stem}") in {**makers, **metrics}:
            raise ConfigError(f"--embeds {file}: there is a metric {name!r} already; rename the file")
        makers[name] = monosemanticity_of(_vectors(file))
    if (study.folder / ACTIVATIONS).is_file():
        makers = {SPARSITY: sparsity, **makers}
        rows = [
            (name, {metric: make(values) for metric, make in makers.items()}) for name, values in study.activations()
        ]
        metrics |= {metric: {name: row[metric] for name, row in rows} for metric in makers}
    elif embeds:
        raise BadTableError(
            f"{study.folder / ACTIVATIONS}: no such file; --embeds needs the activations of the neurons"
        )
    for file in map(Path, scores):
        if file.stem in metrics:
            raise ConfigError(f"--scores {file}: there is a metric {file.stem!r} already; rename the file")
        metrics[file.stem] = read_scores(file)
    for metric, values in metrics.items():
        if not set(values) & set(study.neurons):
            raise BadTableError(
                f"{metric!r} has no score of any neuron of {study.folder / PAIRS}, such as {study.neurons[0]!r}; check k"
            )
    result = user_agreement(study, metrics)
    with StepFolder(out, "user-study", fingerprint, overwrite=overwrite) as step:
        if not step.complete:
            step.write_text("user_study.json", to_json(result.to_dict()))
            step.write_table("user_study.parquet", result.table)  # type: ignore[arg-type]
            step.finish(metrics=list(metrics))
    return result


def _vectors(path: Path) -> np.ndarray:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadTableError(
            f"{path}: is not an array ({' '.join(str(error).split())[:120]}); give .npy [pictures, d]"
        ) from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        what = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else "an archive"
        raise BadTableError(f"{path}: must be numbers [pictures, d]; it is {what}")
    if not np.isfinite(vectors.astype(np.float64)).all():
        raise BadTableError(f"{path}: holds NaN or infinity; every picture needs a vector")
    return vectors
