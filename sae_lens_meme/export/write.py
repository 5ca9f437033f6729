"""Files of a result that are the same bytes each time."""

from __future__ import annotations

import gzip
import itertools
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sae_lens_meme.errors import DataError
from sae_lens_meme.export.text import line
from sae_lens_meme.storage import StepFolder

BATCH = 1024
"""Latents a file."""
LARGEST = 200_000_000
"""Bytes of a file, unpacked, that the importer can insert at once."""

Row = dict[str, Any]


def batches(n: int) -> Iterator[tuple[str, range]]:
    """`batch-0`, `batch-1`, ... and their latents."""
    for i, start in enumerate(range(0, n, BATCH)):
        yield f"batch-{i}", range(start, min(n, start + BATCH))


def write_batch(folder: StepFolder, name: str, rows: Callable[[], Iterable[Row]]) -> None:
    """A `.jsonl.gz` file; none at all where there are no rows, since the importer stops at an empty one."""
    if folder.has(name):
        return
    found = iter(rows())
    if (first := next(found, None)) is not None:
        folder.write(name, lambda path: _write_gz(path, itertools.chain([first], found), name))


def write_lines(folder: StepFolder, name: str, rows: Iterable[Row]) -> None:
    folder.write(name, lambda path: path.write_bytes(b"".join(map(line, rows))))


def write_zip(folder: StepFolder, name: str, files: Callable[[], Iterable[tuple[str, bytes]]]) -> None:
    """A `.zip` file of files that are compressed already."""
    folder.write(name, lambda path: _write_zip(path, files()))


def read_batch(path: Path) -> Iterator[Row]:
    """The rows of what `write_batch` wrote; none where it wrote no file."""
    import json

    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for text in file:
                yield json.loads(text)


def _write_gz(path: Path, rows: Iterable[Row], name: str) -> None:
    size = 0
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        for row in rows:
            text = line(row)
            size += len(text)
            if size > LARGEST:
                raise DataError(
                    f"export: {name} would be over {LARGEST // 10**6} MB, which Neuronpedia cannot import; "
                    "attribute fewer memes per latent (--top, --per-interval)"
                )
            file.write(text)


def _write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, whenever it is written
