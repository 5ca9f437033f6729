"""Finds the files of a source's original layout; a message names what was looked for and what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sae_lens_meme.errors import BadTableError


def source_folder(root: str | Path, source: str) -> Path:
    """The folder of a source; raises BadTableError if there is none."""
    root = Path(root)
    if not root.is_dir():
        raise BadTableError(f"{root}: no such folder; give the folder of {source}")
    return root


def find_file(root: Path, names: Sequence[str], *, or_only: Sequence[str] = ()) -> Path:
    """The first of `names` in `root` (upper and lower case alike), else its only file that ends as `or_only` says."""
    here = sorted(entry for entry in root.iterdir() if entry.is_file())
    by_name = {entry.name.casefold(): entry for entry in here}
    for name in names:
        if name.casefold() in by_name:
            return by_name[name.casefold()]
    others = [entry for entry in here if entry.suffix.lower() in or_only]
    if len(others) == 1:
        return others[0]
    looked_for = " or ".join((*names, *(f"one *{suffix}" for suffix in or_only)))
    raise BadTableError(f"{root}: looked for {looked_for}, found {_listing(root)}; give the folder as it was released")


def image_folder(root: Path, names: Sequence[str]) -> str:
    """The first of `names` that is a folder in `root`, with a slash behind; '' if the pictures lie in `root`."""
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()}
    return next((f"{name}/" for name in names if name in folders), "")


def _listing(root: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    shown = ", ".join(names[:6]) or "nothing"
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
