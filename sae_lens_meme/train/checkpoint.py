"""Complete checkpoints: a folder that appears under its name only once every file in it is on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from sae_lens.constants import TRAINER_STATE_FILENAME
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lens_meme.errors import ModelError, StorageError
from sae_lens_meme.hooks.untrusted import unpickled
from sae_lens_meme.storage import read_json, sha256_file, sync, to_json
from sae_lens_meme.train.monitor import Monitor, Trainers

CHECKPOINTS = "checkpoints"
"""The folder of them in that of a step."""
_PARTIAL, _HASHES, _SESSION, _RNG, _BEST, _BUFFER = (
    ".partial-",
    "hashes.json",
    "session.json",
    "rng.safetensors",
    "best.safetensors",
    "buffer.safetensors",
)


class Provider(Iterator[Any], Protocol):
    """Serves batches; its state is numbers, and tensors by name."""

    def take_back(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Checkpoints:
    """The checkpoints of one run in `folder`; only the newest is kept."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def save(self, trainers: Trainers, provider: Provider, monitor: Monitor) -> Path:
        """Everything that the rest of the run depends on, as it is between two steps."""
        n_samples = next(iter(trainers.values())).n_training_samples
        self.folder.mkdir(parents=True, exist_ok=True)
        final, partial = self.folder / f"{n_samples:012d}", self.folder / f"{_PARTIAL}{n_samples:012d}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _write(partial, trainers, provider, monitor)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync(self.folder)
        self._remove_all_but(final)
        return final

    def newest(self) -> Path | None:
        """The newest checkpoint whose files are all as they were written."""
        if not self.folder.is_dir():
            return None
        names = sorted((p for p in self.folder.iterdir() if p.name.isdigit()), reverse=True)
        return next((path for path in names if _intact(path)), None)

    def load(self, path: Path, trainers: Trainers, provider: Provider, monitor: Monitor) -> None:
        """Put a checkpoint back; nothing in it can run code."""
        for name, trainer in trainers.items():
            folder = path / _subfolder(name)
            refuse_code(folder / TRAINER_STATE_FILENAME)
            trainer.load_trainer_state(folder)
            trainer.sae.load_weights_from_checkpoint(folder)
            if (folder / _BEST).exists():
                monitor.best_weights[name] = load_file(folder / _BEST, device=str(trainer.sae.device))
        session = read_json(path / _SESSION)
        buffer = load_file(path / _BUFFER) if (path / _BUFFER).exists() else {}
        provider.load_state_dict(session["provider"] | buffer)
        monitor.load_state_dict(session["monitor"])
        torch.set_rng_state(load_file(path / _RNG)["torch"])

    def _remove_all_but(self, kept: Path) -> None:
        for path in self.folder.iterdir():
            if path != kept and (path.name.isdigit() or path.name.startswith(_PARTIAL)):
                shutil.rmtree(path, ignore_errors=True)


def _subfolder(name: str) -> str:
    return f"sae-{name}" if name else "sae"


def _write(folder: Path, trainers: Trainers, provider: Provider, monitor: Monitor) -> None:
    for name, trainer in trainers.items():
        trainer.sae.save_model(folder / _subfolder(name))
        trainer.save_trainer_state(folder / _subfolder(name))
        if name in monitor.best_weights:
            save_file(monitor.best_weights[name], folder / _subfolder(name) / _BEST)
    save_file({"torch": torch.get_rng_state()}, folder / _RNG)
    provided = provider.state_dict()
    buffer = {name: value for name, value in provided.items() if isinstance(value, Tensor)}
    if buffer:
        save_file(buffer, folder / _BUFFER)
    numbers = {name: value for name, value in provided.items() if name not in buffer}
    session = {"provider": numbers, "monitor": monitor.state_dict()}
    (folder / _SESSION).write_text(to_json(session))
    _seal(folder)


def _seal(folder: Path) -> None:
    """Hash and sync every file, so that a torn write is seen."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes: Mapping[str, str] = {str(path.relative_to(folder)): sha256_file(path) for path in files}
    (folder / _HASHES).write_text(to_json(hashes))
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _intact(folder: Path) -> bool:
    try:
        hashes = read_json(folder / _HASHES)
        return all(sha256_file(folder / name) == digest for name, digest in hashes.items())
    except (
        OSError,
        AttributeError,
        ValueError,
    ):  # StorageError is an OSError; what is no mapping was not written by us
        return False


def refuse_code(path: Path) -> None:
    """SAELens loads this file without the flag, and an environment variable can turn its default off."""
    try:
        unpickled(path)
    except ModelError as error:
        raise StorageError(f"{error}; remove {path.parent} to start again") from None
