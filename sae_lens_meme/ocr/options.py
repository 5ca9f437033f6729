"""The options of `ocr`."""

from __future__ import annotations

from typing import ClassVar, Literal

from sae_lens_meme.engines import ClusterOptions, Kind
from sae_lens_meme.options import File


class OcrOptions(ClusterOptions):
    """What is read, and by which engine."""

    section: ClassVar[str] = "ocr"

    engine: str = "rapidocr"
    """rapidocr (its models are installed with it), or easyocr (install it; it downloads its models at first use)."""
    memes: Literal["missing", "all"] = "missing"
    """Read the memes without a caption, or all: captions that exist are never replaced, but their words get boxes."""
    reuse: File | None = None
    """An earlier result of `ocr` by the same engine; its pictures are not read again."""
    run_on: Kind = "local"
    """local: this process. ray: workers of a Ray cluster (the extra ray installs it), which must see the same folders."""
