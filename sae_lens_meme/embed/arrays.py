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
    file, key = split_key(source)
    if not file.exists():
        raise DataError(f"{file}: no such file; give .npy, .safetensors, .pt or a dataset folder with :column")
    if file.is_dir():
        array = _read_dataset(file, key)
    elif file.suffix == ".npy":
        array = _read_npy(file)
    elif file.suffix in (".safetensors", ".pt", ".pth"):
        array = _read_tensors(file, key)
    else:
        raise DataError(f"{file}: {file.suffix or 'no extension'} is none of .npy, .safetensors, .pt, dataset folder")
    return _as_matrix(array, file)


def split_key(source: str | Path) -> tuple[Path, str]:
    """`vectors.pt:key` as file and key; a colon in the name of a file that is there, or of a drive, is no key."""
    path, colon, key = str(source).rpartition(":")
    if not colon or Path(source).exists() or key.startswith(("\\", "/")):
        return Path(source), ""
    return Path(path), key


def _read_npy(file: Path) -> np.ndarray:
    with file.open("rb") as opened:
        if opened.read(6) != b"\x93NUMPY":  # numpy would advise to load it as a pickle
            raise DataError(f"{file}: is not a .npy file; save it with numpy.save")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header of other bytes can fail in any way
        raise DataError(
            f"{file}: is not a plain .npy array of numbers, or is cut off ({type(error).__name__}); save it again with numpy.save"
        ) from None


def _read_tensors(file: Path, key: str) -> np.ndarray:
    """Through torch, because numpy has no bfloat16."""
    import torch
    from safetensors.torch import load_file

    try:
        safe = file.suffix == ".safetensors"
        loaded = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise DataError(
            f"{file}: holds more than plain tensors, or is damaged ({reason}); re-save the tensor"
        ) from None
    named = loaded if isinstance(loaded, dict) else {"": loaded}
    tensors = {str(name): tensor for name, tensor in named.items() if isinstance(tensor, torch.Tensor)}
    if key not in tensors and (key or len(tensors) != 1):
        raise DataError(
            f"{file}: holds {sorted(tensors) or 'no tensors'}; name one, as in {file}:{next(iter(tensors), 'KEY')}"
        )
    tensor = tensors[key] if key in tensors else next(iter(tensors.values()))
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise DataError(
            f"{file}: holds a {tensor.dtype} tensor of layout {tensor.layout}; save a dense one of real numbers"
        )
    return tensor.detach().float().numpy()


def _read_dataset(folder: Path, column: str) -> np.ndarray:
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except Exception as error:  # files of another kind, or damaged
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: is not a dataset that save_to_disk wrote ({reason}); save it again") from None
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{folder}: is a dataset of several splits; name one, as in {folder}/{next(iter(dataset))}:COLUMN"
        )
    if column not in dataset.column_names:
        raise DataError(f"{folder}: has no column {column!r}; write {folder}:COLUMN with one of {dataset.column_names}")
    array = np.asarray(dataset.with_format("numpy")[column][:])
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _as_matrix(array: np.ndarray, file: Path) -> np.ndarray:
    if array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise DataError(
            f"{file}: has shape {array.shape} and type {array.dtype}; a matrix (memes, dimensions) is needed"
        )
    return np.asarray(array, dtype=np.float32)
