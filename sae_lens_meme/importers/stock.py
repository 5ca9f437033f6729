"""From tensors of another project to the config and the weights of a stock SAELens SAE."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from sae_lens import __version__ as SAE_LENS
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.names import DECODER_RESID, IMAGE_RESID
from sae_lens_meme.storage import sha256_file

Loaded = tuple[dict[str, Any], dict[str, Tensor]]
"""What a converter in the sense of `SAE.load_from_disk(converter=...)` returns."""

IMPORTED = "imported"
"""In the metadata of an SAE: whose it is, what became of it, and the hash of the file."""


def stock(
    path: Path,
    weights: dict[str, Tensor],
    *,
    device: str,
    overrides: dict[str, Any] | None,
    architecture: str,
    origin: tuple[str, str],
    hook: str | None = None,
    notes: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    **fields: Any,
) -> Loaded:
    """SAELens' config and float32 weights.

    Args:
        path: the file that the weights are from.
        origin: the format, and the class in that project.
        notes: what a reader of its numbers has to know of the conversion.
        fields: of the SAELens config.

    Raises:
        ModelError: the shapes are not those of one autoencoder, k is too large, or a weight is not finite.
    """
    d_in, d_sae = require_shapes(path, weights)
    if fields.get("k", 1) > d_sae:
        raise ModelError(f"{path}: k is {fields['k']}, there are {d_sae} latents")
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: {name} holds NaN or infinity")
    imported = {"format": origin[0], "class": origin[1], "file": path.name, "sha256": sha256_file(path)}
    cfg = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": device,
        "normalize_activations": "none",
        "apply_b_dec_to_input": True,
        "metadata": {
            "sae_lens_training_version": None,  # SAELens would write its own
            "sae_lens_version": SAE_LENS,  # without it SAELens takes the config for one of before 6, and drops the rest
            **(metadata or {}),
            **({"hook_name": hook} if hook else {}),
            IMPORTED: imported | ({"notes": notes} if notes else {}),
        },
        **({"rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
        **fields,
        **(overrides or {}),
    }
    return cfg, {name: value.float().contiguous().to(device) for name, value in weights.items()}


def unit_decoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same `standard` SAE with decoder rows of norm 1; a row of zeros stays."""
    norms = weights["W_dec"].norm(dim=1)
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    scaled = {"W_enc": weights["W_enc"] * norms, "b_enc": weights["b_enc"] * norms}
    return {**weights, **scaled, "W_dec": weights["W_dec"] / norms[:, None]}


def decoder_hook(name: str | None) -> str | None:
    """TransformerLens' name of a language model's residual stream as the hook of the decoder's block before it."""
    return _hook_of_block(name, DECODER_RESID)


def image_hook(name: str | None) -> str | None:
    """TransformerLens' name of a vision tower's residual stream as the hook of the tower's block before it."""
    return _hook_of_block(name, IMAGE_RESID)


def _hook_of_block(name: str | None, ours: str) -> str | None:
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", name or "")
    if not found:
        return name or None
    layer = int(found[1]) - (found[2] == "pre")
    if layer < 0:
        raise ModelError(
            f"{name}: nothing but the embeddings comes before block 0; pass hook= with a hook of your model"
        )
    return f"{ours}.{layer}"


def require_shapes(path: Path, weights: dict[str, Tensor]) -> tuple[int, int]:
    """d_in and d_sae; every vector that is not of the input (b_dec, mean, std) is of the latents.

    Raises:
        ModelError: with all shapes.
    """
    d_in, d_sae = weights["W_enc"].shape
    expected = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,), "mean": (d_in,), "std": (d_in,)}
    if any(tuple(value.shape) != expected.get(name, (d_sae,)) for name, value in weights.items()):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights.items())
        raise ModelError(f"{path}: the shapes of its tensors ({shapes}) are not those of one autoencoder")
    return d_in, d_sae
