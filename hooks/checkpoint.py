"""MemeCLIP's heads on disk: the published Lightning checkpoint (read without running its pickle) and safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.hooks.untrusted import unpickled

FROZEN = ("clip_model.", "clip.", "text_encoder.", "image_encoder.")
"""Copies of the frozen CLIP inside a Lightning checkpoint; the towers come from open_clip instead."""

MATRICES = ("classifier.weight", "image_map.proj.0.weight", "text_map.proj.0.weight")
"""Which say how large the heads are."""


@dataclass(frozen=True)
class MemeCLIPCheckpoint:
    """Trained heads; `task` and `classes` (the label value of each logit) where the file names them."""

    heads: MemeCLIPHeads
    task: str | None = None
    classes: tuple[Any, ...] | None = None


def read_memeclip_checkpoint(path: str | Path, converted: str | Path | None = None) -> MemeCLIPCheckpoint:
    """Read trained heads from a Lightning `.ckpt` (or any `.pt` state dict) or from `.safetensors`.

    A pickle is read once with `weights_only=True` and saved as safetensors at `converted` (default:
    beside it, where that folder is writable); later calls read the safetensors of the same file.

    Raises:
        ModelError: no such file; not tensors only; keys missing, unexpected or of a wrong shape.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; give the MemeCLIP .ckpt or .safetensors file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    stamp = f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    target = Path(converted) if converted else path.with_suffix(".safetensors")
    if target.exists() and _metadata(target).get("converted_from") == stamp:
        return _read_safetensors(target)
    checkpoint = MemeCLIPCheckpoint(_build(_head_tensors(_state(path), path), path))
    if converted or (not target.exists() and os.access(target.parent, os.W_OK)):
        save_memeclip_heads(checkpoint, target, converted_from=stamp)
    return checkpoint


def save_memeclip_heads(checkpoint: MemeCLIPCheckpoint, path: str | Path, **facts: str) -> None:
    """Save heads with their task and classes as one safetensors file; the same heads give the same bytes."""
    path = Path(path)
    # One metadata key: safetensors writes several in an order that changes from process to process.
    about = json.dumps({"task": checkpoint.task, "classes": checkpoint.classes, **facts}, sort_keys=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in checkpoint.heads.state_dict().items()}
    temporary = path.with_name(f".writing-{path.name}")
    temporary.write_bytes(save(tensors, metadata={"memeclip": about}))  # save_file would make it mode 0600
    os.replace(temporary, path)


def _read_safetensors(path: Path) -> MemeCLIPCheckpoint:
    about = _metadata(path)
    task, classes = about.get("task"), about.get("classes")
    if not isinstance(task, str | None) or not isinstance(classes, list | None):
        raise ModelError(f"{path}: names task {task!r} and classes {classes!r}, not a text and a list; copy it again")
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  safe_open is no dict
    heads = _build(_head_tensors(tensors, path), path)
    return MemeCLIPCheckpoint(heads, task, None if classes is None else tuple(classes))


def _metadata(path: Path) -> dict[str, Any]:
    """What `save_memeclip_heads` says about the heads; nothing where others wrote them."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get("memeclip", "{}")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: what it says about its heads is not valid JSON ({error}); copy it again") from None
    if not isinstance(about, dict):
        raise ModelError(f"{path}: what it says about its heads is {about!r}, not a mapping; copy it again")
    return about


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ModelError(f"{path}: is not a safetensors file ({error}); copy it again") from None


def _state(path: Path) -> Mapping[str, Any]:
    content = unpickled(path)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: holds a {type(content).__name__}, not a state dict; give the MemeCLIP .ckpt")
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _head_tensors(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The heads' tensors without the prefix that a wrapping module added."""
    anchor = next((key for key in state if key.endswith("classifier.weight")), None)
    if anchor is None:
        raise ModelError(f"{path}: has no classifier.weight, so it is not a MemeCLIP checkpoint; it has {_some(state)}")
    prefix = anchor.removesuffix("classifier.weight")
    plain = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value for key, value in plain.items() if not key.startswith(FROZEN)}


def _build(tensors: dict[str, Tensor], path: Path) -> MemeCLIPHeads:
    if missing := [key for key in MATRICES if key not in tensors]:
        raise ModelError(f"{path}: lacks {', '.join(missing)}; it is not a whole MemeCLIP checkpoint")
    shapes = [tuple(tensors[key].shape) for key in MATRICES]
    if wrong := [f"{key} has shape {shape}" for key, shape in zip(MATRICES, shapes, strict=True) if len(shape) != 2]:
        raise ModelError(f"{path}: {wrong[0]}, expected two dimensions; it is not a MemeCLIP checkpoint")
    (n_classes, d_map), (_, d_image), (_, d_text) = shapes
    with torch.device("meta"):  # without memory: the sizes are a stranger's until all shapes agree
        expected = MemeCLIPHeads(d_image, d_text, n_classes, d_map).state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ModelError(f"{path}: lacks {', '.join(missing)}; it is not a whole MemeCLIP checkpoint")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        raise ModelError(
            f"{path}: has unexpected keys {_some(unexpected)}; only MemeCLIP with one mapping and one output layer is read"
        )
    for key, value in tensors.items():
        if value.shape != expected[key].shape:
            raise ModelError(f"{path}: {key} has shape {tuple(value.shape)}, expected {tuple(expected[key].shape)}")
        if not bool(torch.isfinite(value.float()).all()):
            raise ModelError(f"{path}: {key} holds NaN or infinity; take another checkpoint")
    heads = MemeCLIPHeads(d_image, d_text, n_classes, d_map)
    heads.load_state_dict({key: value.float() for key, value in tensors.items()})
    return heads.eval()


def _some(keys: Any) -> str:
    keys = list(keys)
    return ", ".join(map(str, keys[:5])) + (", ..." if len(keys) > 5 else "") if keys else "nothing"
