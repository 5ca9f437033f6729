"""PatchSAE: ReLU autoencoders of the patches of CLIP's vision tower, `{"cfg", "state_dict"}` in one pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.names import IMAGE_RESID
from sae_lens_meme.importers.files import attributes, load_tensors, names, pickled_names, tensors, weights_file
from sae_lens_meme.importers.stock import Loaded, stock

CONFIG_CLASSES = ("src.sae_training.config.ViTSAERunnerConfig", "src.sae_training.config.Config")
BLOCKS = {"base": 12, "large": 24, "huge": 32}
"""Blocks of CLIP's vision towers, by the size in the model's name."""


def patchsae_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
) -> Loaded:
    """An SAE of PatchSAE: `standard`, b_dec at the input.

    Args:
        path: the file, or the folder that holds it alone.
        hook: the hook that it reads; default `hook_image_resid.{block_layer}`, which may count from the tower's end.

    Raises:
        ModelError: not such a file, or a gated SAE, whose forward pass PatchSAE never wrote.
    """
    weights_path = weights_file(Path(path), ("sae.pt", "model.pt"))
    checkpoint = load_tensors(weights_path, plain=CONFIG_CLASSES)
    config = attributes(checkpoint.get("cfg", checkpoint.get("config")))
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or not config:
        raise ModelError(
            f"{weights_path}: is not a checkpoint of PatchSAE with cfg and state_dict (it has {names(checkpoint)})"
        )
    if config.get("gated_sae"):
        raise ModelError(f"{weights_path}: is a gated SAE, whose forward pass PatchSAE does not have")
    weights = tensors(state, ("W_enc", "b_enc", "W_dec", "b_dec"), weights_path)
    model = config.get("model_name")
    return stock(
        weights_path,
        weights,
        device=device,
        overrides=cfg_overrides,
        architecture="standard",
        origin=("patchsae", "SparseAutoencoder"),
        hook=hook or _hook_of(config),
        metadata={"model_name": model} if isinstance(model, str) else {},
    )


def recognises(path: Path) -> bool:
    """Whether the pickle names its configuration's module."""
    return b"src.sae_training.config" in pickled_names(path)


def _hook_of(config: dict[str, Any]) -> str | None:
    """Counted from the end only where the model's name says how many blocks its tower has."""
    layer, model = config.get("block_layer"), str(config.get("model_name"))
    if not isinstance(layer, int) or config.get("module_name", "resid") != "resid":
        return None
    blocks = next((n for size, n in BLOCKS.items() if size in model), None)
    if layer < 0 and (blocks is None or layer + blocks < 0):
        return None
    return f"{IMAGE_RESID}.{layer if layer >= 0 else layer + (blocks or 0)}"
