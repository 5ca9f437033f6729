"""Reads a WebDataset shard: an uncompressed tar of samples, read in place and never unpacked.

The files of a sample have one name up to the first dot: `0001.jpg`, `0001.txt` (its caption), `0001.json` (columns of its
own), `0001.cls` (the column `cls`). Hidden files belong to no sample: macOS puts one beside each.
"""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens_meme.corpus.pictures import Embedded
from sae_lens_meme.corpus.tables import json_columns
from sae_lens_meme.errors import BadTableError

PICTURES = ("jpg", "jpeg", "png", "gif", "webp", "bmp")
MAX_TEXT = 16 << 20  # bytes of a file that is not a picture
IMAGE = "image"


def read_tar(path: Path, faults: dict[int, str]) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """Columns, rows and pictures of a `Table`; a sample that cannot be read goes to `faults`.

    Raises:
        BadTableError: it is not a tar, or is a compressed one.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            samples = _samples(path, tar, faults)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadTableError(f"{path.name}: cannot be read as a tar ({reason}); write it again, uncompressed") from None
    pictures = [sample.pop(IMAGE, None) for sample in samples]
    columns = list(dict.fromkeys(name for sample in samples for name in sample))
    rows = [{name: sample.get(name) for name in columns} for sample in samples]
    embedded = [picture or Embedded(bytes, 0, None) for picture in pictures]
    return [*columns, IMAGE], rows, {"pictures": {IMAGE: embedded}}


def _samples(path: Path, tar: tarfile.TarFile, faults: dict[int, str]) -> list[dict[str, Any]]:
    samples: dict[str, dict[str, Any]] = {}
    number: dict[str, int] = {}
    for member in tar:
        if member.isdir():
            continue
        folder, slash, name = member.name.rpartition("/")
        if name.startswith("."):
            continue
        stem, _, ending = name.partition(".")
        key = f"{folder}{slash}{stem}"
        sample = samples.setdefault(key, {"__key__": key})
        fault = _add(path, member, ending.lower(), sample)
        if fault is not None:
            faults.setdefault(number.setdefault(key, len(samples)), fault)
        number.setdefault(key, len(samples))
    return list(samples.values())


def _add(path: Path, member: tarfile.TarInfo, ending: str, sample: dict[str, Any]) -> str | None:
    """Put a file into its sample; returns what is wrong with it."""
    if not member.isreg() or member.issparse() or member.name.startswith("/") or ".." in member.name.split("/"):
        return f"{member.name!r} is not a plain file inside the tar; leave it out"
    if ending in PICTURES:
        if IMAGE in sample:
            return f"{member.name!r} is a second picture of its sample; give it a name of its own"
        read = partial(_bytes, path, member.offset_data, member.size)
        sample[IMAGE] = Embedded(read, member.size, member.name)
        return None
    if ending not in ("txt", "json", "cls"):
        return None  # WebDataset keeps whatever it likes beside them
    if member.size > MAX_TEXT:
        return f"{member.name!r} has {member.size:,} bytes, over the limit of {MAX_TEXT:,}; shorten it"
    try:
        text = _bytes(path, member.offset_data, member.size).decode("utf-8").removeprefix("\ufeff")
        values = json_columns(text) if ending == "json" else {"text" if ending == "txt" else ending: text}
    except (ValueError, TypeError, RecursionError, BadTableError) as error:
        return f"{member.name!r} cannot be read ({str(error)[:100]}); correct it"
    sample.update({name: value for name, value in values.items() if name not in ("__key__", IMAGE)})
    return None


def _bytes(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
