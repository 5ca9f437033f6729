"""Reading a matrix of vectors from a file of any of four kinds, none of which can run code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from sae_lens_meme.errors import DataError


def read_array(source: str | Path) -> Float[np.ndarray, "n d"]:
    """A float32 matrix from `.npy`, `.safetensors`, `.pt` (tensors only) or a Hugging Face dataset.

    Args:
        source: `vectors.npy`, `vectors.safetensors` or `vectors.safetensors:key`, `vectors.pt` or
            `vectors.pt:key`, or `dataset_folder:column`.

    Raises:
        DataError: the file is missing, of another kind, or not a matrix of numbers.
    """
    path, _, key = str(source).partition(":")
    file = Path(path)
    if not file.exists():
        raise DataError(f"{path}: no such file; give .npy, .safetensors, .pt or a dataset folder with :column")
    if file.is_dir():
        array = _read_dataset(file, key)
    elif file.suffix == ".npy":
        array = _read_npy(file)
    elif file.suffix == ".safetensors":
        array = _pick(_read_safetensors(file), key, file)
    elif file.suffix in (".pt", ".pth"):
        array = _read_pt(file, key)
    else:
        raise DataError(f"{path}: {file.suffix or 'no extension'} is none of .npy, .safetensors, .pt, dataset folder")
    return _as_matrix(array, file)


def _read_npy(file: Path) -> np.ndarray:
    with file.open("rb") as opened:
        if opened.read(6) != b"\x93NUMPY":  # numpy would advise to load it as a pickle
            raise DataError(f"{file}: is not a .npy file; save it with numpy.save")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{file}: is not a plain .npy array of numbers, or is cut off ({type(error).__name__}); save it again with numpy.save"
        ) from None


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, KeyError) as error:
        raise DataError(f"{file}: is not a readable safetensors file ({error})") from None


def _read_pt(file: Path, key: str) -> np.ndarray:
    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{file}: holds more than plain tensors, or is damaged ({reason}); re-save the tensor"
        ) from None
    if isinstance(loaded, torch.Tensor):
        loaded = {"": loaded}
    tensors = {k: v.float().numpy() for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    return _pick(tensors, key, file)


def _read_dataset(folder: Path, column: str) -> np.ndarray:
    from datasets import Dataset, load_from_disk

    dataset = load_from_disk(str(folder))
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{folder}: is a dataset of several splits; name one, as in {folder}/{next(iter(dataset))}:COLUMN"
        )
    if column not in dataset.column_names:
        raise DataError(f"{folder}: has no column {column!r}; write {folder}:COLUMN with one of {dataset.column_names}")
    array = np.asarray(dataset.with_format("numpy")[column][:])
    return array.reshape(len(array), -1)


def _pick(tensors: dict[str, np.ndarray], key: str, file: Path) -> np.ndarray:
    if not key and len(tensors) == 1:
        return next(iter(tensors.values()))
    if key not in tensors:
        raise DataError(
            f"{file}: holds {sorted(tensors) or 'no tensors'}; name one, as in {file}:{next(iter(tensors), 'KEY')}"
        )
    return tensors[key]


def _as_matrix(array: np.ndarray, file: Path) -> np.ndarray:
    if array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise DataError(
            f"{file}: has shape {array.shape} and type {array.dtype}; a matrix (memes, dimensions) is needed"
        )
    return np.asarray(array, dtype=np.float32)
