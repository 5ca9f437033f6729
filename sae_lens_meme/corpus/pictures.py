"""The picture of a row: a file, or bytes inside a Parquet or Arrow file. Neither is opened before it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.errors import BadImageError
from sae_lens_meme.images import read_image_file


class Embedded(NamedTuple):
    """A picture inside a table."""

    read: Callable[[], Any]
    size: int | None  # bytes; None: the table holds only the path
    path: str | None


def read_picture(picture: Path | Embedded, name: str) -> bytes:
    """The bytes of a picture.

    Raises:
        BadImageError: there is none, or it cannot be read.
    """
    if isinstance(picture, Path):
        return read_image_file(picture, name=name)
    if not picture.size:
        raise BadImageError(f"image {name!r} is empty in the table; write its bytes or its path there")
    return picture.read()


def picture_size(picture: Path | Embedded) -> int | None:
    """Bytes, None if there is no such picture."""
    if not isinstance(picture, Path):
        return picture.size
    try:
        return picture.stat().st_size
    except (OSError, ValueError):
        return None


def picture_hash(picture: Path | Embedded, name: str) -> str | None:
    """SHA-256 of its bytes; None where it cannot be read."""
    with suppress(BadImageError):
        return hashlib.sha256(read_picture(picture, name)).hexdigest()
