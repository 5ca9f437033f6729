"""A corpus as the table that `embed --table` reads beside arrays: row i is meme i of the corpus."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from sae_lens_meme.corpus.build import load_rows
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.labels import is_label_column
from sae_lens_meme.storage import atomic_file, require_here


def export_table(corpus: str | Path, path: str | Path, *, overwrite: bool = False) -> int:
    """Write id, source, split, group, text and labels of every meme, in the order in which `embed` embeds them.

    Args:
        corpus: the result of the `corpus` step.
        path: `.csv` or `.parquet`. A missing label or caption is an empty field (an empty caption is quoted), or null.

    Returns:
        The number of memes.

    Raises:
        ConfigError: `path` ends in something else, or lies in a store.
        StorageError: there is no finished corpus, or `path` is there and `overwrite` is not set.
    """
    require_here(path)
    path = Path(path)
    write = {".csv": arrow_csv.write_csv, ".parquet": parquet.write_table}.get(path.suffix.lower())
    if write is None:
        raise ConfigError(f"{path}: a table is written as .csv or .parquet; change the name")
    if path.exists() and not overwrite:
        raise StorageError(f"{path}: is there already; pass --overwrite to replace it, or another name")
    rows = load_rows(corpus)
    labels = [name for name in rows.column_names if is_label_column(name)]
    described = [name for name in ("id", "source", "split", "group") if name in rows.column_names]
    columns = [*described, "text", "text_origin", *labels]
    table: pa.Table = rows.select_columns(columns).with_format("arrow")[:]
    memes = zip(table["text"].to_pylist(), table["text_origin"].to_pylist(), strict=True)
    captions = pa.array([None if origin == "none" else text for text, origin in memes], pa.string())
    table = table.set_column(len(described), "text", captions).drop_columns(["text_origin"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        write(table, temporary)
    return table.num_rows
