"""A checkpoint from the middle of SAELens' training on scaled activations, as the SAE that takes them as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens import TrainingSAE
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME, ACTIVATION_WHITENING_FILENAME, SAE_WEIGHTS_FILENAME

import sae_lens_meme.train  # noqa: F401 (registers meme_topk)
from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.files import load_tensors, read_json
from sae_lens_meme.importers.stock import Loaded, stock
from sae_lens_meme.provenance import not_folded, scaled_in_training

_MAPS = ("mean", "matrix", "inverse_matrix")


def saelens_checkpoint_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
) -> Loaded:
    """The scale or the whitening that lies beside the weights is folded into them, as SAELens does when training ends.

    Raises:
        ModelError: not such a folder, or one that does not hold the scale.
    """
    folder = Path(path)
    file = folder / ACTIVATION_SCALER_CFG_FILENAME
    said = read_json(file)
    scale = said.get("scaling_factor")
    if scale is not None and not (type(scale) in (int, float) and 0 < scale < float("inf")):
        raise ModelError(f"{file}: scaling_factor is {scale!r}, it must be a number above 0; restore the file")
    maps = load_tensors(folder / ACTIVATION_WHITENING_FILENAME) if said.get("has_whitening") else None
    try:
        sae = TrainingSAE.load_from_disk(folder, device)
        if scale is not None:
            sae.fold_activation_norm_scaling_factor(scale)
        if maps is not None:
            sae.fold_activation_whitening(*(maps[name] for name in _MAPS))
        weights = sae.state_dict()
        sae.process_state_dict_for_saving_inference(weights)
    except Exception as error:  # SAELens, safetensors and torch raise unrelated classes here
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{folder}: is not a checkpoint of SAELens' training ({type(error).__name__}: {reason})"
        ) from None
    if reason := not_folded(sae.cfg.normalize_activations):
        raise ModelError(f"{folder}: {reason}")
    cfg = sae.cfg.get_inference_sae_cfg_dict()
    metadata = dict(cfg.pop("metadata"))
    if widths := getattr(sae.cfg, "matryoshka_widths", None):
        metadata["matryoshka_widths"] = list(widths)
    return stock(
        folder / SAE_WEIGHTS_FILENAME,
        weights,
        device=device,
        overrides=cfg_overrides,
        origin=("saelens-checkpoint", sae.cfg.architecture()),
        hook=hook,
        notes=["a checkpoint: training went on after it"],
        metadata=metadata,
        **{key: value for key, value in cfg.items() if key not in ("device", "dtype")},
    )


def recognises(path: Path) -> bool:
    """Whether a scale or a whitening lies beside the weights."""
    return scaled_in_training(path)
