"""Reading a matrix of vectors from a file of any of four kinds, none of which can run code."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sae_lens_meme.errors import DataError, MemeError
from sae_lens_meme.storage import open_dataset


def read_array(source: str | Path) -> Float[np.ndarray, "n d"]:
    """A float32 matrix from `.npy`, `.safetensors`, `.pt` (tensors only) or a Hugging Face dataset.

    Args:
        source: `vectors.npy`, `vectors.safetensors` or `vectors.safetensors:key`, `vectors.pt` or
            `vectors.pt:key`, or `dataset_folder:column`.

    Raises:
        DataError: the file is missing, of another kind, or not a matrix of numbers.
    """
    file, key = split_key(source)
    if not file.exists():
        raise DataError(f"{file}: no such file; give .npy, .safetensors, .pt or a dataset folder with :column")
    kind = "folder" if file.is_dir() else file.suffix
    if kind not in _READERS:
        raise DataError(f"{file}: {kind or 'no extension'} is not one of .npy, .safetensors, .pt, dataset folder")
    try:
        return as_matrix(_READERS[kind](file, key), file)
    except MemeError:
        raise
    except Exception as error:  # of damaged files the libraries raise a dozen unrelated classes
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise DataError(
            f"{file}: holds more than plain numbers, or is damaged ({type(error).__name__}: {reason}); write it again"
        ) from None


def split_key(source: str | Path) -> tuple[Path, str]:
    """The file, and the key after the last colon: a colon is also part of `C:/x.npy` and of many folder names."""
    whole = Path(source)
    file, colon, key = str(source).rpartition(":")
    if colon and not whole.exists() and Path(file).exists():
        return Path(file), key
    return whole, ""


def _read_npy(file: Path, key: str) -> np.ndarray:
    if key:
        raise DataError(f"{file}: is one array without keys; leave out :{key}")
    with file.open("rb") as opened:
        if opened.read(6) != b"\x93NUMPY":  # numpy would advise to load it as a pickle
            raise DataError(f"{file}: is not a .npy file; save it with numpy.save")
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _read_safetensors(file: Path, key: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:  # "numpy" knows no bfloat16
        return _numbers(opened.get_tensor(_pick(opened.keys(), key, file)), file)


def _read_pt(file: Path, key: str) -> np.ndarray:
    import torch

    from sae_lens_meme.hooks.untrusted import unpickled

    loaded = unpickled(file, DataError)
    if isinstance(loaded, torch.Tensor):
        return _numbers(loaded, file)
    if not isinstance(loaded, dict):
        raise DataError(f"{file}: holds a {type(loaded).__name__}; save one tensor, or a dictionary of tensors")
    tensors = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    return _numbers(tensors[_pick(tensors, key, file)], file)


def _read_dataset(folder: Path, column: str) -> np.ndarray:
    from datasets import Dataset

    dataset = open_dataset(folder)
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{folder}: is a dataset of several splits; name one, as in {folder}/{next(iter(dataset))}:COLUMN"
        )
    if column not in dataset.column_names:
        raise DataError(f"{folder}: has no column {column!r}; write {folder}:COLUMN with one of {dataset.column_names}")
    return np.asarray(dataset.with_format("numpy")[column][:])


_READERS = {
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".pt": _read_pt,
    ".pth": _read_pt,
    "folder": _read_dataset,
}


def _numbers(tensor: Any, name: str | Path) -> np.ndarray:
    """Real numbers of any precision and device, bfloat16 and float8 among them, as numpy has them."""
    if tensor.is_complex() or "strided" not in str(tensor.layout):
        raise DataError(
            f"{name}: holds a {tensor.dtype} tensor of layout {tensor.layout}; give a dense one of real numbers"
        )
    return tensor.detach().float().cpu().numpy()


def _pick(names: Collection[str], key: str, file: Path) -> str:
    if not key and len(names) == 1:
        return next(iter(names))
    if key not in names:
        raise DataError(
            f"{file}: holds {sorted(map(str, names)) or 'no tensors'}; name one, as in {file}:{next(iter(names), 'KEY')}"
        )
    return key


def matrix_in_memory(x: Any, name: str) -> Float[np.ndarray, "n d"]:
    """A float32 matrix of an array, a tensor, a data frame or a list of lists.

    Raises:
        DataError: it is not a matrix of real numbers.
    """
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise DataError(f"{name}: has masked values; fill them, or leave these memes out")
    try:
        array = _numbers(x, name) if hasattr(x, "detach") else np.asarray(x)
    except MemeError:
        raise
    except Exception as error:  # numpy and torch raise what they like
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: is not a matrix ({reason}); give one vector a meme, all of one width") from None
    return as_matrix(array, name)


def as_matrix(array: Any, name: str | Path) -> Float[np.ndarray, "n d"]:
    """A float32 matrix of what is an array already; tensors of SAELens' layout (n, 1, d) lose the middle axis.

    Raises:
        DataError: it is not a matrix of real numbers.
    """
    if array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise DataError(
            f"{name}: has shape {array.shape} and type {array.dtype}; a matrix (memes, dimensions) is needed"
        )
    with np.errstate(over="ignore"):  # an infinity is named later, with its row
        return np.asarray(array, dtype=np.float32)
