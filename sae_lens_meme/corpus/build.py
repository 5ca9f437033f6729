"""Builds a corpus: reads the sources, merges them, verifies every picture, writes one `DatasetDict` on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk

from sae_lens_meme.corpus.folder import Columns, read_folder
from sae_lens_meme.corpus.hmc import read_hmc
from sae_lens_meme.corpus.memotion import read_memotion
from sae_lens_meme.corpus.merge import Preset, merge
from sae_lens_meme.corpus.pridemm import read_pridemm
from sae_lens_meme.corpus.rows import BadRows, OnBad, Row
from sae_lens_meme.corpus.write import BAD_ROWS, Plan, file_size, write_corpus
from sae_lens_meme.errors import BadImageError, ConfigError
from sae_lens_meme.storage import StepFolder, read_finished, read_manifest, sha256_file

_SCHEMA = 1  # raise it when the same input gives another corpus


def build_corpus(
    out: str | Path,
    *,
    pridemm: str | Path | None = None,
    hmc: str | Path | None = None,
    memotion: str | Path | None = None,
    folder: str | Path | None = None,
    columns: Columns = None,
    preset: Preset = "all",
    holdout: float = 0.1,
    on_bad: OnBad = "raise",
    overwrite: bool = False,
    shard_size: int = 500,
    progress: bool = True,
) -> DatasetDict:
    """Build a corpus in `out` and load it; a finished one is loaded at once, a killed one is resumed.

    Args:
        pridemm, hmc, memotion: folders in the layouts of the original releases.
        folder: a folder of memes of one's own, or its table; `columns` maps its columns (see `column_map`).
        preset: `all` keeps every labelled row, `intervlm` repeats the published merge.
        holdout: share of each of validation and test for sources without a split.
        on_bad: `skip` lists rows that cannot be used in bad_rows.jsonl and leaves them out.
        overwrite: replace a different corpus in `out`.
        shard_size: most memes a shard.

    Raises:
        ConfigError: no source, or an option has a wrong value.
        BadTableError: a table or a row of it is bad.
        BadImageError: a picture is missing or damaged.
        StorageError: `out` is in use or holds something else.
    """
    if type(shard_size) is not int or shard_size < 1:
        raise ConfigError(f"shard_size: {shard_size!r} is not a positive integer")
    bad = BadRows(on_bad)
    rows = _read_sources(pridemm, hmc, memotion, folder, columns, preset, bad)
    plan = Plan(merge(rows, preset=preset, holdout=holdout, bad=bad), preset, holdout, shard_size, bad)
    with StepFolder(out, "corpus", _fingerprint(plan, rows), overwrite=overwrite) as step:
        if not step.complete:
            write_corpus(step, plan, progress=progress)
        _refuse_bad_rows(step.path, on_bad)
    return load_corpus(out)


def load_corpus(path: str | Path) -> DatasetDict:
    """Open a corpus that `build_corpus` has finished.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """
    read_finished(path, "corpus")
    corpus = load_from_disk(str(path))
    assert isinstance(corpus, DatasetDict)
    return corpus


def load_rows(path: str | Path) -> Dataset:
    """All memes of a finished corpus as one dataset, split after split.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """
    return concatenate_datasets([rows for rows in load_corpus(path).values() if len(rows)])


def caption_of(meme: Mapping[str, Any]) -> str | None:
    """The caption of a row, None where the meme has none: MemeCLIP reads a missing caption as a word."""
    return None if meme["text_origin"] == "none" else meme["text"]


def _read_sources(
    pridemm: Any, hmc: Any, memotion: Any, folder: Any, columns: Columns, preset: str, bad: BadRows
) -> list[Row]:
    if pridemm is None and hmc is None and memotion is None and folder is None:
        raise ConfigError("no source given; give at least one of pridemm, hmc, memotion, folder")
    if columns is not None and folder is None:
        raise ConfigError("columns: they map the table of `folder`, and no folder is given")
    if preset == "intervlm" and folder is not None:
        raise ConfigError("preset: 'intervlm' is the merge of PrideMM, HMC and Memotion; use 'all' with a folder")
    rows = read_pridemm(pridemm, bad) if pridemm is not None else []
    rows += read_hmc(hmc, bad) if hmc is not None else []
    rows += read_memotion(memotion, bad) if memotion is not None else []
    rows += read_folder(folder, columns, bad) if folder is not None else []
    return rows


def _fingerprint(plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """Tables by content, rows as they were read, pictures by name and size.

    Hashing the content of every picture costs as much as building; a picture that is replaced by
    another of exactly the same size is the price (`image_sha256` tells what was read).
    """
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.id):
        read = [row.id, row.source, row.split, row.text, row.text_origin, dict(row.labels), row.image]
        digest.update(json.dumps([*read, file_size(row.image_path)]).encode())
    tables = sorted({(row.source, row.file) for row in rows})
    return {
        "corpus_schema": _SCHEMA,
        "preset": plan.preset,
        "holdout": plan.holdout,
        "shard_size": plan.shard_size,
        "tables": [[source, file.name, sha256_file(file)] for source, file in tables],
        "rows": digest.hexdigest(),
    }


def _refuse_bad_rows(path: Path, on_bad: OnBad) -> None:
    """A corpus that an earlier run finished with `skip` does not satisfy `raise`."""
    count = read_manifest(path)["facts"]["bad_rows"]
    if on_bad == "raise" and count:
        first = json.loads((path / BAD_ROWS).read_text(encoding="utf-8").splitlines()[0])
        raise BadImageError(
            f'{first["file"]}, row {first["row"]} (id "{first["id"]}"): {first["reason"]} or pass --on-bad skip ({count} bad rows in all)'
        )
