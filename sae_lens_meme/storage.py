"""Results on disk that survive a crash: one folder a step, a manifest with hashes, `_SUCCESS` last.

Every file is written under a temporary name in its own folder, synced, and renamed.
A step that is run again keeps the files whose hash is still right and redoes the rest. A result that replaces another
one is made beside it and takes its place when it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from sae_lens_meme.errors import MemeError, StorageError

SCHEMA = 1
VERIFY = "SAE_LENS_MEME_VERIFY"
MANIFEST, SUCCESS, LOCK, REPLACING = "manifest.json", "_SUCCESS", ".lock", ".replacing"
_TEMPORARY = ".writing-"
_PARTS = {"step": str, "fingerprint": dict, "files": dict, "facts": dict}


class StepFolder:
    """One step's result. Use it as a context manager: it holds the folder's lock.

    Args:
        path: the folder; it is made if it is not there.
        step: the step's name (`corpus`, `embed`, `train`, `evaluate`).
        fingerprint: everything that changes a number of the result (JSON values).
        overwrite: replace a result of this step with another fingerprint instead of refusing it. It stays until the new one
            is whole.
        keep: results of other steps that live inside this folder; they are left alone.

    Attributes:
        home: the folder that was asked for.
        path: where files are written: `home`, or a folder in it while another result is being replaced.

    Raises:
        StorageError: another process holds the folder, it holds a different result, or the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        step: str,
        fingerprint: dict[str, Any],
        *,
        overwrite: bool = False,
        keep: tuple[str, ...] = (),
    ):
        self.home = self.path = Path(path)
        self.step = step
        self.fingerprint = json.loads(to_json(fingerprint))
        self._overwrite = overwrite
        self._keep = keep
        self._files: dict[str, str] = {}
        self._lock = filelock.FileLock(self.home / LOCK, timeout=0, thread_local=False)

    def __enter__(self) -> StepFolder:
        self._refuse_foreign_folder()
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            if (self.home / REPLACING / SUCCESS).exists():  # an earlier run ended between two renames
                self._take_place()
            self._adopt_earlier_run()
        except filelock.Timeout:
            raise StorageError(
                f"{self.home}: another process is writing this {self.step} result; wait for it or choose another --out"
            ) from None
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and self.path != self.home and not self._files:
            _remove(self.path)
        self._lock.release()
        if error is not None and _is_full_disk(error, self.home):
            raise StorageError(
                f"{self.home}: the disk is full; free some space and run the same command again, it goes on from here"
            ) from error

    @property
    def complete(self) -> bool:
        """The step has ended and every file is as it was written."""
        return (self.path / SUCCESS).exists() and all(self.has(name) for name in self._files)

    def has(self, name: str) -> bool:
        """The file is there and is as an earlier run wrote it."""
        file = self.path / name
        return name in self._files and file.is_file() and sha256_file(file) == self._files[name]

    def write(self, name: str, write: Callable[[Path], object]) -> Path:
        """Have `write(temporary_path)` make the file `name`, unless an earlier run made it."""
        target = self.path / name
        if self.has(name):
            return target
        self.reopen()
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            write(temporary)
        self._files[name] = sha256_file(target)
        self._save_manifest({})
        return target

    def reopen(self) -> None:
        """The result is about to change: it is not complete until `finish`."""
        (self.path / SUCCESS).unlink(missing_ok=True)

    def finish(self, **facts: Any) -> None:
        """Write the facts about the whole result (JSON values), then `_SUCCESS`."""
        self._save_manifest(facts)
        if self.path == self.home:
            write_text(self.path / SUCCESS, "")
            return
        write_text(self.path / SUCCESS, to_json(sorted(entry.name for entry in self.path.iterdir())))
        self._take_place()

    def _take_place(self) -> None:
        """Move a whole result up into `home`. A run that is killed here is finished by the next one."""
        beside = self.home / REPLACING
        names = read_json(beside / SUCCESS)
        (self.home / SUCCESS).unlink(missing_ok=True)
        if (beside / MANIFEST).exists():  # before all others: with it the folder is known as ours
            os.replace(beside / MANIFEST, self.home / MANIFEST)
        for entry in self.home.iterdir():
            is_old = entry.name not in names or (beside / entry.name).exists()
            if is_old and entry.name not in (LOCK, MANIFEST, REPLACING, *self._keep):
                _remove(entry)
        for name in names:
            if (beside / name).exists():
                os.replace(beside / name, self.home / name)
        sync(self.home)
        write_text(self.home / SUCCESS, "")
        _remove(beside)
        self.path = self.home

    def _refuse_foreign_folder(self) -> None:
        if self.home.is_file():
            raise StorageError(f"{self.home}: is a file, not a folder; choose another --out")
        if self.home.resolve() == Path.cwd():
            raise StorageError(f"--out {self.home}: is the working directory; give the result a folder of its own")
        if self.home.is_dir() and not (self.home / MANIFEST).exists():
            strangers = sorted(
                p.name for p in self.home.iterdir() if not p.name.startswith(".") and p.name not in self._keep
            )
            if strangers:
                raise StorageError(
                    f"{self.home}: holds files that are not a result of {self.step!r} ({strangers[0]!r}, ...); choose another --out"
                )

    def _adopt_earlier_run(self) -> None:
        for leftover in list(self.home.rglob(f"{_TEMPORARY}*")):
            _remove(leftover)
        if not (self.home / MANIFEST).exists():
            self._save_manifest({})  # from now on the folder is known as ours, whatever happens
            return
        earlier = read_manifest(self.home)
        difference = _first_difference(earlier["fingerprint"], self.fingerprint)
        if earlier["step"] != self.step:  # --overwrite was meant for another folder
            raise StorageError(
                f"{self.home}: holds the result of {earlier['step']!r}, not of {self.step!r}; choose another --out"
            )
        if difference is None:
            self._files = dict(earlier["files"])
            _remove(self.home / REPLACING)  # what was to replace it is no longer wanted
        elif self._overwrite and (self.home / SUCCESS).exists():
            self._build_beside()
        elif self._overwrite or self._is_empty(earlier):
            self._clear()
        else:
            raise StorageError(
                f"{self.home}: holds a different result ({difference}); "
                "pass --overwrite to replace it or choose another --out"
            )

    def _build_beside(self) -> None:
        self.path = self.home / REPLACING
        if (self.path / MANIFEST).exists():
            begun = read_manifest(self.path)
            if (begun["step"], begun["fingerprint"]) == (self.step, self.fingerprint):
                self._files = dict(begun["files"])
                return
        _remove(self.path)
        self.path.mkdir()
        self._save_manifest({})

    def _is_empty(self, earlier: dict[str, Any]) -> bool:
        """An earlier run was refused before it made anything."""
        ours = {LOCK, MANIFEST, *self._keep}
        return not earlier["files"] and all(entry.name in ours for entry in self.home.iterdir())

    def _clear(self) -> None:
        self.reopen()
        self._save_manifest({})
        for entry in self.home.iterdir():
            if entry.name not in (LOCK, MANIFEST, *self._keep):
                _remove(entry)

    def _save_manifest(self, facts: dict[str, Any]) -> None:
        manifest = {
            "schema": SCHEMA,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "files": dict(sorted(self._files.items())),
            "facts": facts,
        }
        write_text(self.path / MANIFEST, to_json(manifest))


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


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once it is written and synced."""
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
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
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: is not valid JSON ({error}); restore it or run the step again") from None


def open_dataset(folder: str | Path) -> Any:
    """`datasets.load_from_disk`, checked: Arrow ends the process where it reads beyond a damaged column.

    Raises:
        StorageError: the folder is damaged, or no dataset.
    """
    from datasets import DatasetDict, load_from_disk

    verify(folder)
    try:
        dataset = load_from_disk(str(folder))
        for part in dataset.values() if isinstance(dataset, DatasetDict) else [dataset]:
            part.data.table.validate(full=True)
        return dataset
    except Exception as error:  # a dozen unrelated classes
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"{folder}: cannot be read as a dataset ({reason}); make it again") from None


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


def _first_difference(old: dict[str, Any], new: dict[str, Any], parent: str = "") -> str | None:
    for key in sorted(old.keys() | new.keys()):
        there, now = old.get(key), new.get(key)
        if isinstance(there, dict) and isinstance(now, dict):
            if inner := _first_difference(there, now, f"{parent}{key}."):
                return inner
        elif there != now:
            return f"{parent}{key}: {_short(there)} there, {_short(now)} now"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_full_disk(error: BaseException, folder: Path) -> bool:
    """Also of a library that says so in words of its own, or not at all."""
    if isinstance(error, MemeError):  # what a step said of a library's error is not known better than that error
        return error.__cause__ is not None and _is_full_disk(error.__cause__, folder)
    if not isinstance(error, Exception):
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    usage = shutil.disk_usage(there)  # /proc and the like hold nothing, and are not full
    return "No space left" in str(error) or (usage.total > 0 and usage.free < 1 << 16)


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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
