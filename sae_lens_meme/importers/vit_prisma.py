"""ViT-Prisma: standard and gated autoencoders of vision towers, a pickle with `cfg` and `state_dict`, `config.json` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.files import (
    attributes,
    load_tensors,
    number,
    pickled_names,
    read_json,
    state_dict,
    tensors,
    weights_file,
)
from sae_lens_meme.importers.stock import Loaded, image_hook, stock

CONFIG = "config.json"
CONFIG_CLASSES = (
    "vit_prisma.sae.config.VisionModelSAERunnerConfig",
    "vit_prisma.configs.HookedViTConfig.HookedViTConfig",
)
ARCHITECTURES = {"standard": "standard", "vanilla": "standard", "gated": "gated"}
_TENSORS = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "gated": ("W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec"),
}
AT_RUN_TIME = ("layer_norm", "constant_norm_rescale")
"""Normalisations of each activation that its forward pass does; SAELens' of these names are the same."""


def vit_prisma_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
) -> Loaded:
    """An SAE of ViT-Prisma: `standard`, `topk` or `gated`, b_dec at the input, its normalisation at run time kept.

    Args:
        path: the `.pt` file, or the folder that holds it.
        hook: the hook that it reads; default that of its config in this package's names.

    Raises:
        ModelError: not such a file, a transcoder, or of an architecture or activation that SAELens does not have.
    """
    weights_path = weights_file(Path(path), ("weights.pt",), not_these=("log_feature_sparsity.pt",))
    checkpoint = load_tensors(weights_path, plain=CONFIG_CLASSES)
    config = attributes(checkpoint.get("cfg")) or read_json(weights_path.with_name(CONFIG))
    state = state_dict(checkpoint)
    architecture, fields = _architecture(weights_path, config)
    weights = tensors(state, _TENSORS[architecture], weights_path)
    if "k" in fields:
        architecture = "topk"
    normalised = config.get("normalize_activations")
    model = config.get("model_name")
    return stock(
        weights_path,
        weights,
        device=device,
        overrides=cfg_overrides,
        architecture=architecture,
        origin=("vit-prisma", f"{str(config['architecture']).capitalize()}SparseAutoencoder"),
        hook=hook or image_hook(_hook_point(config)),
        notes=[f"each activation is normalised at run time ({normalised})"] if normalised in AT_RUN_TIME else None,
        metadata={"model_name": model} if isinstance(model, str) else {},
        normalize_activations=normalised if normalised in AT_RUN_TIME else "none",
        **fields,
    )


def recognises(path: Path) -> bool:
    """Whether the pickle names its configuration's module, or the config beside it has its keys."""
    if b"vit_prisma" in pickled_names(path):
        return True
    try:
        config = read_json((path if path.is_dir() else path.parent) / CONFIG)
    except ModelError:
        return False
    return {"hook_point_layer", "layer_subtype"} <= config.keys()


def _architecture(path: Path, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    config.setdefault("architecture", "standard")
    activation = config.get("activation_fn_str", "relu")
    architecture = ARCHITECTURES.get(str(config["architecture"]))
    if config.get("is_transcoder"):
        raise ModelError(f"{path}: is a transcoder, which maps one hook to another; give an SAE")
    if architecture is None:
        raise ModelError(f"{path}: its architecture is {config['architecture']!r}, read are {', '.join(ARCHITECTURES)}")
    if activation == "relu":
        return architecture, {}
    if activation != "topk" or architecture == "gated":
        raise ModelError(f"{path}: is {architecture} with activation {activation!r}, which SAELens does not have")
    k = number(attributes(config.get("activation_fn_kwargs")), ("k",), path)
    if not k:
        raise ModelError(f"{path}: its config says no k")
    return architecture, {"k": k}


def _hook_point(config: dict[str, Any]) -> str | None:
    layer, kind = config.get("hook_point_layer"), config.get("layer_subtype")
    if isinstance(layer, int) and isinstance(kind, str):
        return f"blocks.{layer}.{kind}"
    return config.get("hook_point") if isinstance(config.get("hook_point"), str) else None
