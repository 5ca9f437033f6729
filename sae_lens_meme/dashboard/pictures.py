"""Pictures of the report: decoded by the one function that opens untrusted files, made small, written without metadata."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from sae_lens_meme.errors import BadImageError
from sae_lens_meme.images import open_image

QUALITY = 70
FEW_COLOURS = 4096
"""A drawing, a screenshot: smaller without loss."""
_WORKERS = 4


def data_uris(corpus: Any, rows: Sequence[int | None], pixels: int) -> list[str | None]:
    """One `data:` URI a row of the corpus; None for None, and for a picture that cannot be read.

    Args:
        corpus: a dataset with a column `image` of undecoded pictures.
        pixels: longest side.
    """
    places = [row for row in rows if row is not None]
    found = corpus.select_columns(["image"])[places]["image"] if places else []
    with ThreadPoolExecutor(_WORKERS) as pool:  # Pillow works outside the interpreter lock
        made = iter(list(pool.map(lambda picture: _data_uri(picture, pixels), found)))
    return [None if row is None else next(made) for row in rows]


def _data_uri(picture: Any, pixels: int) -> str | None:
    try:
        image = open_image(picture["bytes"])
    except (BadImageError, TypeError, KeyError):
        return None
    image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    drawn = image.getcolors(FEW_COLOURS) is not None
    clean = Image.frombytes("RGB", image.size, image.tobytes())  # no EXIF, no profile, no comment
    clean.save(file, "WEBP", **({"lossless": True} if drawn else {"quality": QUALITY, "method": 4}))
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
