"""SAEs that other projects trained, read as stock SAELens SAEs: `import_sae(path, out)`.

Their files are read as tensors and plain values only, so that nothing in them can run.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.constants import SAE_CFG_FILENAME, SPARSIFY_WEIGHTS_FILENAME
from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader
from safetensors.torch import load_file
from torch import Tensor

from sae_lens_meme.errors import ConfigError, ModelError, StorageError
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.hooks.untrusted import unpickled
from sae_lens_meme.train.saelens import sort_config

Loaded = tuple[dict[str, Any], dict[str, Tensor]]

NORM_STATS, DICTIONARY = "norm_stats.pt", "ae.pt"


def import_sae(
    path: str | Path, out: str | Path, *, hook: str | None = FUSED, k: int | None = None, converter: str | None = None
) -> SAE[Any]:
    """Write an SAE of InterVLM (its `.pt` beside `norm_stats.pt`), dictionary_learning or sparsify as a stock SAE folder.

    Args:
        path: the folder with its files, or the file with its weights.
        out: the folder to write; `sae_lens.SAE.load_from_disk` and `evaluate --sae` take it.
        hook: the hook whose activations it takes; None is what its files say, if they do.
        k: active latents of a TopK SAE, where its files do not say.
        converter: one of `CONVERTERS`; default what the names of its files tell.

    Raises:
        ModelError: the files are not those of an SAE that is known here; the message names what is missing.
        ConfigError: there is no such converter.
        StorageError: there is something at `out`.
    """
    path, out = Path(path), Path(out)
    if out.exists():
        raise StorageError(f"{out}: is there already; choose another folder")
    name = converter or converter_of(path) or "dictionary_learning"
    if name not in CONVERTERS:
        raise ConfigError(f"converter is {name!r}, it must be one of {', '.join(CONVERTERS)}")
    sae = SAE.load_from_disk(path, converter=partial(CONVERTERS[name], k=k))
    sae.cfg.metadata.hook_name = hook or sae.cfg.metadata.hook_name
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:
        sae.save_model(Path(made) / "sae")
        sort_config(Path(made) / "sae")
        os.replace(Path(made) / "sae", out)
    return sae


def converter_of(path: str | Path) -> str | None:
    """Which converter reads it, told by the names of its files; None for a stock SAE, or where that does not tell."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if (folder / NORM_STATS).is_file():
        return "intervlm"
    if path.name == DICTIONARY or (path / DICTIONARY).is_file():
        return "dictionary_learning"
    if (path / SPARSIFY_WEIGHTS_FILENAME).is_file():
        return "sparsify"
    return "abstopk" if _architecture(path / SAE_CFG_FILENAME) == "abstopk" else None


def _architecture(cfg: Path) -> Any:
    try:
        return _json(cfg).get("architecture")
    except ModelError:
        return None


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
    weights_path = _find(Path(path), prefer=DICTIONARY)
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


def sparsify_loader(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None, *, k: int | None = None
) -> Loaded:
    """A TopK SAE of EleutherAI's sparsify: `sae.safetensors` and `cfg.json`; SAELens' own converter wants a language model.

    Raises:
        ModelError: not such a folder, or a transcoder, or of another activation than TopK.
    """
    path = Path(path)
    weights_path = path if path.is_file() else path / SPARSIFY_WEIGHTS_FILENAME
    state, config = load_tensors(weights_path), _json(weights_path.with_name(SAE_CFG_FILENAME))
    for key, only in (("activation", "topk"), ("transcode", False), ("skip_connection", False), ("signed", False)):
        if config.get(key, only) != only:
            raise ModelError(f"{path}: cfg.json says {key} {config[key]!r}, only {only!r} is read")
    weights = {
        "W_enc": _tensor(state, "encoder.weight", weights_path, 2).T,
        "b_enc": _tensor(state, "encoder.bias", weights_path, 1),
        "W_dec": _tensor(state, "W_dec", weights_path, 2),
        "b_dec": _tensor(state, "b_dec", weights_path, 1),
    }
    _require_shapes(weights_path, *(weights[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")))
    k = k or _number(config, ("k",), weights_path)
    if not k:
        raise ModelError(f"{path}: cfg.json says no k; pass k=")
    return _stock(weights_path, weights, device, cfg_overrides, k=k)


def abstopk_loader(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None, *, k: int | None = None
) -> Loaded:
    """SAELens' AbsTopK, whose latents have two signs, as the `topk` SAE that computes the same: latent d_sae + i is -i.

    The k largest magnitudes of x are the k largest of [x, -x] after ReLU. Everything that ranks, thresholds or shows
    activations takes them for 0 or more.
    """
    cfg, weights = sae_lens_disk_loader(path, device, cfg_overrides)
    signed = {name: weights[name] for name in ("W_enc", "b_enc", "W_dec")}
    axis = {"W_enc": 1}
    both = {name: torch.cat([x, -x], dim=axis.get(name, 0)).contiguous() for name, x in signed.items()}
    return {**cfg, "architecture": "topk", "d_sae": 2 * cfg["d_sae"], "k": k or cfg["k"]}, {**weights, **both}


CONVERTERS: dict[str, Callable[..., Loaded]] = {
    "abstopk": abstopk_loader,
    "dictionary_learning": dictionary_learning_loader,
    "intervlm": intervlm_loader,
    "sparsify": sparsify_loader,
}
"""Converters in the sense of `SAE.load_from_disk(converter=...)`, by the name of the project that trained the SAE."""

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
    config = _json(path)
    trainer = config.get("trainer", config)
    if not isinstance(trainer, dict):
        raise ModelError(f"{path}: is not the config.json of a trainer of an SAE")
    return trainer


def _json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(f"{path}: no such file; it says what the SAE beside it is") from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not the {path.name} of a trainer of an SAE")
    return config


def _names(state: dict[str, Any]) -> str:
    return ", ".join(sorted(map(str, state))[:8]) or "nothing"
