"""The folder of a `train` step: a finished SAE is the same wherever it was trained, an unfinished one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sae_lens_meme.errors import StorageError
from sae_lens_meme.storage import MANIFEST, StepFolder, first_difference, read_manifest, to_json

_DEVICES = ("device", "act_store_device")


@contextmanager
def training_folder(out: str | Path, fingerprint: dict[str, Any], *, overwrite: bool = False) -> Iterator[StepFolder]:
    """A `StepFolder` of `train`, in which the devices of the fingerprint make no other result of a finished one.

    Raises:
        StorageError: a run on another device is not finished here, whose last bits would be others; or as for `StepFolder`.
    """
    now: dict[str, Any] = json.loads(to_json(fingerprint))
    there = None if overwrite else _begun(Path(out))
    elsewhere = there is not None and _without_devices(there) == _without_devices(now)
    with StepFolder(out, "train", there if there and elsewhere else now, overwrite=overwrite) as folder:
        if not folder.complete and (found := first_difference(folder.fingerprint, now)) is not None:
            raise StorageError(
                f"{folder.home}: this training was begun on {found[1]!r} and is not finished, on {found[2]!r} its numbers "
                f"are others; go on with train.device={found[1]}, pass --overwrite to begin anew, or choose another --out"
            )
        yield folder


def _begun(out: Path) -> dict[str, Any] | None:
    manifest = read_manifest(out) if (out / MANIFEST).is_file() else None
    return manifest["fingerprint"] if manifest and manifest["step"] == "train" and manifest["files"] else None


def _without_devices(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    names = [name for name in value if not (name in _DEVICES and isinstance(value[name], str))]
    return {name: _without_devices(value[name]) for name in names}
