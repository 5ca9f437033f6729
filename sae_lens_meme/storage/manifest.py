"""The manifest of a result folder: which step wrote it, of what, and the hash of every file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sae_lens_meme.errors import StorageError
from sae_lens_meme.storage.files import read_json, sha256_file
from sae_lens_meme.storage.stores import MANIFEST, SUCCESS, fetched

SCHEMA = 1
VERIFY = "SAE_LENS_MEME_VERIFY"
_PARTS = {"step": str, "fingerprint": dict, "files": dict, "facts": dict}


def read_manifest(folder: str | Path, step: str | None = None) -> dict[str, Any]:
    """The manifest of a result folder; `step` is the kind of result that is expected.

    Raises:
        StorageError: there is none, it is not of this step, or a newer release wrote it.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        kind = f"a result of {step!r}" if step else "a result folder"
        raise StorageError(f"{folder}: is not {kind} (no {MANIFEST}); give the folder that --out named")
    manifest = read_json(path)
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is not int:  # true is an int, too
        raise StorageError(
            f"{path}: names no schema, so this package did not write it; restore it or choose another folder"
        )
    if schema > SCHEMA:
        raise StorageError(f"{path}: has schema {schema}, this release reads up to {SCHEMA}; upgrade sae-lens-meme")
    for part, kind in _PARTS.items():
        if not isinstance(manifest.get(part), kind):
            raise StorageError(f"{path}: {part} is {manifest.get(part)!r}, not a {kind.__name__}; restore the file")
    if step is not None and manifest["step"] != step:
        raise StorageError(
            f"{folder}: holds the result of {manifest['step']!r}, not of {step!r}; give the folder that {step!r} wrote"
        )
    return manifest


def read_finished(folder: str | Path, step: str) -> dict[str, Any]:
    """Like `read_manifest`, but the step must have ended, and its files are as it wrote them."""
    folder = fetched(folder)
    manifest = read_manifest(folder, step)
    if not (Path(folder) / SUCCESS).exists():
        raise StorageError(f"{folder}: the {step} step was interrupted; run it again to finish it")
    verify(folder)
    return manifest


_verified: set[tuple[Path, str]] = set()
"""Folders, and the hash of the manifest that their files agreed with: each is read once a process."""


def verify(folder: str | Path) -> None:
    """Compare the files of a result, or of a folder in one, with the hashes that its step wrote down.

    A folder without a manifest is somebody else's, and is not compared with anything. Setting `SAE_LENS_MEME_VERIFY=0`
    (`sae-lens-meme --no-verify COMMAND`) leaves it out.

    Raises:
        StorageError: a file is missing or has changed.
    """
    folder = Path(folder).absolute()
    owner = next((place for place in (folder, *folder.parents[:2]) if (place / MANIFEST).is_file()), None)
    if owner is None or os.environ.get(VERIFY) == "0" or (seen := (folder, sha256_file(owner / MANIFEST))) in _verified:
        return
    manifest = read_manifest(owner)
    for name, sha256 in manifest["files"].items():
        file = owner / name
        if not file.is_relative_to(folder) or (file.is_file() and sha256_file(file) == sha256):
            continue
        what = "has changed since" if file.is_file() else "is missing, but"
        raise StorageError(
            f"{file}: {what} {manifest['step']!r} wrote it; run {manifest['step']!r} again with the same options: it makes "
            "what is damaged anew (or read it as it is: sae-lens-meme --no-verify ...)"
        )
    _verified.add(seen)


def open_dataset(folder: str | Path) -> Any:
    """`datasets.load_from_disk`, checked: Arrow ends the process where it reads beyond a damaged column.

    Raises:
        StorageError: the folder is damaged, or no dataset.
    """
    from datasets import DatasetDict, load_from_disk

    folder = fetched(folder)
    verify(folder)
    try:
        dataset = load_from_disk(str(folder))
        for part in dataset.values() if isinstance(dataset, DatasetDict) else [dataset]:
            part.data.table.validate(full=True)
        return dataset
    except Exception as error:  # a dozen unrelated classes
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"{folder}: cannot be read as a dataset ({reason}); make it again") from None
