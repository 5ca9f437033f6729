"""The `dictionary_learning` library, of which sae-for-vlm has a copy: seven classes, and files that do not name theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.names import IMAGE_EMBED, IMAGE_RESID
from sae_lens_meme.importers.files import load_tensors, names, number, read_json, tensor, weights_file
from sae_lens_meme.importers.stock import Loaded, stock, unit_decoder

FILE, CONFIG = "ae.pt", "config.json"
MATRYOSHKA = "MatryoshkaBatchTopKSAE"
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    MATRYOSHKA,
)
_SPELLED = {"MatroyshkaBatchTopKSAE": MATRYOSHKA}
"""As in sae-for-vlm's copy."""
_LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
_OWN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
_KEYS = {
    "AutoEncoder": _LINEAR | {"b_dec": "bias"},
    "AutoEncoderNew": _LINEAR | {"b_dec": "decoder.bias"},
    "AutoEncoderTopK": _LINEAR | {"b_dec": "b_dec"},
    "BatchTopKSAE": _LINEAR | {"b_dec": "b_dec"},
    "GatedAutoEncoder": {
        "W_enc": "encoder.weight",
        "W_dec": "decoder.weight",
        "b_gate": "gate_bias",
        "b_mag": "mag_bias",
        "r_mag": "r_mag",
        "b_dec": "decoder_bias",
    },
    "JumpReluAutoEncoder": _OWN | {"threshold": "threshold"},
    MATRYOSHKA: _OWN,
}
"""SAELens' name of each tensor, and theirs."""


def dictionary_learning_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
    k: int | None = None,
    kind: str | None = None,
) -> Loaded:
    """An autoencoder of `dictionary_learning`: `ae.pt`, and `config.json` beside it or one folder up, which names its class.

    BatchTopKSAE and MatryoshkaBatchTopKSAE encode with a trained threshold and become `jumprelu` SAEs; the groups of
    the latter are kept in the metadata. AutoEncoder gets decoder rows of norm 1, as in its own `from_pretrained`.
    Biases hold the scale of the activations already.

    Args:
        path: the `.pt` file or its folder.
        hook: the hook that it reads; default: what sae-for-vlm's folder names say.
        k: active latents of AutoEncoderTopK; default the number in the file or in `config.json`.
        kind: its class, where no `config.json` says it: TopK and BatchTopK have the same tensors.

    Raises:
        ModelError: not such a file, or of a class that is unknown here or cannot be distinguished from another.
    """
    weights_path = weights_file(Path(path), (FILE,))
    state, config = load_tensors(weights_path), _trainer_config(weights_path)
    kind = _class_of(weights_path, state, config.get("dict_class"), kind)
    if k is not None and kind != "AutoEncoderTopK":
        raise ModelError(f"{weights_path}: is {kind}, which has no k; leave k out")
    weights = _weights(weights_path, state, kind)
    fields: dict[str, Any] = {"architecture": "standard"}
    metadata: dict[str, Any] = {}
    notes = []
    if kind == "AutoEncoder":
        weights = unit_decoder(weights)
        notes = ["decoder rows have norm 1 and activations their scale, as in AutoEncoder.from_pretrained"]
    elif kind in ("BatchTopKSAE", MATRYOSHKA):
        fields["architecture"] = "jumprelu"
        threshold = tensor(state, "threshold", weights_path, 0)
        weights["threshold"] = threshold.expand_as(weights["b_enc"])
        notes = [_of_threshold(float(threshold))]
        metadata = {"matryoshka_widths": _widths(weights_path, state)} if kind == MATRYOSHKA else {}
    elif kind == "GatedAutoEncoder":
        fields["architecture"] = "gated"
    elif kind == "AutoEncoderTopK":
        k = k or number(state, ("k",), weights_path) or number(config, ("k",), weights_path)
        if not k:
            raise ModelError(f"{weights_path}: k is neither in the file nor in config.json beside it; pass k=")
        fields |= {"architecture": "topk", "k": k}
    elif kind == "JumpReluAutoEncoder":
        fields["architecture"] = "jumprelu"
    fields["apply_b_dec_to_input"] = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    return stock(
        weights_path,
        weights,
        device=device,
        overrides=cfg_overrides,
        origin=("dictionary_learning", kind),
        hook=hook or _hook_of(weights_path),
        notes=notes,
        metadata=metadata,
        **fields,
    )


def recognises(path: Path) -> bool:
    """Whether a file has one of its names."""
    return bool(re.fullmatch(r"ae(_\d+)?\.pt", path.name)) or (path / FILE).is_file()


def _weights(path: Path, state: dict[str, Any], kind: str) -> dict[str, Tensor]:
    found = {ours: tensor(state, key, path, 2 if "W_" in ours else 1) for ours, key in _KEYS[kind].items()}
    linear = _KEYS[kind]["W_enc"] == "encoder.weight"
    return found | ({ours: found[ours].T for ours in ("W_enc", "W_dec")} if linear else {})


def _class_of(path: Path, state: dict[str, Any], named: Any, given: str | None) -> str:
    """What its config or the caller says, else what its tensors imply; BatchTopK has the same tensors as TopK."""
    for where, name in (("kind is", given), ("config.json names", named)):
        if name is not None and (not isinstance(name, str) or _SPELLED.get(name, name) not in CLASSES):
            raise ModelError(f"{path}: {where} {name!r}, known here are {', '.join(CLASSES)}")
    named, given = (_SPELLED.get(str(name), name) for name in (named, given))
    if named and given and named != given:
        raise ModelError(f"{path}: config.json names {named!r}, kind is {given!r}; leave kind out")
    if named or given:
        return str(named or given)
    if "W_enc" in state:
        own = {"group_sizes": MATRYOSHKA, "threshold": "JumpReluAutoEncoder"}
    else:
        own = {"r_mag": "GatedAutoEncoder", "bias": "AutoEncoder", "decoder.bias": "AutoEncoderNew"}
    if found := next((kind for key, kind in own.items() if key in state), None):
        return found
    if "b_dec" not in state or "encoder.bias" not in state:
        raise ModelError(f"{path}: is not an autoencoder of dictionary_learning (it has {names(state)})")
    if "threshold" in state:
        raise ModelError(
            f"{path}: is AutoEncoderTopK or BatchTopKSAE, which encode differently; put its config.json, which names "
            "dict_class, beside it or one folder up, or pass kind='AutoEncoderTopK' or kind='BatchTopKSAE'"
        )
    return "AutoEncoderTopK"


def _of_threshold(threshold: float) -> str:
    if threshold < 0:
        return f"threshold {threshold:g}: training was too short to set it, so this is a plain ReLU"
    return f"BatchTopK encodes with its trained threshold, {threshold:g}"


def _widths(path: Path, state: dict[str, Any]) -> list[int]:
    """Where each group ends."""
    sizes = tensor(state, "group_sizes", path, 1, floats=False).long()
    if (sizes < 1).any() or int(sizes.sum()) != len(tensor(state, "b_enc", path, 1)):
        raise ModelError(f"{path}: group_sizes {sizes.tolist()} do not add up to the number of latents")
    return torch.cumsum(sizes, 0).tolist()


def _trainer_config(weights_path: Path) -> dict[str, Any]:
    """The section `trainer` of `config.json` beside it or one folder up (`checkpoints/ae_100000.pt`); else nothing."""
    for folder in (weights_path.parent, weights_path.parent.parent):
        if (folder / CONFIG).is_file():
            config = read_json(folder / CONFIG)
            trainer = config.get("trainer", config)
            if not isinstance(trainer, dict):
                raise ModelError(f"{folder / CONFIG}: is not the {CONFIG} of a trainer of an SAE")
            return trainer
    return {}


def _hook_of(path: Path) -> str | None:
    """sae-for-vlm writes no hook, but its folders are named `..._{layer}_{attachment point}_...`."""
    for part in reversed(path.parts):
        if found := re.search(r"_(-?\d+)_(post_mlp_residual|post_projection)", part):
            if found[2] == "post_projection":
                return IMAGE_EMBED
            return None if found[1].startswith("-") else f"{IMAGE_RESID}.{found[1]}"
    return None
