"""A step's result in an object store: a `StepFolder` of this machine, of which every file is put into the store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from sae_lens_meme.errors import ConfigError, MemeError, StorageError
from sae_lens_meme.storage.files import read_json, remove, sha256_file
from sae_lens_meme.storage.folder import StepFolder, told_difference
from sae_lens_meme.storage.manifest import MANIFEST, SUCCESS
from sae_lens_meme.storage.stores import Store, url_of
from sae_lens_meme.storage.through import end_replacing, remove_all, upload

STEPS = ("corpus", "ocr", "embed", "attribute")
"""Steps whose results may lie in a store; those of the others lie on this machine."""


class InStore(StepFolder):
    """As `StepFolder`; `path` is the mirror. A file that the store has is copied there when it is asked for."""

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
        url = url_of(path)
        assert url is not None
        if step not in STEPS or keep or own:
            raise ConfigError(
                f"{url}: this result of {step!r} is written to a folder of this machine only (a store takes those of "
                f"{', '.join(STEPS)}); choose a local --out and copy it"
            )
        self._store, self._stored, self._may_replace = Store(url), dict[str, str](), overwrite
        self._replaced: dict[str, Any] | None = None
        self._begun, self._unnamed = False, cast(str | None, None)
        """Whether this run has put the first manifest, and a file that is being put and that no manifest names yet."""
        super().__init__(self._store.mirror, step, fingerprint, overwrite=True)  # of the mirror

    def __enter__(self) -> InStore:
        self._store.require_free()
        end_replacing(self._store)
        if (there := self._store.manifest()) is not None:
            self._replaced = there if self._replaces(there) else None
            self._stored = {} if self._replaced else dict(there["files"])
        elif strangers := [name for name in self._store.names() if not name.startswith(".")]:
            raise StorageError(
                f"{self._store.url}: holds files that are not a result of {self.step!r} ({strangers[0]!r}, ...); "
                "choose another --out"
            )
        if (manifest := self.home / MANIFEST).exists() and not self._is_this(read_json(manifest)):
            remove(self.home)  # the mirror is of a result that is not in the store any more
        super().__enter__()
        if self._replaced is not None:
            return self
        self._files = dict(self._stored)  # what a stopped run did not put is made again
        if there is None or not self._is_this(there):
            self._begin(there is not None)
        return self

    def _begin(self, leftovers: bool) -> None:
        """Have the folder known as ours, whatever happens; what a run left that named nothing is not of this result."""
        try:
            if leftovers:
                remove_all(self._store, "")
            self._save_manifest({})
            self._begun = True
            self._store.put(MANIFEST)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and self._replaced is None:
            with suppress(MemeError):  # the store may be what failed
                self._take_back()
        super().__exit__(kind, error, traceback)

    def _take_back(self) -> None:
        """What was put and is not named, and the manifest if it names nothing. Named files are for the next run."""
        if self._unnamed is not None:
            self._store.remove(self._unnamed)
        if self._begun and not self._stored and not (self._store.manifest() or {"files": {}})["files"]:
            self._store.remove(MANIFEST)

    @property
    def complete(self) -> bool:
        return self._replaced is None and self._store.exists(SUCCESS) and all(self.has(name) for name in self._stored)

    def has(self, name: str) -> bool:
        """The store has the file as an earlier run wrote it, and now the mirror has it too."""
        if self._replaced is not None:
            return super().has(name)
        if name not in self._stored or not self._store.exists(name):
            return False
        self._files[name] = self._stored[name]
        if not super().has(name):
            self._store.get(name, self._stored[name])
        return True

    def write(self, name: str, write: Callable[[Path], object]) -> Path:
        if self.has(name):
            return self.path / name
        target = super().write(name, write)
        if self._replaced is not None:  # the old result stays until this one is whole
            return target
        self._unnamed = name
        self._store.put(name)
        self._store.put(MANIFEST)  # names the file once it is there
        self._stored[name], self._unnamed = sha256_file(target), None
        return target

    def reopen(self) -> None:
        if self._replaced is None:
            self._store.remove(SUCCESS)
        super().reopen()

    def finish(self, **facts: Any) -> None:
        super().finish(**facts)
        if self._replaced is not None:
            upload(self._store, self._replaced)
            return
        self._store.put(MANIFEST)
        self._store.put(SUCCESS)

    def _require_no_other(self, earlier: dict[str, Any]) -> None:
        """The mirror of another result, of which the store has its own."""

    def _is_this(self, manifest: dict[str, Any]) -> bool:
        return (manifest.get("step"), manifest.get("fingerprint")) == (self.step, self.fingerprint)

    def _replaces(self, there: dict[str, Any]) -> bool:
        """Whether a finished result of another fingerprint is there, and may be replaced.

        Raises:
            StorageError: it may not, or is of another step.
        """
        finished = self._store.exists(SUCCESS)
        of_this_step = there.get("step") == self.step
        if self._is_this(there) or (of_this_step and not (there["files"] or finished)):
            return False
        if of_this_step and self._may_replace and finished:
            return True
        what, advice = there.get("step"), "choose another --out"
        if of_this_step:
            what = told_difference(there.get("fingerprint") or {}, self.fingerprint)
            begun = "it is not finished: remove it" if self._may_replace else "pass --overwrite to replace it"
            advice = f"{begun} or {advice}"
        raise StorageError(f"{self._store.url}: holds a different result ({what}); {advice}")
