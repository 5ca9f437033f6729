"""EleutherAI's sparsify: a TopK SAE as `sae.safetensors` and `cfg.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens.constants import SAE_CFG_FILENAME, SPARSIFY_WEIGHTS_FILENAME

from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.files import load_tensors, number, read_json, tensor
from sae_lens_meme.importers.stock import Loaded, stock


def sparsify_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
    k: int | None = None,
) -> Loaded:
    """A TopK SAE of EleutherAI's sparsify; SAELens' own converter requires a language model.

    Raises:
        ModelError: not such a folder, or a transcoder, or of another activation than TopK.
    """
    path = Path(path)
    weights_path = path if path.is_file() else path / SPARSIFY_WEIGHTS_FILENAME
    state, config = load_tensors(weights_path), read_json(weights_path.with_name(SAE_CFG_FILENAME))
    for key, only in (("activation", "topk"), ("transcode", False), ("skip_connection", False), ("signed", False)):
        if config.get(key, only) != only:
            raise ModelError(f"{path}: cfg.json says {key} {config[key]!r}, only {only!r} is read")
    weights = {
        "W_enc": tensor(state, "encoder.weight", weights_path, 2).T,
        "b_enc": tensor(state, "encoder.bias", weights_path, 1),
        "W_dec": tensor(state, "W_dec", weights_path, 2),
        "b_dec": tensor(state, "b_dec", weights_path, 1),
    }
    k = k or number(config, ("k",), weights_path)
    if not k:
        raise ModelError(f"{path}: cfg.json says no k; pass k=")
    return stock(
        weights_path,
        weights,
        device=device,
        overrides=cfg_overrides,
        architecture="topk",
        origin=("sparsify", "SparseCoder"),
        hook=hook,
        k=k,
    )


def recognises(path: Path) -> bool:
    """Whether its file of weights is there."""
    return (path / SPARSIFY_WEIGHTS_FILENAME).is_file()
