"""Examines every picture once: whether it can be decoded, its SHA-256, and the hashes that near duplicates share.

What was seen is kept in the corpus (`pictures/`), so that a killed run does not repeat the work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64
from PIL import Image

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
    """Those of `perceptual_hashes`; None for a plain picture."""
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
            step.write_text(name, text)
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


PLAIN = 2.0
"""Below this standard deviation of its grey values (of 255) a picture has no shape to compare."""
_BITS = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def perceptual_hashes(image: Image.Image) -> tuple[int, int] | None:
    """`phash` (low frequencies) and `dhash` (gradients) of `imagehash`, 64 bits each; None for a plain picture.

    Two, because one is not enough: of 4.5 million pairs of drawn pictures that differ, 193 agree within 4 bits of
    `phash`, and 12 of these within 8 bits of `dhash` as well.
    """
    import imagehash

    grey = image.convert("L")
    if np.asarray(grey.resize((32, 32))).std() < PLAIN:
        return None
    low, gradients = imagehash.phash(grey), imagehash.dhash(grey)
    return int(str(low), 16), int(str(gradients), 16)


def near_pairs(hashes: Sequence[tuple[int, int]], most: int) -> Int[np.ndarray, "pairs 2"]:
    """Pairs whose `phash` differ in at most `most` bits, and whose `dhash` in at most twice as many.

    Hashes that differ in `most` bits are equal in at least one of `most + 1` bands of bits, so only hashes that share a
    band are compared: two seconds for 200,000 pictures and 4 bits, a minute for 8 bits.
    """
    table = np.array(hashes, dtype=np.uint64).reshape(-1, 2)
    low, gradients = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
    edges = np.linspace(0, 64, most + 2).round().astype(int)
    found = [np.empty((0, 2), np.int64)]
    for start, end in pairwise(edges.tolist()):
        band = (low >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        order = np.argsort(band, kind="stable")
        for first, second in _same_band(band[order]):
            one, other = order[first], order[second]
            close = differing_bits(low[one], low[other]) <= most
            one, other = one[close], other[close]
            close = differing_bits(gradients[one], gradients[other]) <= 2 * most
            found.append(np.sort(np.stack([one[close], other[close]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _same_band(band: UInt64[np.ndarray, " n"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of all pairs of equal entries of a sorted array, the pairs of one distance at a time."""
    first = np.arange(len(band))
    for distance in count(1):
        first = first[first + distance < len(band)]
        first = first[band[first] == band[first + distance]]
        if not len(first):
            return
        yield first, first + distance


def differing_bits(one: UInt64[np.ndarray, " n"], other: UInt64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Hamming distance of 64-bit hashes (numpy counts bits itself only from 2.0 on)."""
    return _BITS[(one ^ other).view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.int64)
