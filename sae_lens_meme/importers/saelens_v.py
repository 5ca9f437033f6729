"""SAELens-V: folders of an old SAELens that load without an error and give wrong numbers.

Its trainer scales activations by a factor s that it never records. At the end it folds s into the encoder and the
decoder, but not into b_dec; a checkpoint from the middle of training has nothing folded. Its `cfg.json` says none of this.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from sae_lens import SAE
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting, sae_lens_disk_loader
from torch import Tensor

from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.importers.files import load_tensors, read_json
from sae_lens_meme.importers.stock import Loaded, decoder_hook, stock

State = Literal["final", "checkpoint", "as_is"]
STATES: tuple[State, ...] = ("final", "checkpoint", "as_is")
MODELS = ("HookedLlava", "HookedChameleon")
"""Model classes that only SAELens-V has."""
_READ = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
}
_READ["topk"] = _READ["standard"]


def saelens_v_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
    state: State | None = None,
    norm_scaling_factor: float | None = None,
) -> Loaded:
    """A folder that SAELens-V wrote, as an SAE that takes activations as they are.

    Args:
        path: the folder with `cfg.json` and `sae_weights.safetensors`.
        hook: the hook that it reads; default that of its config in this package's names.
        state: `final` (weights folded, b_dec still scaled), `checkpoint` (nothing folded), or `as_is` (nothing to undo);
            default what the folder's name tells: `final_...`, or a number of tokens.
        norm_scaling_factor: s, which the folder does not hold: sqrt(d_in) over the mean norm of the activations.

    Raises:
        ModelError: no such folder, a fine-tuned SAE, or one that needs `state` or `norm_scaling_factor`.
        ConfigError: there is no such state, or the factor is not above 0.
    """
    folder = Path(path)
    cfg, weights, raw = old_saelens(folder)
    state, s = _scale(folder, state, norm_scaling_factor)
    if state == "checkpoint":
        weights |= {"W_enc": weights["W_enc"] * s, "W_dec": weights["W_dec"] / s}
    elif state == "final" and raw.get("normalize_sae_decoder"):
        weights["W_dec"] = weights["W_dec"] / s  # saving gave its rows norm 1 once more, after the fold
    weights["b_dec"] = weights["b_dec"] / s
    notes = [f"read as {state}, activations scaled by {s:g} in training" if state != "as_is" else "read as it is"]
    return converted(folder, cfg, weights, device, cfg_overrides, ("saelens-v", cfg["architecture"]), hook, notes)


class Calibration(NamedTuple):
    """What a folder of SAELens-V reconstructs when it is read as one of the states."""

    state: State
    norm_scaling_factor: float | None
    explained_variance: float


@torch.no_grad()
def calibrate(path: str | Path, activations: Tensor) -> list[Calibration]:
    """Which state a folder of SAELens-V is in, judged by activations of its hook: the best first.

    s is sqrt(d_in) over their mean norm, as SAELens-V takes it of its own. It is not fitted: a fitted s would also undo
    the shrinkage of the L1 penalty, and the best reconstruction would not be that of the right s.

    Args:
        path: the folder.
        activations: (n, d_in), of the hook that it reads, two rows or more that differ.

    Raises:
        DataError: the activations have another width, are not finite, or do not vary.
    """
    d_in = int(old_saelens(Path(path))[0]["d_in"])
    x = activations.float()
    if x.ndim != 2 or x.shape[1] != d_in:
        raise DataError(f"{path}: takes (n, {d_in}), the activations are {tuple(x.shape)}; give those of its hook")
    total = (x - x.mean(0)).square().sum().item() if len(x) > 1 else 0.0
    if not 0 < total < float("inf"):
        raise DataError(f"{path}: the activations do not vary or are not finite; give two rows or more that differ")
    s = d_in**0.5 / x.norm(dim=1).mean().item()
    found = []
    for state in STATES:
        scale = None if state == "as_is" else s
        load = partial(saelens_v_loader, state=state, norm_scaling_factor=scale)
        error = (SAE.load_from_disk(path, converter=load)(x) - x).square().sum().item()
        found.append(Calibration(state, scale, 1 - error / total))
    return sorted(found, key=lambda calibration: -calibration.explained_variance)


def old_saelens(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Config and weights as SAELens reads them today, and the config as it is on disk.

    Raises:
        ModelError: no such folder, or one whose weights are rescaled after training.
    """
    raw = read_json(folder / SAE_CFG_FILENAME)
    tensors = load_tensors(folder / SAE_WEIGHTS_FILENAME)
    try:
        cfg, weights = sae_lens_disk_loader(folder)
        cfg = handle_config_defaulting(cfg)
    except Exception as error:  # SAELens raises whatever it comes upon
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{folder}: is not an SAE folder of an old SAELens ({type(error).__name__}: {reason})"
        ) from None
    if raw.get("finetuning_scaling_factor") or "finetuning_scaling_factor" in tensors or "scaling_factor" in tensors:
        raise ModelError(
            f"{folder}: was fine-tuned with a factor for each latent, which is not read; give the SAE before that"
        )
    wanted = _READ.get(str(cfg.get("architecture")))
    if wanted is None or (missing := [name for name in wanted if name not in weights]):
        what = f"has no tensor {missing[0]!r}" if wanted else f"is {cfg.get('architecture')!r}, not {', '.join(_READ)}"
        raise ModelError(f"{folder}: {what}")
    return cfg, {name: weights[name] for name in wanted}, raw


def converted(
    folder: Path,
    cfg: dict[str, Any],
    weights: dict[str, Tensor],
    device: str,
    overrides: dict[str, Any] | None,
    origin: tuple[str, str],
    hook: str | None,
    notes: list[str],
    model: dict[str, Any] | None = None,
) -> Loaded:
    """An SAE on activations as they are, with what the old config says about its model."""
    given = cfg.get("metadata") or {}
    kept = {key: value for key, value in given.items() if key in ("model_name", "model_class_name") and value}
    fields = {"k": cfg["k"]} if cfg["architecture"] == "topk" else {}
    return stock(
        folder / SAE_WEIGHTS_FILENAME,
        weights,
        device=device,
        overrides=overrides,
        architecture=cfg["architecture"],
        origin=origin,
        hook=hook or decoder_hook(given.get("hook_name")),
        notes=notes,
        metadata={**kept, **(model or {})},
        apply_b_dec_to_input=cfg["apply_b_dec_to_input"],
        **fields,
    )


def recognises(path: Path) -> bool:
    """Whether its config names a model class that only SAELens-V has."""
    try:
        return read_json(path / SAE_CFG_FILENAME).get("model_class_name") in MODELS
    except ModelError:
        return False


def _scale(folder: Path, state: State | None, s: float | None) -> tuple[State, float]:
    if state is not None and state not in STATES:
        raise ConfigError(f"state is {state!r}, it must be one of {', '.join(STATES)}")
    if s is not None and not 0 < s < float("inf"):
        raise ConfigError(f"norm_scaling_factor is {s!r}, it must be above 0")
    told: State | None = "final" if folder.name.startswith("final") else None
    told = "checkpoint" if re.fullmatch(r"\d+", folder.name) else told
    state = state or told
    if state is None:
        raise ModelError(
            f"{folder}: its name does not say whether training had ended; pass state= final, checkpoint or as_is, or try "
            "calibrate(folder, activations)"
        )
    if state == "as_is":
        return state, 1.0
    if s is None:
        raise ModelError(
            f"{folder}: SAELens-V scales activations and does not record the factor; pass norm_scaling_factor= "
            "(sqrt(d_in) over their mean norm), or try calibrate(folder, activations)"
        )
    return state, s
