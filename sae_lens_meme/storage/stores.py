"""Result folders in an object store (`s3://`, `gs://`, `memory://`, whatever fsspec opens), mirrored on this machine.

A store has neither rename nor lock. A file is put, which a store does as a whole or not at all, and then named in the
manifest; `_SUCCESS` is last. Two runs of one fingerprint write the same bytes, and another fingerprint is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock

from sae_lens_meme.errors import ConfigError, MemeError, StorageError
from sae_lens_meme.storage.files import atomic_file, parse_json, remove, sha256_file, write_text

MANIFEST, SUCCESS, LOCK, PROBE = "manifest.json", "_SUCCESS", ".lock", ".probe"
CACHE = "SAE_LENS_MEME_CACHE"
"""Environment variable: where stores are mirrored; default ~/.cache/sae-lens-meme."""
_URL = re.compile(r"([a-zA-Z][\w+.-]+):(/{1,2})([^/].*)")  # pathlib makes s3:/x of s3://x; C:/x is a drive
_BARE = re.compile(r"([a-zA-Z][\w+.-]+):(/{0,2}|///.*)")  # of `s3://$BUCKET/run` where there is no such variable
_HERE = re.compile(r"(file|local):/")  # what fsspec calls the files of this machine
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Stores without folders: to make one there would make its bucket."""
_EXTRAS = {"s3": 's3fs; pip install "sae-lens-meme[s3]"', "gs": "gcsfs; pip install gcsfs"}


def url_of(folder: str | Path) -> str | None:
    """The address of a folder in a store; None for a folder of this machine, such as one in an existing folder `run:`.

    Raises:
        ConfigError: there is a `::` in it, at which fsspec, and with it `datasets`, cuts a path in two; or it is the address
            of a folder of this machine, of which pathlib takes one slash and fsspec the other; or that of a store without
            a bucket.
    """
    if "::" in str(folder):
        raise ConfigError(f"{folder}: holds '::', at which datasets cuts a path in two; give the folder another name")
    if here := _HERE.match(str(folder)):
        raise ConfigError(f"{folder}: {here[1]} is no store; give the path of the folder without {here[1]}:")
    if (bare := _BARE.fullmatch(str(folder))) and _is_protocol(bare[1]) and not Path(f"{bare[1]}:").is_dir():
        raise ConfigError(f"{folder}: names no bucket; write {bare[1]}://BUCKET/FOLDER")
    found = _URL.fullmatch(str(folder))
    if found is None or (found[2] == "/" and _is_folder_here(found[1])):
        return None
    return f"{found[1]}://{found[3].rstrip('/')}"


def _is_folder_here(scheme: str) -> bool:
    """A folder `run:` of this machine, and not what pathlib made of the address of a store."""
    return not _is_protocol(scheme) and Path(f"{scheme}:").is_dir()


def _is_protocol(scheme: str) -> bool:
    from fsspec import available_protocols

    return scheme in available_protocols()


def require_here(path: str | Path) -> None:
    """Refuse the address of a place in a store, where what is written one file at a time cannot go.

    Raises:
        ConfigError: it is one; pathlib would make a folder `s3:` of it.
    """
    if (url := url_of(path)) is not None:
        raise ConfigError(f"{url}: this is written to a folder of this machine only; choose a local one and copy it")


class Store:
    """A folder in an object store."""

    def __init__(self, url: str):
        self.url = url
        scheme, _, place = url.partition("://")
        safe = [re.sub(r"[^\w.=,-]", lambda odd: quote(odd[0], safe=""), part) for part in (scheme, *place.split("/"))]
        if {"", ".", ".."} & set(safe):
            raise ConfigError(f"{url}: is no address of a folder; write it without empty parts and ..")
        home = os.environ.get(CACHE) or Path.home() / ".cache" / "sae-lens-meme"
        self.mirror = Path(home, *safe)
        """The folder of this machine that holds a copy: of no other address."""
        with _told(url):
            self._fs, self._root = _opened(url)

    def require_free(self) -> None:
        """Before the mirror is made anew.

        Raises:
            StorageError: another process of this machine writes a result in it.
        """
        if not (self.mirror / LOCK).exists():
            return
        try:
            with filelock.FileLock(self.mirror / LOCK, timeout=0):
                pass
        except filelock.Timeout:
            raise StorageError(
                f"{self.url}: another process is writing this result; wait for it or choose another --out"
            ) from None

    def require_writable(self) -> None:
        """Raises StorageError: nothing can be put here, which hours of work would end with."""
        self.put_text(PROBE, "")
        with suppress(StorageError):  # there are stores that only keep
            self.remove(PROBE)

    def names(self) -> list[str]:
        """What lies directly in the folder; not the empty folders that some stores keep when their files go."""
        with _told(self.url):
            self._fs.invalidate_cache()
            if not self._fs.isdir(self._root):
                return []
            found = self._fs.ls(self._root, detail=True)
            paths = [at["name"] for at in found if at["type"] != "directory" or self._has_files(at["name"])]
            return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def _has_files(self, path: str) -> bool:
        return any(files for _, _, files in self._fs.walk(path))

    def exists(self, name: str) -> bool:
        with _told(self.url):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(f"{self._root}/{name}"))

    def read(self, name: str) -> bytes:
        with _told(f"{self.url}/{name}"):
            return self._fs.cat_file(f"{self._root}/{name}")

    def all_names(self) -> list[str]:
        """Every file, also of folders in it."""
        with _told(self.url):
            self._fs.invalidate_cache()
            root = self._root.rstrip("/") + "/"
            return sorted(path.partition(root)[2] or path for path in self._fs.find(self._root))

    def put(self, name: str, to: str | None = None) -> None:
        """Copy a file of the mirror into the store, under the same name if no other one is given."""
        to = name if to is None else to
        with _told(f"{self.url}/{to}"):
            self._make_folder(to)
            self._fs.put_file(str(self.mirror / name), f"{self._root}/{to}")

    def put_text(self, name: str, text: str) -> None:
        with _told(f"{self.url}/{name}"):
            self._make_folder(name)
            self._fs.pipe_file(f"{self._root}/{name}", text.encode())

    def copy(self, name: str, to: str) -> None:
        """Within the store."""
        with _told(f"{self.url}/{to}"):
            self._make_folder(to)
            self._fs.cp_file(f"{self._root}/{name}", f"{self._root}/{to}")

    def get(self, name: str, sha256: str) -> None:
        """Copy a file of the store into the mirror.

        Raises:
            StorageError: it is not what the manifest says.
        """
        target = self.mirror / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            with _told(f"{self.url}/{name}"):
                self._fs.get_file(f"{self._root}/{name}", str(temporary))
            if sha256_file(temporary) != sha256:
                raise StorageError(
                    f"{self.url}/{name}: has changed since it was written; run the step that made it again"
                )

    def remove(self, name: str) -> None:
        if self.exists(name):
            with _told(f"{self.url}/{name}"):
                self._fs.rm_file(f"{self._root}/{name}")

    def _make_folder(self, name: str) -> None:
        if self.url.partition("://")[0] not in _BUCKETS:
            self._fs.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)

    def manifest(self) -> dict[str, Any] | None:
        """What the manifest says; None without one."""
        if not self.exists(MANIFEST):
            return None
        found = parse_json(self.read(MANIFEST), f"{self.url}/{MANIFEST}")
        if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
            raise StorageError(f"{self.url}/{MANIFEST}: is not a manifest of this package; choose another folder")
        for name in found["files"]:
            if name.startswith("/") or "\\" in name or {"..", ""} & set(name.split("/")):
                raise StorageError(f"{self.url}/{MANIFEST}: names a file {name!r} that lies outside; restore it")
        return found


def fetched(folder: str | Path) -> Path:
    """A folder of this machine: the folder itself, or the mirror of a finished result in a store, or of a folder in one.

    Raises:
        StorageError: the store has no finished result there, a file of it has changed, or it cannot be reached.
    """
    if (url := url_of(folder)) is None:
        return Path(folder)
    whole, _, inner = url.rpartition("/")
    if not whole.endswith("/") and not Store(url).exists(MANIFEST) and Store(whole).exists(MANIFEST):
        return _fetched(whole) / inner
    return _fetched(url)


def _fetched(url: str) -> Path:
    store = Store(url)
    if (manifest := store.manifest()) is None:
        raise StorageError(f"{url}: is not a result folder (no {MANIFEST}); give the folder that --out named")
    if not store.exists(SUCCESS):
        raise StorageError(f"{url}: the {manifest.get('step')} step was interrupted; run it again to finish it")
    store.mirror.mkdir(parents=True, exist_ok=True)
    text, here = store.read(MANIFEST), store.mirror
    with filelock.FileLock(here / LOCK):
        if not ((here / SUCCESS).exists() and (here / MANIFEST).read_bytes() == text):
            remove(here / SUCCESS)
            for name, sha256 in manifest["files"].items():
                if not ((here / name).is_file() and sha256_file(here / name) == sha256):
                    store.get(name, sha256)
            write_text(here / MANIFEST, text.decode())
            write_text(here / SUCCESS, "")
    return here


def _opened(url: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(url)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever a library of some store raises, as one line."""
    try:
        yield
    except MemeError:
        raise
    except ImportError:
        scheme = what.partition(":")[0]
        raise ConfigError(f"{what}: needs {_EXTRAS.get(scheme, f'the fsspec library for {scheme}://')}") from None
    except Exception as error:  # a dozen libraries, each with classes of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StorageError(
            f"{what}: the store cannot be used ({reason}); check the address, the network and the keys"
        ) from None
