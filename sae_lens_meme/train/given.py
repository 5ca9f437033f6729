"""An SAE to start from (`train.from_pretrained_path`): its config gives the shape, and its weights take raw activations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sae_lens import TrainingSAE
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
from sae_lens.loading.pretrained_sae_loaders import (
    get_sae_lens_config_from_disk,
    handle_config_defaulting,
    sae_lens_disk_loader,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.provenance import not_folded, scaled_in_training
from sae_lens_meme.storage import sha256_file, sha256_json
from sae_lens_meme.train.saelens import quiet, refused_by_saelens, seeded

WHERE = "train.from_pretrained_path"
_TRAINED_AS = {"topk": ("topk", "meme_topk"), "meme_topk": ("meme_topk", "topk")}
_OF_THE_RUN = ("architecture", "d_in", "device", "dtype", "metadata")


def with_shape_of(given: str | Path, sae: Mapping[str, Any]) -> dict[str, Any]:
    """A section `sae:` completed with what the given SAE says about itself: architecture, width, k.

    Raises:
        ConfigError: the two contradict each other, SAELens cannot train this kind, or no SAE is there.
    """
    cfg = config_of(given)
    architecture = _architecture(given, cfg, sae)
    known = {field.name for field in fields(SAE_TRAINING_CLASS_REGISTRY[architecture][1])}  # type: ignore[arg-type]
    own = {key: value for key, value in cfg.items() if key in known and key not in _OF_THE_RUN}
    if wrong := [key for key in sae if key in own and sae[key] != own[key]]:
        said = ", ".join(f"{key} {own[key]!r} and not {sae[key]!r}" for key in wrong)
        written = " ".join(f"sae.{key}={json.dumps(own[key])}" for key in wrong)
        raise ConfigError(f"{WHERE}: the SAE in {given} has {said}; leave it out of sae:, or write {written}")
    metadata = cfg.get("metadata") or {}
    same = metadata.get("training_architecture") == architecture
    trained_with = (metadata.get("training_architecture_details") or {}) if same else {}
    return {k: v for k, v in trained_with.items() if k in known} | dict(sae) | own | {"architecture": architecture}


def hook_of(given: str | Path) -> str | None:
    """The hook that the SAE names."""
    return (config_of(given).get("metadata") or {}).get("hook_name")


def load_given(given: str | Path, cfg: Any, hook: str) -> TrainingSAE[Any]:
    """Its weights in an SAE of this training config, its metadata beside them.

    Raises:
        ConfigError: it takes activations of another width, or SAELens cannot load it.
    """
    stored = config_of(given)
    if stored.get("d_in") != cfg.d_in:
        raise ConfigError(
            f"{WHERE}: the SAE in {given} takes {stored.get('d_in')} dimensions, the activations at {hook} have {cfg.d_in}"
        )
    with seeded(0), quiet(False), refused_by_saelens(WHERE):
        _, state = sae_lens_disk_loader(given, str(cfg.device))
        sae = TrainingSAE.from_dict(cfg.to_dict())
        sae.process_state_dict_for_loading(state)
        sae.load_state_dict(state)
        sae.cfg.metadata = SAEMetadata(**(stored.get("metadata") or {}))
    return sae


def given_sha256(given: str | Path) -> str:
    """A hash of its weights and config."""
    return sha256_json([sha256_file(Path(given) / file) for file in (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME)])


def config_of(given: str | Path) -> dict[str, Any]:
    """What its `cfg.json` says.

    Raises:
        ConfigError: no SAE is there, or one whose weights take scaled activations.
    """
    for file in (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME):
        if not (Path(given) / file).is_file():
            raise ConfigError(
                f"{WHERE}: {given} is not an SAE folder (it has no {file}); give what train, SAELens or "
                f"`sae-lens-meme import` wrote"
            )
    if scaled_in_training(given):
        raise ConfigError(
            f"{WHERE}: {given} is a checkpoint of a training on scaled activations, and its weights do not take raw "
            f"ones; resume that training, or give its final SAE, or what `sae-lens-meme import saelens-checkpoint {given} "
            "--out SAE` makes"
        )
    with refused_by_saelens(WHERE):
        cfg = handle_config_defaulting(get_sae_lens_config_from_disk(given))
    if reason := not_folded(cfg.get("normalize_activations")):
        raise ConfigError(f"{WHERE}: {given}: {reason}")
    return cfg


def _architecture(given: str | Path, cfg: Mapping[str, Any], sae: Mapping[str, Any]) -> str:
    own = str(cfg.get("architecture"))
    possible = [name for name in _TRAINED_AS.get(own, (own,)) if name in SAE_TRAINING_CLASS_REGISTRY]
    if not possible:
        what = "no SAE that can be trained" if own in SAE_CLASS_REGISTRY else "unknown to SAELens"
        raise ConfigError(f"{WHERE}: the SAE in {given} is {own!r}, which is {what}")
    asked = sae.get("architecture") or (cfg.get("metadata") or {}).get("training_architecture")
    if sae.get("architecture") and asked not in possible:
        raise ConfigError(
            f"{WHERE}: the SAE in {given} is {own!r} and cannot be trained as {asked!r}; "
            f"write sae.architecture={possible[0]}"
        )
    return asked if asked in possible else possible[0]
