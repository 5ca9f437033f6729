"""Examines every picture once: whether it can be decoded, its SHA-256, and the hashes that near duplicates share.

What was seen is kept in the corpus (`pictures/`), so that a killed run does not repeat the work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from sae_lens_meme.corpus.near import perceptual_hashes
from sae_lens_meme.corpus.pictures import picture_size, read_picture
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.errors import BadImageError
from sae_lens_meme.images import open_image
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import StepFolder

FOLDER = "pictures"
WORKERS = min(8, os.cpu_count() or 1)  # each may hold a picture of 50 megapixels


class PictureHashes(NamedTuple):
    """What there is to know of a picture."""

    sha256: str | None
    hashes: tuple[int, int] | None
    """Those of `near.perceptual_hashes`; None for a plain picture."""
    error: str | None = None
    """Why it cannot be decoded."""


def survey(
    step: StepFolder, rows: Sequence[Row], size: int, bad: BadRows, *, progress: bool
) -> dict[Row, PictureHashes]:
    """What is seen in the picture of each row; pictures that cannot be decoded go to `bad`.

    Args:
        size: how many pictures are written down together.

    Raises:
        BadImageError: a picture cannot be decoded and `bad` raises.
    """
    parts = [
        (f"{FOLDER}/{i:05d}.jsonl", rows[start : start + size]) for i, start in enumerate(range(0, len(rows), size))
    ]
    seen: dict[Row, PictureHashes] = {}
    missing = [name for name, _ in parts if not step.has(name)]
    total = sum(len(part) for name, part in parts if name in set(missing))
    with progress_bar("pictures", total, show=progress) as advance, ThreadPoolExecutor(WORKERS) as pool:
        for name, part in parts:
            looks = _looks(pool, part, bad, advance) if name in missing else _read(step.path / name)
            for row, look in zip(part, looks, strict=True):
                _require(row, look, bad)
            text = "".join(_line(row, look) for row, look in zip(part, looks, strict=True))
            step.write(name, lambda path, text=text: path.write_text(text, encoding="ascii"))
            seen.update(zip(part, looks, strict=True))
    return seen


def look_at(row: Row) -> PictureHashes:
    """Decode the picture of a row. Pillow and the hashes work outside the interpreter lock."""
    try:
        data = read_picture(row.picture, row.image)
        return PictureHashes(hashlib.sha256(data).hexdigest(), perceptual_hashes(open_image(data, name=row.image)))
    except BadImageError as error:
        return PictureHashes(None, None, str(error))


def _looks(
    pool: ThreadPoolExecutor, rows: Sequence[Row], bad: BadRows, advance: Callable[..., None]
) -> list[PictureHashes]:
    looks = []
    for row, look in zip(rows, pool.map(look_at, rows), strict=True):
        if bad.on_bad == "raise":  # at once, not when the part is whole
            _require(row, look, bad)
        looks.append(look)
        advance(1)
    return looks


def _require(row: Row, look: PictureHashes, bad: BadRows) -> None:
    if look.error is not None:
        kind = "broken picture" if picture_size(row.picture) else "missing picture"
        bad.add(row.as_bad(kind, look.error), BadImageError)


def _line(row: Row, look: PictureHashes) -> str:
    hashes = None if look.hashes is None else [f"{code:016x}" for code in look.hashes]
    return json.dumps({"id": row.id, "sha256": look.sha256, "hashes": hashes, "error": look.error}) + "\n"


def _read(path: Path) -> list[PictureHashes]:
    found = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    return [PictureHashes(look["sha256"], _codes(look["hashes"]), look["error"]) for look in found]


def _codes(hashes: list[str] | None) -> tuple[int, int] | None:
    return None if hashes is None else (int(hashes[0], 16), int(hashes[1], 16))
