"""SAEs that other projects trained, read as stock SAELens SAEs: `import_sae(path, out)`.

Their files are read as tensors and plain values only, so that nothing in them can run.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_meme.errors import ModelError, StorageError
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.hooks.untrusted import unpickled

Loaded = tuple[dict[str, Any], dict[str, Tensor]]

NORM_STATS = "norm_stats.pt"


def import_sae(path: str | Path, out: str | Path, *, hook: str = FUSED, k: int | None = None) -> SAE[Any]:
    """Write an SAE of InterVLM (its `.pt` beside `norm_stats.pt`) or of dictionary_learning as a stock SAE folder.

    Args:
        path: the folder with its files, or the file with its weights.
        out: the folder to write; `sae_lens.SAE.load_from_disk` and `evaluate --sae` take it.
        hook: the hook whose activations it takes.
        k: active latents of a TopK SAE, where its files do not say.

    Raises:
        ModelError: the files are not those of an SAE that is known here; the message names what is missing.
        StorageError: there is something at `out`.
    """
    path, out = Path(path), Path(out)
    if out.exists():
        raise StorageError(f"{out}: is there already; choose another folder")
    folder = path if path.is_dir() else path.parent
    loader = intervlm_loader if (folder / NORM_STATS).is_file() else dictionary_learning_loader
    sae = SAE.load_from_disk(path, converter=partial(loader, k=k))
    sae.cfg.metadata.hook_name = hook
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:
        sae.save_model(Path(made) / "sae")
        os.replace(Path(made) / "sae", out)
    return sae


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
    W_e, W_d = (_tensor(state, f"{part}.weight", weights_path, 2) for part in ("encoder", "decoder"))
    b_e, b_d = (_tensor(state, f"{part}.bias", weights_path, 1) for part in ("encoder", "decoder"))
    mean, std = (_tensor(stats, key, weights_path.with_name(NORM_STATS)).flatten() for key in ("mean", "std"))
    _require_shapes(weights_path, W_e.T, W_d.T, b_e, b_d, mean, std)
    std = std.clamp(min=1e-6)  # as InterVLM does
    weights = {
        "W_enc": W_e.T / std[:, None],
        "b_enc": b_e - (mean / std) @ W_e.T,
        "W_dec": W_d.T * std,
        "b_dec": b_d * std + mean,
    }
    k = k or _number(checkpoint, ("k", "topk", "top_k"), weights_path) or min(64, len(b_e))
    return _stock(weights_path, weights, device, cfg_overrides, k=k, apply_b_dec_to_input=False)


def dictionary_learning_loader(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None, *, k: int | None = None
) -> Loaded:
    """An autoencoder of the `dictionary_learning` library: `ae.pt`, and `config.json` beside it, which names its class.

    AutoEncoderTopK is a stock `topk` SAE. BatchTopKSAE and MatryoshkaBatchTopKSAE encode with a trained threshold and
    are stock `jumprelu` SAEs.

    Args:
        path: the `.pt` file or its folder.
        k: active latents of AutoEncoderTopK; default the number in the file or in `config.json`.

    Raises:
        ModelError: not such a file, or of a class that is unknown here or cannot be distinguished from another.
    """
    weights_path = _find(Path(path), prefer="ae.pt")
    state, config = load_tensors(weights_path), _trainer_config(weights_path.with_name("config.json"))
    kind = _dict_class(weights_path, state, config, k)
    encoder, decoder, bias = ("W_enc", "W_dec", "b_enc")
    if kind != "MatryoshkaBatchTopKSAE":
        encoder, decoder, bias = ("encoder.weight", "decoder.weight", "encoder.bias")
    W_enc, W_dec = (_tensor(state, key, weights_path, 2) for key in (encoder, decoder))
    if kind != "MatryoshkaBatchTopKSAE":
        W_enc, W_dec = W_enc.T, W_dec.T
    b_enc, b_dec = (_tensor(state, key, weights_path, 1) for key in (bias, "b_dec"))
    _require_shapes(weights_path, W_enc, W_dec, b_enc, b_dec)
    weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    if kind != "AutoEncoderTopK":
        threshold = _tensor(state, "threshold", weights_path, 0)
        return _stock(weights_path, weights | {"threshold": threshold.expand_as(b_enc)}, device, cfg_overrides)
    k = k or _number(state, ("k",), weights_path) or _number(config, ("k",), weights_path)
    if not k:
        raise ModelError(f"{weights_path}: k is neither in the file nor in config.json beside it; pass k=")
    return _stock(weights_path, weights, device, cfg_overrides, k=k)


_KNOWN = ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def _dict_class(path: Path, state: dict[str, Any], config: dict[str, Any], k: int | None) -> str:
    """BatchTopK has the tensors of TopK: only the name of the class tells whether the threshold counts."""
    named = config.get("dict_class")
    if named is not None:
        if named not in _KNOWN:
            raise ModelError(f"{path}: config.json beside it names {named!r}, known here are {', '.join(_KNOWN)}")
        return named
    if "group_sizes" in state and "W_enc" in state:
        return "MatryoshkaBatchTopKSAE"
    if "b_dec" not in state or "encoder.bias" not in state:
        raise ModelError(f"{path}: is not a TopK autoencoder of dictionary_learning (it has {_names(state)})")
    if "threshold" in state and k is None:
        raise ModelError(
            f"{path}: is AutoEncoderTopK or BatchTopKSAE, which encode differently; put its config.json, which names "
            "dict_class, beside it, or pass k= if it is AutoEncoderTopK"
        )
    return "AutoEncoderTopK"


def load_tensors(path: Path) -> dict[str, Any]:
    """The dictionary in a `.pt` or `.safetensors` file.

    Raises:
        ModelError: no such file, damaged, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # on damaged files safetensors raises whatever it comes upon
            raise ModelError(f"{path}: is damaged ({' '.join(str(error).split())[:160]}); fetch it again") from None
    value = unpickled(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, not a dictionary of tensors")
    return value


def _stock(
    path: Path, weights: dict[str, Tensor], device: str, overrides: dict[str, Any] | None, **fields: Any
) -> Loaded:
    """SAELens' config and weights: `topk` with a `k` among the fields, else `jumprelu`."""
    d_in, d_sae = weights["W_enc"].shape
    if fields.get("k", 1) > d_sae:
        raise ModelError(f"{path}: k is {fields['k']}, there are {d_sae} latents")
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: {name} holds NaN or infinity")
    kind = (
        {"architecture": "topk", "rescale_acts_by_decoder_norm": False}
        if "k" in fields
        else {"architecture": "jumprelu"}
    )
    cfg = {
        **kind,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": device,
        "normalize_activations": "none",
        "apply_b_dec_to_input": True,
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


def _tensor(state: dict[str, Any], key: str, path: Path, ndim: int | None = None) -> Tensor:
    value = state.get(key)
    if not isinstance(value, Tensor):
        raise ModelError(f"{path}: has no tensor {key!r} (it has {_names(state)})")
    if ndim is not None and value.ndim != ndim:
        raise ModelError(f"{path}: {key!r} has shape {tuple(value.shape)}, {ndim} dimensions are expected")
    return value.double()


def _require_shapes(path: Path, W_enc: Tensor, W_dec: Tensor, b_enc: Tensor, *of_input: Tensor) -> None:
    d_in, d_sae = W_enc.shape
    fits = W_dec.shape == (d_sae, d_in) and len(b_enc) == d_sae and all(len(vector) == d_in for vector in of_input)
    if not fits:
        shapes = ", ".join(str(tuple(value.shape)) for value in (W_enc, W_dec, b_enc, *of_input))
        raise ModelError(f"{path}: the shapes of its tensors ({shapes}) are not those of one autoencoder")


def _number(values: dict[str, Any], keys: Iterable[str], path: Path) -> int | None:
    """The first of these that is there, a whole number of at least 1."""
    for key in keys:
        value = values.get(key)
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if value is not None:
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 1 or value % 1 != 0:
                raise ModelError(f"{path}: {key} is {value!r}, not a number of latents")
            return int(value)
    return None


def _trainer_config(path: Path) -> dict[str, Any]:
    """The section `trainer` of dictionary_learning's `config.json`; nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        trainer = config.get("trainer", config)
        return {**trainer}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ModelError(f"{path}: is not the config.json of a trainer of dictionary_learning") from None


def _names(state: dict[str, Any]) -> str:
    return ", ".join(sorted(map(str, state))[:8]) or "nothing"
