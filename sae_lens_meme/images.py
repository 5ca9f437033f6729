"""One function opens every picture of an untrusted corpus: it returns RGB or raises `BadImageError`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from sae_lens_meme.errors import BadImageError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
MAX_PIXELS = 50_000_000

_KINDS = {
    b"\xff\xd8": "JPEG with a damaged header",
    b"\x89PNG": "PNG with a damaged header",
    b"GIF8": "GIF with a damaged header",
    b"RIFF": "WEBP with a damaged header",
    b"BM": "BMP with a damaged header",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"version https://git-lfs": "a Git LFS pointer",
}


def open_image(source: str | Path | bytes, *, name: str | None = None) -> Image.Image:
    """Decode the first frame as 8-bit RGB: upright (EXIF), transparency on white, 16 bits scaled to 8.

    Args:
        source: a path, or the bytes of the file.
        name: what messages call it, default the path.

    Raises:
        BadImageError: not one of `FORMATS`, damaged, truncated, or over `MAX_PIXELS` (read from the header).
    """
    if isinstance(source, bytes):
        return _decode(source, name or "(bytes)")
    return _decode(read_image_file(source, name=name), name or str(source))


def small_webp(image: Image.Image, longest: int = 384) -> tuple[bytes, tuple[int, int]]:
    """A picture made small and encoded again, so that nothing but its pixels is kept; and its size."""
    small = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())  # without profile and comments
    small.thumbnail((longest, longest))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80)
    return out.getvalue(), small.size


def data_uri(image: Image.Image, longest: int, *, blurred: bool = False) -> str:
    """A small picture as an address that needs no file; blurred in its pixels, where no style sheet can take it off."""
    if blurred:
        image = (
            image.convert("RGB").resize((6, 6)).resize(image.size).filter(ImageFilter.GaussianBlur(image.width / 12))
        )
    return "data:image/webp;base64," + base64.b64encode(small_webp(image, longest)[0]).decode("ascii")


def read_image_file(path: str | Path, *, name: str | None = None) -> bytes:
    """The bytes of a picture's file.

    Raises:
        BadImageError: there is no such file, or it cannot be read.
    """
    try:
        if not Path(path).is_file():  # opening a named pipe would wait for ever
            raise BadImageError(f"image {name or str(path)!r} does not exist or is not a file; check the path")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, BadImageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise BadImageError(f"image {name or str(path)!r} cannot be read ({reason}); check the path") from None


def _decode(data: bytes, name: str) -> Image.Image:
    what = f"image {name!r}"
    if not data:
        raise BadImageError(f"{what} is empty (0 bytes); re-download it")
    image = _open_header(data, what)
    kind, (width, height) = image.format, image.size
    if width * height > MAX_PIXELS:
        raise _too_large(what, f"{width} x {height}")
    try:
        if kind == "PNG":
            _check_png_chunks(data)
        image.load()
        return _to_rgb(_upright(image))
    # Pillow's decoders let a dozen kinds of exception out of damaged files (SyntaxError, struct.error, EOFError ...)
    except Exception as error:
        raise BadImageError(_damage(what, str(kind), len(data), error)) from None


def _open_header(data: bytes, what: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(what, "more than 100 megapixels") from None
    except Exception:
        raise BadImageError(
            f"{what} ({len(data):,} bytes) is {_kind(data)}, not a readable {', '.join(FORMATS)}; re-download or convert it"
        ) from None


def _too_large(what: str, size: str) -> BadImageError:
    return BadImageError(f"{what} has {size} pixels, over the limit of {MAX_PIXELS:,}; make it smaller")


def _kind(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<"):
        return "SVG" if b"<svg" in start else "HTML" if b"<html" in start or b"<!doctype html" in start else "XML text"
    return next((kind for magic, kind in _KINDS.items() if data.startswith(magic)), "of an unknown kind")


def _check_png_chunks(data: bytes) -> None:
    """Pillow does not check the CRC of pixel data when it decodes; `verify` does."""
    Image.open(io.BytesIO(data), formats=("PNG",)).verify()


def _damage(what: str, kind: str, size: int, error: Exception) -> str:
    text = str(error).lower()
    if "truncated" in text or isinstance(error, EOFError):
        return f"{what} is truncated after {size:,} bytes ({kind}); re-download it"
    return f"{what} ({kind}, {size:,} bytes) is damaged ({str(error) or type(error).__name__}); re-download it"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF beside sound pixels: common on the web, and the pixels are what counts
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _scale_to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion of 16-bit grey clips at 255 where it should divide."""
    grey = np.asarray(image).astype(np.int64).clip(0, 65535)
    scaled = ((grey + 128) // 257).astype(np.uint8)
    hidden = image.info.get("transparency")
    if hidden is None:
        return Image.fromarray(scaled)
    opaque = np.where(grey == hidden, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(scaled), Image.fromarray(opaque)))
