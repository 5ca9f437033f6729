"""Steps over object stores: inputs are mirrored before a step, its result is uploaded whole after it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeGuard, TypeVar

from sae_lens_meme.errors import MemeError, StorageError
from sae_lens_meme.storage.files import read_json, remove, sha256_json, to_json, write_text
from sae_lens_meme.storage.manifest import read_manifest
from sae_lens_meme.storage.stores import LOCK, MANIFEST, SUCCESS, Store, fetched, url_of

BESIDE = ".replacing/"
"""Where a result that replaces another one lies until it is whole."""
P = ParamSpec("P")
R = TypeVar("R")


def through_stores(*inputs: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a step: of its arguments `inputs` and `out`, those that are addresses become folders of this machine."""

    def decorate(step: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(step)

        @functools.wraps(step)
        def through(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            for name in inputs:
                if _is_address(value := given.arguments.get(name)):
                    given.arguments[name] = fetched(value)
            if not _is_address(out := given.arguments.get("out")):
                return step(*given.args, **given.kwargs)
            with _uploaded(str(url_of(out))) as mirror:
                given.arguments["out"] = mirror
                return step(*given.args, **given.kwargs)

        return through

    return decorate


def _is_address(value: Any) -> TypeGuard[str | Path]:
    return isinstance(value, (str, Path)) and url_of(value) is not None


@contextmanager
def _uploaded(url: str) -> Iterator[Path]:
    """The mirror, in which a step finds what the store has and leaves what the store is to have.

    Raises:
        StorageError: files of others are there, or another process writes; or of the step, with the address in place of the
            mirror.
    """
    store = Store(url)
    store.require_free()
    end_replacing(store)
    begun = store.mirror.with_name(f".{store.mirror.name}.begun")
    there, finished = store.manifest(), store.exists(SUCCESS)
    if there is None and (strangers := [name for name in store.names() if not name.startswith(".")]):
        raise StorageError(f"{url}: holds files that are not a result ({strangers[0]!r}, ...); choose another --out")
    if not finished:
        store.require_writable()
    held = sha256_json(there) if finished else ""
    if not _goes_on(begun, held):
        if begun.exists() or not finished:
            remove(store.mirror)
        if finished:
            fetched(url)
    store.mirror.mkdir(parents=True, exist_ok=True)
    if there is not None and not (store.mirror / MANIFEST).exists():  # an upload that was stopped: which step may go on
        write_text(store.mirror / MANIFEST, to_json({**there, "files": {}}))
    write_text(begun, held)
    try:
        yield store.mirror
    except BaseException as error:
        if finished and read_json(store.mirror / MANIFEST) == there:  # it began nothing
            remove(begun)
        elif not finished and {entry.name for entry in store.mirror.iterdir()} <= {LOCK, MANIFEST}:
            remove(store.mirror)
            remove(begun)
        if not isinstance(error, MemeError) or str(store.mirror) not in str(error):
            raise
        place = url if there is not None else f"{url} (begun on this machine, not in the store yet)"
        raise type(error)(str(error).replace(str(store.mirror), place)) from None
    upload(store, there if finished else None)
    remove(begun)


def _goes_on(begun: Path, held: str) -> bool:
    """Whether a run of this machine was stopped before all was uploaded, and no other has finished a result since."""
    return begun.exists() and held in ("", begun.read_text(encoding="utf-8"))


def upload(store: Store, old: dict[str, Any] | None) -> None:
    """The files, then the manifest that names them, then `_SUCCESS`; beside a finished result, which stays until then.

    Args:
        old: the manifest of the finished result that was there when the step began.

    Raises:
        StorageError: another run has finished a result since, or the store failed: then what was put is taken back, if
            the store still answers. The mirror has it all.
    """
    made, beside = read_manifest(store.mirror), BESIDE if old is not None else ""
    there = store.manifest() if store.exists(SUCCESS) else None
    if there not in (old, made):
        raise StorageError(
            f"{store.url}: another run has finished a result there meanwhile; what this one made is in {store.mirror}: "
            "copy it to another place"
        )
    remove_all(store, BESIDE if there is not None else "")  # of an upload that was stopped
    if made == there:
        return
    try:
        if not beside:
            store.put_text(MANIFEST, to_json({**made, "files": {}}))  # from now on the folder is known as ours
        for name in [*_names(store.mirror), MANIFEST, SUCCESS]:
            store.put(name, beside + name)
    except MemeError as error:
        with suppress(MemeError):
            remove_all(store, beside)
        raise type(error)(f"{error}; the whole result is in {store.mirror}, and the same command uploads it") from None
    end_replacing(store)


def _names(folder: Path) -> list[str]:
    """Every file of a result and of the results that lie in it; locks and what is being written have dotted names."""
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    kept = [file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts)]
    return [name for name in kept if name not in (MANIFEST, SUCCESS)]


def end_replacing(store: Store) -> None:
    """Have a whole result take the place of the old one. A run that is stopped here is finished by the next one."""
    if not store.exists(BESIDE + SUCCESS):
        return
    there = store.all_names()
    new = [name.removeprefix(BESIDE) for name in there if name.startswith(BESIDE)]
    store.remove(SUCCESS)
    store.copy(BESIDE + MANIFEST, MANIFEST)
    for name in there:
        if not name.startswith(BESIDE) and name not in (*new, SUCCESS):
            store.remove(name)
    for name in new:
        if name not in (MANIFEST, SUCCESS):
            store.copy(BESIDE + name, name)
    store.copy(BESIDE + SUCCESS, SUCCESS)
    store.remove(BESIDE + SUCCESS)  # without it nothing is to be replaced any more
    remove_all(store, BESIDE)


def remove_all(store: Store, under: str) -> None:
    """What lies under this folder, or everything; the manifest last, by which the folder is known as ours."""
    for name in sorted(store.all_names(), key=lambda name: (name == MANIFEST, name != SUCCESS)):
        if name.startswith(under):
            store.remove(name)
