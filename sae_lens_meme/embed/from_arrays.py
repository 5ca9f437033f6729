"""Embeddings from vectors that exist already, and a table of ids and labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Value

from sae_lens_meme.corpus.tables import Table, read_table
from sae_lens_meme.embed.arrays import read_array, split_key
from sae_lens_meme.embed.options import ArrayOptions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import BadTableError, DataError
from sae_lens_meme.hook_columns import embedding_features, require_finite, require_text
from sae_lens_meme.hooks.memeclip import fuse
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.labels import (
    NOT_LABELS,
    SPLITS,
    beyond_64_bits,
    is_label_column,
    label_values,
    missing_code,
    misspelled,
    read_split,
    respelled,
    source_of,
)
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import StepFolder, sha256_file, sha256_json

SHARD_SIZE = 4096


def embed_arrays(
    out: str | Path, options: ArrayOptions | None = None, *, overwrite: bool = False, **given: Any
) -> Embeddings:
    """Turn arrays and a table into embeddings that `train` and `evaluate` read.

    Args:
        out: the result folder.
        options: see `ArrayOptions`; or give them by keyword: `embed_arrays(out, table=..., fused_embeds=...)`.

    Raises:
        BadTableError, DataError, NonFiniteError, ConfigError: what, where, which value.
    """
    options = ArrayOptions.of(options, given)
    paths = {IMAGE_EMBED: options.image_embeds, TEXT_EMBED: options.text_embeds, FUSED: options.fused_embeds}
    arrays = {hook: path for hook, path in paths.items() if path is not None}
    if not arrays:
        raise DataError("no vectors were given; pass image and text embeddings, or fused ones")
    fingerprint = {
        "model": "arrays",
        "table": sha256_file(_existing(options.table)),
        "arrays": {hook: _identity(path) for hook, path in arrays.items()},
    }
    with StepFolder(out, "embed", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            vectors = {hook: read_array(path) for hook, path in arrays.items()}
            _write(folder, vectors, *description(read_table(options.table)))
    return Embeddings.load(out)


def _write(
    folder: StepFolder,
    vectors: dict[str, np.ndarray],
    described: dict[str, Value],
    rows: dict[str, list[Any]],
) -> None:
    vectors, n = with_fused(vectors, rows["id"]), len(rows["id"])
    features = embedding_features(described, {hook: x.shape[1] for hook, x in vectors.items()})
    columns: Mapping[str, Any] = {**rows, **{hook: x[:, None, :] for hook, x in vectors.items()}}
    starts = range(0, n, SHARD_SIZE)
    write_dataset(folder, features, [partial(_slice, columns, slice(s, s + SHARD_SIZE)) for s in starts])
    folder.finish(model="arrays", fusion="clip", n_samples=n, d_in={hook: x.shape[1] for hook, x in vectors.items()})


def with_fused(vectors: Mapping[str, np.ndarray], ids: list[Any]) -> dict[str, np.ndarray]:
    """The vectors by hook, and `hook_fused` where both sides are there and it is not.

    Raises:
        DataError, NonFiniteError: other numbers of vectors than ids, widths that differ, a value that is not finite.
    """
    for hook, x in vectors.items():
        if len(x) != len(ids):
            raise DataError(
                f"{hook} has {len(x):,} vectors and the table {len(ids):,} rows; row i must describe vector i"
            )
        if not x.shape[1]:
            raise DataError(f"{hook} has vectors of 0 dimensions; give the embeddings of the memes")
        require_finite(x, hook, ids)
    if not {IMAGE_EMBED, TEXT_EMBED} <= vectors.keys() or FUSED in vectors:
        return dict(vectors)
    image, text = vectors[IMAGE_EMBED], vectors[TEXT_EMBED]
    if image.shape[1] != text.shape[1]:
        raise DataError(
            f"image embeddings have {image.shape[1]} dimensions and text embeddings {text.shape[1]}; the fused product needs one width"
        )
    return {**vectors, FUSED: fuse(image, text, ids)}


def _slice(columns: Mapping[str, Any], part: slice) -> dict[str, Any]:
    return {name: values[part] for name, values in columns.items()}


def description(table: Table) -> tuple[dict[str, Value], dict[str, list[Any]]]:
    """Column types and columns of the table: ids, sources, splits, captions, labels."""
    path = table.path
    if found := misspelled(table.columns):
        raise BadTableError(f"{path}: the header has {respelled(found)}; rename it")
    for name in table.pictures:
        require_text(str(path), name)
    table.require(["id"])
    columns: dict[str, list[Any]] = {
        name: [row[name] for row in table.rows]
        for name in table.columns
        if name not in table.pictures and (name in NOT_LABELS or is_label_column(name))
    }
    _check_ids(columns["id"], path)
    columns["source"] = [source_of(v) for v in columns.get("source", [None] * len(table.rows))]
    columns["split"] = [
        _split(v, i, path) for i, v in enumerate(columns.get("split", ["train"] * len(table.rows)), start=1)
    ]
    kinds: dict[str, Value] = {}
    for name, cells in columns.items():
        if name in NOT_LABELS:
            kinds[name] = Value("string")
        else:
            columns[name], kinds[name] = _label(name, cells, table)
    return kinds, columns


def _label(name: str, cells: list[str | None], table: Table) -> tuple[list[Any], Value]:
    """A label column: integers if every value is one, else strings."""
    classes = table.classes.get(name)
    if (large := beyond_64_bits(cells)) is not None:
        raise BadTableError(
            f"{table.path}, row {large + 1}: {name} is {cells[large]}, which does not fit 64 bits; renumber the classes"
        )
    codes = {cell: code for code, cell in enumerate(classes or ())}
    values = label_values(name, [codes.get(cell or "") for cell in cells] if classes else cells, classes)
    if (code := missing_code(name, values)) is not None:
        raise BadTableError(
            f"{table.path}, row {values.index(code) + 1}: {name} is {code}, which is not one of its levels; leave it empty where it is missing"
        )
    return values, Value("string" if any(isinstance(value, str) for value in values) else "int64")


def _split(value: str | None, row: int, table: Path) -> str:
    name = read_split(value)
    if name is None:
        raise BadTableError(
            f"{table}, row {row}: split {value!r} is not one of {', '.join(SPLITS)}; correct it, or leave the column out"
        )
    return name


def _check_ids(ids: list[str | None], table: Path) -> None:
    seen: set[str] = set()
    repeated: list[str] = []
    for row, value in enumerate(ids, start=1):
        if not value:
            raise BadTableError(f"{table}, row {row}: the id is empty; every meme needs one")
        if "\0" in value:
            raise BadTableError(f"{table}, row {row}: the id {value!r} holds a NUL character; correct it")
        if value in seen:
            repeated.append(value)
        seen.add(value)
    if repeated:
        raise BadTableError(
            f"{table}: {len(repeated)} ids occur twice, the first are {repeated[:5]}; give every meme an id of its own"
        )


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; give the table of ids and labels")
    return Path(path)


def _identity(source: Path) -> str:
    """Hash of the numbers at `source` and of the key that picks them."""
    file, key = split_key(source)
    if file.is_dir():
        return sha256_json([key, {part.name: sha256_file(part) for part in sorted(file.glob("*.arrow"))}])
    return sha256_file(file) + (f":{key}" if key else "") if file.is_file() else "missing"
