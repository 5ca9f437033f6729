"""SAELens' AbsTopK, whose latents have two signs, as the `topk` SAE that computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.provenance import not_folded, scaled_in_training


def abstopk_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
    k: int | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Latent d_sae + i is -i: the k largest magnitudes of x are the k largest of [x, -x] after ReLU.

    Everything that ranks, thresholds or shows activations takes them for 0 or more.

    Raises:
        ModelError: its weights take scaled activations.
    """
    if scaled_in_training(path):
        raise ModelError(
            f"{path}: is a checkpoint of a training on scaled activations; `sae-lens-meme import saelens-checkpoint {path} "
            "--out CHECKPOINT` folds the scale into its weights"
        )
    cfg, weights = sae_lens_disk_loader(path, device, cfg_overrides)
    if reason := not_folded(cfg.get("normalize_activations")):
        raise ModelError(f"{path}: {reason}")
    signed = {name: weights[name] for name in ("W_enc", "b_enc", "W_dec")}
    axis = {"W_enc": 1}
    both = {name: torch.cat([x, -x], dim=axis.get(name, 0)).contiguous() for name, x in signed.items()}
    named = {"metadata": {**(cfg.get("metadata") or {}), "hook_name": hook}} if hook else {}
    return {**cfg, **named, "architecture": "topk", "d_sae": 2 * cfg["d_sae"], "k": k or cfg["k"]}, {**weights, **both}
