"""SAEs that other projects trained, read as SAELens SAEs: `SAE.load_from_disk(path, converter=...)`.

Their files are pickles: they are opened with `weights_only=True`, so that nothing in them can run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.untrusted import unpickled

Loaded = tuple[dict[str, Any], dict[str, Tensor]]

NORM_STATS = "norm_stats.pt"


def intervlm_loader(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None, *, k: int | None = None
) -> Loaded:
    """InterVLM's autoencoder, its z-scoring folded into the weights; a stock `topk` SAE.

    Args:
        path: the `.pt` file with the state dict, or its folder; `norm_stats.pt` (mean, std) lies beside it.
        k: active latents; default the number in a checkpoint that holds one, else 64 (InterVLM's).

    Raises:
        ModelError: not such a file, or the normalisation is missing.
    """
    weights_path = _find(Path(path), exclude=NORM_STATS)
    checkpoint = load_tensors(weights_path)
    state = _unwrapped(checkpoint)
    stats = load_tensors(weights_path.with_name(NORM_STATS))
    W_e, b_e, W_d, b_d = (_tensor(state, key, weights_path) for key in _LINEAR)
    mean, std = (_tensor(stats, key, weights_path.with_name(NORM_STATS)).flatten() for key in ("mean", "std"))
    std = std.clamp(min=1e-6)
    weights = {
        "W_enc": W_e.T / std[:, None],
        "b_enc": b_e - (mean / std) @ W_e.T,
        "W_dec": W_d.T * std,
        "b_dec": b_d * std + mean,
    }
    k = k or _number(checkpoint, ("k", "topk", "top_k")) or 64
    return _topk(weights, k, device, cfg_overrides, {"apply_b_dec_to_input": False})


def dictionary_learning_loader(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None, *, k: int | None = None
) -> Loaded:
    """A TopK autoencoder of the `dictionary_learning` library (`ae.pt`, `config.json` beside it if any).

    Args:
        path: the `.pt` file or its folder.
        k: active latents; default the number in the file or in `config.json`.

    Raises:
        ModelError: not such a file, not a TopK autoencoder, or k is nowhere to be found.
    """
    weights_path = _find(Path(path), prefer="ae.pt")
    state = load_tensors(weights_path)
    if "b_dec" not in state or "encoder.bias" not in state:
        raise ModelError(f"{weights_path}: is not a TopK autoencoder of dictionary_learning (it has {_names(state)})")
    weights = {
        "W_enc": _tensor(state, "encoder.weight", weights_path).T,
        "b_enc": _tensor(state, "encoder.bias", weights_path),
        "W_dec": _tensor(state, "decoder.weight", weights_path).T,
        "b_dec": _tensor(state, "b_dec", weights_path),
    }
    k = k or _number(state, ("k",)) or _configured_k(weights_path.with_name("config.json"))
    if not k:
        raise ModelError(f"{weights_path}: k is neither in the file nor in config.json beside it; pass k=")
    return _topk(weights, k, device, cfg_overrides, {"apply_b_dec_to_input": True})  # it encodes x - b_dec


def load_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a `.pt` file.

    Raises:
        ModelError: no such file, damaged, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    value = unpickled(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, not a dictionary of tensors")
    return value


_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def _topk(
    weights: dict[str, Tensor], k: int, device: str, overrides: dict[str, Any] | None, fields: dict[str, Any]
) -> Loaded:
    d_in, d_sae = weights["W_enc"].shape
    cfg = {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": d_sae,
        "k": k,
        "dtype": "float32",
        "device": device,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {},
        **fields,
        **(overrides or {}),
    }
    return cfg, {name: value.float().contiguous().to(device) for name, value in weights.items()}


def _find(path: Path, exclude: str | None = None, prefer: str | None = None) -> Path:
    if not path.is_dir():
        return path
    found = sorted(file for file in path.glob("*.pt") if file.name != exclude and prefer in (None, file.name))
    if len(found) != 1:
        raise ModelError(f"{path}: holds {len(found)} candidates ({prefer or '*.pt'}), give the file itself")
    return found[0]


def _unwrapped(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The state dict itself, or the one inside a training checkpoint."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            return checkpoint[key]
    return checkpoint


def _tensor(state: dict[str, Any], key: str, path: Path) -> Tensor:
    if not isinstance(state.get(key), Tensor):
        raise ModelError(f"{path}: has no tensor {key!r} (it has {_names(state)})")
    return state[key].double()


def _number(state: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((int(state[key]) for key in keys if isinstance(state.get(key), (int, Tensor))), None)


def _configured_k(path: Path) -> int | None:
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    k = config.get("trainer", config).get("k")
    return int(k) if k else None


def _names(state: dict[str, Any]) -> str:
    return ", ".join(sorted(map(str, state))[:8]) or "nothing"
