"""Hugging Face datasets written shard by shard into a `StepFolder`.

`datasets.load_from_disk` opens the result; a killed run resumes at the first missing shard.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from datasets import DatasetInfo, Features
from datasets.arrow_writer import ArrowWriter

from sae_lens_meme.engines import ShardEngine
from sae_lens_meme.errors import ShardError
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import StepFolder, sha256_json, to_json

Columns = dict[str, Any]  # lists or arrays, one entry per row


def write_dataset(
    folder: StepFolder,
    features: Features,
    shards: Sequence[Callable[[], Columns]],
    *,
    subfolder: str = "",
    split: str | None = None,
) -> None:
    """Write one Arrow file per shard, then the two small files that make it a dataset.

    Args:
        folder: an entered `StepFolder`.
        features: the columns of the dataset.
        shards: one function per shard that returns its columns; it is called only when the
            shard is not there yet, and must depend on nothing but its own index.
        subfolder: where inside the folder (a split of a `DatasetDict`), default the folder itself.
        split: the name of the split, recorded in the dataset's state.

    Raises:
        ShardError: shards that no worker could compute, all of them named; the others are written.
    """
    names, failed = shard_names(len(shards)), []
    for name, columns in zip(names, shards, strict=True):
        try:
            folder.write(
                posixpath.join(subfolder, name), lambda path, columns=columns: _write_arrow(path, features, columns())
            )
        except ShardError as error:
            failed.append(f"{name} {error}")
    if failed:
        raise ShardError(
            f"{folder.home}: {len(failed)} of {len(names)} shards could not be made ({'; '.join(failed)}); the others are "
            "written: fix this and run the same command again"
        )
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": sha256_json([folder.fingerprint, subfolder])[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    info = asdict(DatasetInfo(features=features)) | {"features": features.to_dict()}
    folder.write_text(posixpath.join(subfolder, "dataset_info.json"), to_json(info))
    folder.write_text(posixpath.join(subfolder, "state.json"), to_json(state))


def write_computed(
    folder: StepFolder,
    features: Features,
    tasks: Sequence[Any],
    engine: ShardEngine,
    *,
    unit: str = "memes",
    progress: bool = True,
) -> None:
    """As `write_dataset`: a shard a task, computed by the engine where it is missing; the length of a task is what is counted."""
    missing = [task for name, task in zip(shard_names(len(tasks)), tasks, strict=True) if not folder.has(name)]
    with progress_bar(folder.step, sum(map(len, missing)), unit, show=progress) as advance:
        columns = engine.map_shards(missing, advance)
        write_dataset(folder, features, [partial(next, columns)] * len(tasks))


def shard_names(n: int) -> list[str]:
    return [f"data-{i:05d}-of-{n:05d}.arrow" for i in range(n)]


def _write_arrow(path: Path, features: Features, columns: Columns) -> None:
    with ArrowWriter(features=features, path=str(path)) as writer:
        if any(len(column) for column in columns.values()):
            writer.write_batch({name: columns[name] for name in features})
        writer.finalize()
