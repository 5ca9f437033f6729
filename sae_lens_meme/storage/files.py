"""Files that are there whole or not at all, their hashes, and strict JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sae_lens_meme.errors import StorageError

TEMPORARY = ".writing-"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once it is written and synced.

    Raises:
        StorageError: `path` is a folder, or in none.
    """
    path = Path(path)
    if path.is_dir():
        raise StorageError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise StorageError(f"{path}: there is no folder {str(path.parent)!r}; make it, or choose another place")
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    return parse_json(Path(path).read_bytes(), path)


def parse_json(text: bytes, path: str | Path) -> Any:
    """The value of a UTF-8 text that was read from `path`."""
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: is not valid JSON ({error}); restore it or run the step again") from None


def to_json(value: Any) -> str:
    """Strict JSON (no NaN), keys in the order given, one trailing newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Have the disk write what was written to this file or folder."""
    folder = path.is_dir()
    if folder and sys.platform == "win32":  # Windows opens no folder; its renames are in the journal
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows syncs only what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
