"""InterVLM: a TopK autoencoder of z-scored fused vectors, `sae_model.pt` beside `norm_stats.pt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.importers.files import load_tensors, names, number, state_dict, tensor, weights_file
from sae_lens_meme.importers.stock import Loaded, require_shapes, stock

NORM_STATS = "norm_stats.pt"
NAMES = ("sae_model.pt", "sae_model.pth")
K = 64
"""InterVLM's."""


def intervlm_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = FUSED,
    k: int | None = None,
) -> Loaded:
    """InterVLM's autoencoder, its z-scoring folded into the weights; a stock `topk` SAE.

    Args:
        path: the file with the state dict, or its folder; `norm_stats.pt` (mean, std) lies beside it.
        hook: the hook that it reads; InterVLM's are trained on fused vectors.
        k: active latents; default the number in a checkpoint that holds one, else 64 (InterVLM's).

    Raises:
        ModelError: not such a file, or the normalisation is missing.
    """
    weights_path = weights_file(Path(path), NAMES, not_these=(NORM_STATS,))
    stats_path = weights_path.with_name(NORM_STATS)
    checkpoint = load_tensors(weights_path)
    state, stats = state_dict(checkpoint), load_tensors(stats_path)
    W_enc, W_dec = (tensor(state, f"{part}.weight", weights_path, 2).double().T for part in ("encoder", "decoder"))
    b_enc, b_dec = (tensor(state, f"{part}.bias", weights_path, 1).double() for part in ("encoder", "decoder"))
    mean, std = (_vector(stats, key, stats_path) for key in ("mean", "std"))
    whole = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "mean": mean, "std": std}
    require_shapes(weights_path, whole)
    std = std.clamp(min=1e-6)  # as InterVLM does
    weights = {
        "W_enc": W_enc / std[:, None],
        "b_enc": b_enc - (mean / std) @ W_enc,
        "W_dec": W_dec * std,
        "b_dec": b_dec * std + mean,
    }
    return stock(
        weights_path,
        weights,
        device=device,
        overrides=cfg_overrides,
        architecture="topk",
        origin=("intervlm", "TopK autoencoder"),
        hook=hook or FUSED,
        notes=["InterVLM's z-scoring of each dimension is folded into the weights"],
        k=k or number(checkpoint, ("k", "topk", "top_k"), weights_path) or min(K, len(b_enc)),
        apply_b_dec_to_input=False,
    )


def recognises(path: Path) -> bool:
    """Whether the normalisation file is there."""
    return ((path if path.is_dir() else path.parent) / NORM_STATS).is_file()


def _vector(stats: dict[str, Any], key: str, path: Path) -> Tensor:
    """InterVLM writes them with or without a dimension of one row."""
    if not isinstance(stats.get(key), Tensor):
        raise ModelError(f"{path}: has no tensor {key!r} (it has {names(stats)})")
    return stats[key].double().flatten()
