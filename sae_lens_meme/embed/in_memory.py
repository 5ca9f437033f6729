"""Embeddings from arrays and a table that are in memory, and such embeddings written as `embed` writes them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Value

from sae_lens_meme.corpus.arrow import as_arrow
from sae_lens_meme.corpus.merge import hashed_split
from sae_lens_meme.corpus.tables import table_of
from sae_lens_meme.embed.arrays import matrix_in_memory
from sae_lens_meme.embed.from_arrays import description, with_fused
from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.hook_columns import embedding_features
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.labels import is_missing, misspelled
from sae_lens_meme.shards import Columns, write_dataset
from sae_lens_meme.storage import StepFolder


def as_embeddings(
    table: Any = None, *, image: Any = None, text: Any = None, fused: Any = None, holdout: float = 0.2
) -> Embeddings:
    """Embeddings that every evaluator and `MemeSAETrainingRunner` take.

    Args:
        table: row i describes vector i: `id`, `source`, `split`, `group`, `text`, and labels under any other name. A
            pandas or polars DataFrame, a pyarrow Table, a `datasets.Dataset`, columns by name, or a list of rows.
        image: an array or a tensor [n, d]. With `text` too, `hook_fused` is the product of the unit vectors.
        text: the same, of the same width.
        fused: the same, where fused vectors are all there is.
        holdout: where the table has no `split`: share of each of validation and test, by hash of the group, else of the id.

    Raises:
        BadTableError, DataError, NonFiniteError: what, where, which value.
    """
    given = {IMAGE_EMBED: image, TEXT_EMBED: text, FUSED: fused}
    vectors = {hook: matrix_in_memory(x, hook) for hook, x in given.items() if x is not None}
    if not vectors:
        raise DataError("no vectors were given; pass image and text embeddings, or fused ones")
    rows = len(next(iter(vectors.values())))
    described = table_of(pa.table({"id": range(rows)}) if table is None else _with_ids(as_arrow(table)))
    kinds, columns = description(described)
    if "split" not in described.columns:
        units = columns.get("group") or columns["id"]
        columns["split"] = [
            hashed_split(str(id if is_missing(unit) else unit), holdout)
            for unit, id in zip(units, columns["id"], strict=True)
        ]
    vectors = with_fused(vectors, columns["id"])
    features = embedding_features(kinds | {"split": Value("string")}, {hook: x.shape[1] for hook, x in vectors.items()})
    cells = {**columns, **{hook: x[:, None, :] for hook, x in vectors.items()}}
    dataset = Dataset.from_dict({name: cells[name] for name in features}, features=features)
    return Embeddings.from_dataset(dataset, model="arrays", fusion="clip")


def _with_ids(table: pa.Table) -> pa.Table:
    """With the row numbers as ids where there are none."""
    names = table.column_names
    return (
        table
        if "id" in {*names, *misspelled(names).values()}
        else table.add_column(0, "id", pa.array(range(len(table))))
    )


SHARD_SIZE = 4096


def save_embeddings(embeddings: Embeddings, out: str | Path, *, overwrite: bool = False) -> Embeddings:
    """Write the rows, and MemeCLIP's heads where the embeddings were fused with them.

    Returns:
        The embeddings of the folder.

    Raises:
        StorageError: other embeddings are there.
    """
    starts = range(0, len(embeddings), SHARD_SIZE)
    with StepFolder(out, "embed", {"saved": embeddings.fingerprint}, overwrite=overwrite) as folder:
        if not folder.complete:
            shards = [partial(_rows, embeddings, start) for start in starts]
            write_dataset(folder, embeddings.dataset.features, shards)
            heads = embeddings.path / HEADS if embeddings.path else None
            if heads is not None and heads.is_file():
                folder.write(HEADS, lambda path: shutil.copyfile(heads, path))
            folder.finish(**embeddings.facts)
    return Embeddings.load(out)


def _rows(embeddings: Embeddings, start: int) -> Columns:
    part = embeddings.dataset.with_format("numpy", columns=list(embeddings.hooks))[start : start + SHARD_SIZE]
    rest = embeddings.dataset.remove_columns(list(embeddings.hooks)).with_format(None)[start : start + SHARD_SIZE]
    return {**rest, **part}
