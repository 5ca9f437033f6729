"""Files of other projects, read as tensors and plain values only, so that nothing in them can run."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from safetensors.torch import load_file
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.untrusted import Plain, unpickled

PICKLED = (".pt", ".pth", ".bin")
BARE_PICKLES = (".pkl", ".pickle", ".gz")
LARGEST_PICKLE = 10_000_000
"""Bytes. Beside the tensors there is little in it."""


def require_file(path: Path) -> None:
    """Raises ModelError where there is none."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the folder with all files of the SAE")


def load_tensors(path: Path, *, file: BinaryIO | None = None, plain: Sequence[str] = ()) -> dict[str, Any]:
    """The dictionary in a `.pt`, `.pth` or `.safetensors` file.

    Args:
        file: read this instead; `path` is what a message names.
        plain: full names of classes whose objects are read as their attributes.

    Raises:
        ModelError: no such file, damaged, or it holds more than tensors and plain values.
    """
    require_file(path)
    if path.suffix in BARE_PICKLES:
        raise ModelError(f"{path}: is a bare pickle, which can run code; save its state_dict with torch.save")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # on damaged files safetensors raises whatever it comes upon
            raise ModelError(f"{path}: is damaged ({' '.join(str(error).split())[:160]}); fetch it again") from None
    value = unpickled(path, file=file, plain=plain)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, not a dictionary of tensors")
    return value


def attributes(value: Any) -> dict[str, Any]:
    """Of a configuration that was pickled as a dictionary or as an object; nothing of anything else."""
    if isinstance(value, Plain):
        return dict(vars(value))
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(f"{path}: no such file; it is needed to tell what the SAE beside it is") from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not the {path.name} of a trainer of an SAE")
    return config


def weights_file(path: Path, names: Sequence[str], *, not_these: Sequence[str] = ()) -> Path:
    """The file itself, or the one in a folder: the first of `names` that is there, else the only pickle of tensors.

    Raises:
        ModelError: a folder holds none, or several.
    """
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    found = sorted(file for file in path.iterdir() if file.suffix in PICKLED and file.name not in not_these)
    if len(found) != 1:
        held = f"{len(found)} files of tensors" if found else f"no {' or '.join(names) or 'file of tensors'}"
        raise ModelError(f"{path}: holds {held}; give the file with the weights itself")
    return found[0]


def state_dict(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The state dict itself, or the one inside a training checkpoint."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            return checkpoint[key]
    return checkpoint


def tensor(state: dict[str, Any], key: str, path: Path, ndim: int, *, floats: bool = True) -> Tensor:
    """One tensor of a state dict.

    Raises:
        ModelError: it is not there, has another number of dimensions, or holds whole numbers where `floats` are expected.
    """
    value = state.get(key)
    if not isinstance(value, Tensor):
        raise ModelError(f"{path}: has no tensor {key!r} (it has {names(state)})")
    if value.ndim != ndim:
        raise ModelError(f"{path}: {key!r} has shape {tuple(value.shape)}, {ndim} dimensions are expected")
    if floats and not value.is_floating_point():
        raise ModelError(
            f"{path}: {key!r} is {str(value.dtype).removeprefix('torch.')}; the weights of an SAE are floats"
        )
    return value


def tensors(state: dict[str, Any], keys: Iterable[str], path: Path) -> dict[str, Tensor]:
    """By key: those that begin with `W_` are matrices, all others vectors.

    Raises:
        ModelError: as for `tensor`.
    """
    return {key: tensor(state, key, path, 2 if key.startswith("W_") else 1) for key in keys}


def number(values: dict[str, Any], keys: Iterable[str], path: Path) -> int | None:
    """The first of these that is there.

    Raises:
        ModelError: it is not an integer of at least 1.
    """
    for key in keys:
        value = values.get(key)
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if value is not None:
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 1 or value % 1 != 0:
                raise ModelError(f"{path}: {key} is {value!r}, not a number of latents")
            return int(value)
    return None


def names(state: dict[str, Any]) -> str:
    """What a state dict holds, for a message."""
    return ", ".join(" ".join(str(key).split()) for key in sorted(map(str, state))[:8]) or "nothing"


def pickled_names(path: Path) -> bytes:
    """The pickle inside a `.pt` file as bytes, to look for names in; it is not read as a pickle."""
    try:
        file = weights_file(path, ())
        if file.suffix not in PICKLED:
            return b""
        with zipfile.ZipFile(file) as archive:
            inside = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if inside is None or archive.getinfo(inside).file_size > LARGEST_PICKLE:
                return b""
            return archive.read(inside)
    except (ModelError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return b""
