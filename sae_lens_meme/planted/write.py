"""Write a planted corpus: harmless memes whose labels have known causes, in the three original layouts.

Pictures are written in blocks; a block's list of hashes is its receipt, so that a killed run
resumes where it stopped and ends byte for byte the same.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.errors import StorageError
from sae_lens_meme.labels import LEVELS
from sae_lens_meme.planted.answer_key import CAUSES_FILE, FACTORS, PLACES, causes_as_json, write_factors
from sae_lens_meme.planted.options import PLAIN, PlantedOptions
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
        step.write_text(f"answer_key/{CAUSES_FILE}", to_json(causes_as_json(options.world)))
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
            step.write_text(name, to_json(hashes))


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
        step.write_text(name, text)
    step.write(f"answer_key/{FACTORS}", lambda path: write_factors(memes, path))
    step.write(f"answer_key/{PLACES}", lambda path: write_places(memes, path))


_SHARED_DEV = 0.8  # of dev_seen comes again in dev_unseen


def original_tables(memes: Sequence[PlantedMeme]) -> dict[str, str]:
    """`{path below the written folder: the table's text}`."""
    streams: dict[str, list[PlantedMeme]] = {}
    for meme in memes:
        streams.setdefault(meme.stream, []).append(meme)
    pridemm, memotion = streams.pop("pridemm"), streams.pop("memotion")
    dev = streams["dev_seen"]
    streams["dev_unseen"] = dev[: round(_SHARED_DEV * len(dev))] + streams["dev_unseen"]
    hmc = {f"HMC/{split}.jsonl": _hmc_table(part) for split, part in streams.items()}
    return {"PrideMM/PrideMM.csv": _pridemm_table(pridemm), **hmc, "Memotion/labels.csv": _memotion_table(memotion)}


def _pridemm_table(memes: Sequence[PlantedMeme]) -> str:
    """`target` is `NA`, as the release spells it, exactly where hate is 0; humour is 0 or 1; 10 % are test, 4.5 % val."""
    order = np.random.default_rng([memes[0].seed]).permutation(len(memes)) / len(memes)
    rows = []
    for meme, place in zip(memes, order, strict=True):
        split = "test" if place < 0.1 else "val" if place < 0.145 else "train"
        labels, humour = meme.labels, int(meme.labels["humor"] > 0)
        rows.append(
            [meme.name, labels["hate"], labels.get("target", "NA"), labels["stance"], humour, split, meme.caption]
        )
    return _csv(["name", "hate", "target", "stance", "humour", "split", "text"], rows)


def _hmc_table(memes: Sequence[PlantedMeme]) -> str:
    rows = [
        {"id": meme.name[:5], "img": f"img/{meme.name}", "label": meme.labels["hate"], "text": meme.caption}
        for meme in memes
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _memotion_table(memes: Sequence[PlantedMeme]) -> str:
    """Levels as words; a few captions are missing from `text_ocr`, and fewer from `text_corrected`, never both."""
    names = {"humour": "humor", "sarcasm": "sarcasm", "offensive": "offensive"}
    names |= {"motivational": "motivational", "overall_sentiment": "sentiment"}
    rows = []
    for i, meme in enumerate(memes):
        read = "" if i % 43 == 7 else meme.caption.upper().replace("O", "0")
        corrected = "" if i % 1400 == 119 else meme.caption
        labels = [LEVELS[label][meme.labels[label]] for label in names.values()]
        rows.append([i, meme.name, read if corrected else meme.caption, corrected, *labels])
    return _csv(["", "image_name", "text_ocr", "text_corrected", *names], rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
