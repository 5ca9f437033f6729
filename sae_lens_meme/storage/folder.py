"""One folder a step, a manifest with hashes, `_SUCCESS` last.

Every file is written under a temporary name in its own folder, synced, and renamed.
A step that is run again keeps the files whose hash is still right and redoes the rest. A result that replaces another
one is made beside it and takes its place when it is whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from sae_lens_meme.errors import MemeError, StorageError
from sae_lens_meme.storage.files import (
    TEMPORARY,
    atomic_file,
    read_json,
    remove,
    sha256_file,
    sync,
    to_json,
    write_text,
)
from sae_lens_meme.storage.manifest import MANIFEST, SCHEMA, SUCCESS, read_manifest
from sae_lens_meme.storage.stores import url_of

if TYPE_CHECKING:
    import pandas as pd

LOCK, REPLACING = ".lock", ".replacing"


class StepFolder:
    """One step's result. Use it as a context manager: it holds the folder's lock.

    Args:
        path: the folder; it is made if it is not there. Of some steps also one in an object store, see `in_store`.
        step: the step's name, such as `embed`; a folder that holds another step's result is refused.
        fingerprint: everything that changes a number of the result (JSON values).
        overwrite: replace a result of this step with another fingerprint instead of refusing it. It stays until the new one
            is whole.
        keep: results of other steps that live inside this folder; they are left alone.
        own: steps whose results inside this folder are parts of this one, and replaced with it.

    Attributes:
        home: the folder that was asked for.
        path: where files are written: `home`, or a folder in it while another result is being replaced.

    Raises:
        StorageError: another process holds the folder, it holds a different result, or inside the one to be replaced lies
            one of another step, the disk is full, or nothing can be written there and this result is not finished.
    """

    def __new__(cls, path: str | Path, *_: Any, **__: Any) -> StepFolder:
        """One in an object store where `path` is the address of a folder there."""
        if cls is StepFolder and url_of(path) is not None:
            from sae_lens_meme.storage.in_store import InStore

            return object.__new__(InStore)
        return super().__new__(cls)

    def __init__(
        self,
        path: str | Path,
        step: str,
        fingerprint: dict[str, Any],
        *,
        overwrite: bool = False,
        keep: tuple[str, ...] = (),
        own: tuple[str, ...] = (),
    ):
        self.home = self.path = Path(path)
        self.step = step
        self.fingerprint = json.loads(to_json(fingerprint))
        self._overwrite = overwrite
        self._keep, self._own = keep, own
        self._files: dict[str, str] = {}
        self._is_new, self._made = False, list[Path]()
        """Whether no run was here before, and the folders that this one makes, the innermost first."""
        self._lock = filelock.FileLock(self.home / LOCK, timeout=0, thread_local=False)

    def __enter__(self) -> StepFolder:
        self._refuse_foreign_folder()
        self._is_new = not (self.home / MANIFEST).exists()
        self._made = [folder for folder in (self.home, *self.home.parents) if not folder.exists()]
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            if not self._acquire():
                self._adopt_finished()
                return self
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

    def _acquire(self) -> bool:
        """Take the lock; False where nothing can be written."""
        try:
            self._lock.acquire()
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return False
        return True

    def _adopt_finished(self) -> None:
        """A finished result is only read."""
        earlier = read_manifest(self.home) if (self.home / SUCCESS).exists() else None
        if earlier is None or (earlier["step"], earlier["fingerprint"]) != (self.step, self.fingerprint):
            raise StorageError(
                f"{self.home}: nothing can be written there, and it does not hold this {self.step} result, finished; "
                "choose another --out or allow writing"
            )
        self._files = dict(earlier["files"])

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and self.path != self.home and not self._files:
            remove(self.path)
        if error is not None and self._lock.is_locked and self._made_nothing():
            self._leave_nothing()
        self._lock.release()
        if error is not None and _is_full_disk(error, self.home):
            raise StorageError(
                f"{self.home}: the disk is full; free some space and run the same command again, it goes on from here"
            ) from error

    def _made_nothing(self) -> bool:
        entries = {entry.name for entry in self.home.iterdir()}
        return self._is_new and not self._files and entries <= {LOCK, MANIFEST}

    def _leave_nothing(self) -> None:
        """Take away what this run has made; the lock last, so that nobody else is inside."""
        (self.home / MANIFEST).unlink(missing_ok=True)
        if sys.platform == "win32":  # which removes no file that is open
            self._lock.release()
        with suppress(OSError):  # another run has begun in them
            (self.home / LOCK).unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()

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

    def write_text(self, name: str, text: str) -> Path:
        """A file of text: UTF-8, its line ends as they are."""
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8", newline=""))

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """A table as Parquet, without its index."""
        return self.write(name, lambda path: table.to_parquet(path, index=False))

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
                remove(entry)
        for name in names:
            if (beside / name).exists():
                os.replace(beside / name, self.home / name)
        sync(self.home)
        write_text(self.home / SUCCESS, "")
        remove(beside)
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
        for leftover in list(self.home.rglob(f"{TEMPORARY}*")):
            remove(leftover)
        if not (self.home / MANIFEST).exists():
            self._save_manifest({})  # from now on the folder is known as ours, whatever happens
            return
        earlier = read_manifest(self.home)
        difference = told_difference(earlier["fingerprint"], self.fingerprint)
        if earlier["step"] != self.step:  # --overwrite was meant for another folder
            raise StorageError(
                f"{self.home}: holds the result of {earlier['step']!r}, not of {self.step!r}; choose another --out"
            )
        if difference is None:
            self._files = dict(earlier["files"])
            remove(self.home / REPLACING)  # what was to replace it is no longer wanted
        elif self._overwrite and (self.home / SUCCESS).exists():
            self._require_no_other(earlier)
            self._build_beside()
        elif self._overwrite or self._is_empty(earlier):
            self._require_no_other(earlier)
            self._clear()
        else:
            raise StorageError(
                f"{self.home}: holds a different result ({difference}); "
                "pass --overwrite to replace it or choose another --out"
            )

    def _require_no_other(self, earlier: dict[str, Any]) -> None:
        """What lies in a result goes when it is replaced, but nobody asked for that of the result of another step."""
        for manifest in sorted(self.home.rglob(MANIFEST)):
            name = manifest.relative_to(self.home)
            if len(name.parts) == 1 or name.parts[0] in (REPLACING, *self._keep) or name.as_posix() in earlier["files"]:
                continue
            if (step := read_manifest(manifest.parent)["step"]) not in self._own:
                raise StorageError(
                    f"{self.home}: --overwrite would remove the result of {step!r} in {manifest.parent}, which is not part of "
                    "this one; move it elsewhere, or choose another --out"
                )

    def _build_beside(self) -> None:
        self.path = self.home / REPLACING
        if (self.path / MANIFEST).exists():
            begun = read_manifest(self.path)
            if (begun["step"], begun["fingerprint"]) == (self.step, self.fingerprint):
                self._files = dict(begun["files"])
                return
        remove(self.path)
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
                remove(entry)

    def _save_manifest(self, facts: dict[str, Any]) -> None:
        manifest = {
            "schema": SCHEMA,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "files": dict(sorted(self._files.items())),
            "facts": facts,
        }
        write_text(self.path / MANIFEST, to_json(manifest))


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], parent: str = "") -> tuple[str, Any, Any] | None:
    """The first key at which two JSON objects differ, with dots, and both values."""
    for key in sorted({*old, *new}):
        there, now = old.get(key), new.get(key)
        if isinstance(there, Mapping) and isinstance(now, Mapping):
            if (inner := first_difference(there, now, f"{parent}{key}.")) is not None:
                return inner
        elif there != now:
            return f"{parent}{key}", there, now
    return None


def told_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """As a refusal to replace a result says it."""
    if (found := first_difference(old, new)) is None:
        return None
    key, there, now = found
    return f"{key}: {_short(there)} there, {_short(now)} now"


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
