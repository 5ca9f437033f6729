"""Write a planted corpus: harmless memes whose labels have known causes, in the three original layouts.

Pictures are written in blocks; a block's list of hashes is its receipt, so that a killed run
resumes where it stopped and ends byte for byte the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_lens_meme.errors import StorageError
from sae_lens_meme.planted.answer_key import CAUSES_FILE, FACTORS, PLACES, causes_as_json, write_factors
from sae_lens_meme.planted.options import PLAIN, PlantedOptions
from sae_lens_meme.planted.originals import original_tables
from sae_lens_meme.planted.places import write_places
from sae_lens_meme.planted.rows import PlantedMeme, planted_memes
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import StepFolder, read_json, sha256_file, to_json

VERSION = 3  # of the drawings, the words and the shares: a change of any output raises it
_BLOCK = 500
_FORMATS = {".png": "PNG", ".bmp": "BMP"}  # any other extension is a JPEG


@dataclass(frozen=True)
class PlantedPaths:
    """The three folders in the original layouts, and the folder with the answer key."""

    pridemm: Path
    hmc: Path
    memotion: Path
    answer_key: Path


def write_planted(
    out: str | Path,
    options: PlantedOptions | None = None,
    *,
    progress: bool = True,
    overwrite: bool = False,
    **given: Any,
) -> PlantedPaths:
    """Write 6,035 memes times `scale` below `out`; what an earlier run has written well is kept.

    Args:
        options: or its fields as keywords, see `PlantedOptions`.

    Raises:
        ConfigError: `scale` or `seed` is out of range.
        StorageError: `out` holds something else, or another process writes it.
    """
    options = options if options is not None else PlantedOptions(**given)
    memes = list(planted_memes(options.seed, options.scale, options.world))
    fingerprint = {"seed": options.seed, "scale": options.scale, "version": VERSION}
    if options.world != PLAIN:  # the plain world is as old as the corpus: its folders do not name it
        fingerprint["world"] = options.world
    with StepFolder(out, "planted", fingerprint, overwrite=overwrite) as step:
        # first, because it makes the manifest: without one a killed run would look like a stranger's folder
        step.write(f"answer_key/{CAUSES_FILE}", lambda path: _write_text(path, to_json(causes_as_json(options.world))))
        _write_pictures(step, memes, progress)
        if not step.complete:
            _write_tables(step, memes)
            os.sync()  # the pictures were not synced one by one
            step.finish(memes=len(memes))
    return planted_paths(out)


def planted_paths(out: str | Path) -> PlantedPaths:
    out = Path(out)
    return PlantedPaths(out / "PrideMM", out / "HMC", out / "Memotion", out / "answer_key")


def _write_pictures(step: StepFolder, memes: Sequence[PlantedMeme], progress: bool) -> None:
    with progress_bar("draw planted memes", len(memes), show=progress) as advance:
        for name, block in _blocks(memes):
            hashes = _receipt(step.path / name)
            for meme in block:
                if not _intact(step.path / meme.path, hashes.get(meme.path)):
                    step.reopen()
                    hashes[meme.path] = _write_picture(meme, step.path / meme.path)
                advance(1)
            step.write(name, lambda path, hashes=hashes: _write_text(path, to_json(hashes)))


def _blocks(memes: Sequence[PlantedMeme]) -> Iterator[tuple[str, Sequence[PlantedMeme]]]:
    for start in range(0, len(memes), _BLOCK):
        yield f"pictures/block-{start // _BLOCK:04d}.json", memes[start : start + _BLOCK]


def _receipt(path: Path) -> dict[str, str]:
    try:
        return read_json(path)
    except (FileNotFoundError, StorageError):  # never written, or damaged since: its pictures are drawn again
        return {}


def _intact(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and path.is_file() and sha256_file(path) == sha256


def _write_picture(meme: PlantedMeme, path: Path) -> str:
    """Draw a picture under a temporary name and rename it; returns its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}")
    try:
        meme.draw().save(temporary, _FORMATS.get(path.suffix.lower(), "JPEG"), quality=92)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256_file(path)


def _write_tables(step: StepFolder, memes: Sequence[PlantedMeme]) -> None:
    for name, text in original_tables(memes).items():
        step.write(name, lambda path, text=text: _write_text(path, text))
    step.write(f"answer_key/{FACTORS}", lambda path: write_factors(memes, path))
    step.write(f"answer_key/{PLACES}", lambda path: write_places(memes, path))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
