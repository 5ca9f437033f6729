"""A `train:` section: SAELens' runner config in YAML, checked key by key and value by value.

SAELens drops unknown keys under `sae:` in silence and takes `1e-3`, which YAML reads as a string.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

from sae_lens_meme.config import apply_overrides, read_yaml
from sae_lens_meme.device import pick_device
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.options import check_keys
from sae_lens_meme.train.values import check_value, field_types

RUNNER_DEFAULTS: dict[str, Any] = {
    "model_class_name": "HookedMemeCLIP",
    "hook_name": FUSED,
    "train_batch_size_tokens": 256,  # InterVLM's
    "lr": 1.0e-3,  # InterVLM's
    "n_checkpoints": 5,
    "verbose": False,  # its counts are of language-model tokens
}
FORCED: dict[str, Any] = {  # one meme is a sequence of one token, and the step owns its folder
    "context_size": 1,
    "is_dataset_tokenized": True,
    "prepend_bos": False,
    "exclude_special_tokens": False,
    "use_cached_activations": False,  # our provider serves them
    "streaming": False,
    "checkpoint_path": None,
    "output_path": None,
    "resume_from_checkpoint": None,
    "from_pretrained_path": None,
    "cached_activations_path": None,
    "save_final_checkpoint": False,
}
IGNORED_IF_GIVEN = ("use_cached_activations", "streaming")  # any value of theirs gives the same training


@dataclass(frozen=True)
class Recipe:
    """What a `train:` section may hold beside the fields of SAELens' runner config."""

    epochs: int | float | None = None
    """Passes over the training rows, turned into `training_tokens`; 50 if neither is given (InterVLM's)."""
    standardize: bool = True
    """Train on (x - mean) / std of the training rows, folded into the saved weights."""
    early_stopping_epochs: int | None = None
    """Stop when held-out explained variance has not risen for so many epochs, and keep the best weights."""
    dead_feature_window_epochs: int | float = 5
    """A latent that has not fired for so long is dead; used where `dead_feature_window` is not given."""
    feature_sampling_window_epochs: int | float = 10
    """Span of the sparsity statistics; used where `feature_sampling_window` is not given."""
    hook_names: Mapping[str, str] | None = None
    """Names of SAEs and their hooks, to train one a hook in one run with SAELens' MultiSAETrainingRunner."""


@dataclass(frozen=True)
class TrainConfig:
    """A checked `train:` section. `resolve` completes it with what the embeddings tell."""

    section: Mapping[str, Any]  # stock fields as given
    recipe: Recipe

    @property
    def hooks(self) -> dict[str, str]:
        """Names of the SAEs and their hooks; a single SAE has the empty name."""
        return dict(self.recipe.hook_names or {"": self.section.get("hook_name", FUSED)})

    @property
    def seed(self) -> int:
        return int(self.section.get("seed", LanguageModelSAERunnerConfig.seed))

    def resolve(self, d_in: int, n_rows: int, hook: str | None = None) -> dict[str, Any]:
        """A complete dictionary for `LanguageModelSAERunnerConfig.from_dict`.

        Args:
            d_in: width of the activations.
            n_rows: number of training rows.
            hook: the hook of this SAE in multi-hook training.

        Raises:
            ConfigError: the config contradicts the activations, or itself.
        """
        runner: dict[str, Any] = (
            copy.deepcopy(RUNNER_DEFAULTS | dict(self.section)) | FORCED | ({"hook_name": hook} if hook else {})
        )
        batch = runner["train_batch_size_tokens"]
        if not 0 < batch <= n_rows:
            raise ConfigError(
                f"train_batch_size_tokens is {batch}, it must lie between 1 and the {n_rows:,} training rows"
            )
        runner["training_tokens"] = runner.get("training_tokens") or math.ceil((self.recipe.epochs or 50) * n_rows)
        runner["device"] = pick_device(runner.get("device", "auto"), mps=False)
        for window in ("dead_feature_window", "feature_sampling_window"):
            epochs = getattr(self.recipe, f"{window}_epochs")
            runner[window] = runner.get(window) or max(1, math.ceil(epochs * n_rows / batch))
        runner["sae"] = _resolve_sae(runner["sae"], d_in, runner)
        runner["logger"] = {"log_to_wandb": False} | dict(runner.get("logger") or {})
        return runner

    def runner_config(self, d_in: int, n_rows: int, hook: str | None = None) -> LanguageModelSAERunnerConfig[Any]:
        """SAELens' own config object."""
        resolved = self.resolve(d_in, n_rows, hook)
        try:
            return LanguageModelSAERunnerConfig.from_dict(resolved)
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"train: SAELens refuses this config: {error}") from None


def load_train_config(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> TrainConfig:
    """Read and check a `train:` section.

    Args:
        source: a YAML file or the name of a shipped recipe, or a mapping; either holds a section
            `train` or is one.
        overrides: `sae.k=32`, `epochs=10`, ...; values are YAML.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a value of the wrong type, or a
            value that the `train` step does not let one choose.
    """
    given = read_yaml(source) if isinstance(source, (str, Path)) else source
    section = given.get("train", given)
    if not isinstance(section, Mapping):
        raise ConfigError(f"train: is {section!r}, not a section; give at least sae: {{d_sae: 4096, k: 64}}")
    section = apply_overrides(copy.deepcopy(dict(section)), overrides)
    recipe = _take_recipe(section)
    _check_section(section)
    if recipe.epochs is not None and section.get("training_tokens"):
        raise ConfigError("train: give either epochs or training_tokens, not both")
    if recipe.standardize and section["sae"].get("normalize_activations", "none") != "none":
        raise ConfigError(
            f"train.sae.normalize_activations {section['sae']['normalize_activations']!r} "
            "would normalise standardised input a second time; add standardize: false"
        )
    return TrainConfig(section, recipe)


def _take_recipe(section: dict[str, Any]) -> Recipe:
    types = field_types(Recipe)
    own = {key: section.pop(key) for key in list(section) if key in types}
    for key, value in own.items():
        check_value(f"train.{key}", value, types[key])
    for key in ("epochs", "early_stopping_epochs", "dead_feature_window_epochs", "feature_sampling_window_epochs"):
        if own.get(key) is not None and own[key] <= 0:
            raise ConfigError(f"train.{key} is {own[key]}, it must be above 0")
    for name in own.get("hook_names") or {}:
        if not re.fullmatch(r"\w[\w-]*", str(name)) or name == "checkpoints":
            raise ConfigError(
                f"train.hook_names: {name!r} cannot be the name of an SAE's folder; use letters, digits, - and _"
            )
    return Recipe(**own)


def _check_section(section: dict[str, Any]) -> None:
    types = field_types(LanguageModelSAERunnerConfig)
    check_keys("train", section, [*types, *(f.name for f in fields(Recipe))])
    for part in ("sae", "logger"):
        section[part] = section.get(part) or {}
        check_value(f"train.{part}", section[part], dict)
    for key, value in section.items():
        if key in FORCED and key not in IGNORED_IF_GIVEN and value != FORCED[key]:
            raise ConfigError(f"train.{key} is {value!r}, this step sets it to {FORCED[key]!r}; leave it out")
        if key not in ("sae", "logger"):
            check_value(f"train.{key}", value, types[key])
    if section.get("seed", 0) < 0:
        raise ConfigError(f"train.seed is {section['seed']}, it must be 0 or more")
    _check_sae(section["sae"])
    _check_fields("train.logger", section["logger"], field_types(LoggingConfig))


def _check_sae(sae: dict[str, Any]) -> None:
    architecture = sae.setdefault("architecture", "meme_topk")
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        known = ", ".join(sorted(SAE_TRAINING_CLASS_REGISTRY))
        raise ConfigError(f"train.sae.architecture is {architecture!r}, SAELens knows {known}")
    types = field_types(SAE_TRAINING_CLASS_REGISTRY[architecture][1])
    _leave_out_fields_of_meme_topk(sae, types)
    _check_fields(f"train.sae ({architecture})", sae, {**types, "architecture": str})
    if "d_sae" not in sae:
        raise ConfigError("train.sae.d_sae is missing; give the number of latents, e.g. d_sae: 4096")
    if sae["d_sae"] <= 0:
        raise ConfigError(f"train.sae.d_sae is {sae['d_sae']}, it must be above 0")
    if "k" in types:
        k = sae.get("k", SAE_TRAINING_CLASS_REGISTRY[architecture][1].k)  # type: ignore[attr-defined]
        if not 0 < k <= sae["d_sae"]:
            raise ConfigError(f"train.sae.k is {k}, it must lie between 1 and d_sae {sae['d_sae']}")


def _leave_out_fields_of_meme_topk(sae: dict[str, Any], types: Mapping[str, Any]) -> None:
    """The shipped recipes are of `meme_topk`: another architecture is one line, and what it lacks is named."""
    own = field_types(SAE_TRAINING_CLASS_REGISTRY["meme_topk"][1])
    for key in [key for key in sae if key in own and key not in types]:
        value = sae.pop(key)
        print(f"note: train.sae.{key}: {value!r} is left out, {sae['architecture']} has no such field", file=sys.stderr)


def _check_fields(where: str, given: dict[str, Any], types: dict[str, Any]) -> None:
    check_keys(where, given, types)
    for key, value in given.items():
        check_value(f"{where}.{key}", value, types[key])


def _resolve_sae(sae: Mapping[str, Any], d_in: int, runner: Mapping[str, Any]) -> dict[str, Any]:
    if sae.get("d_in", d_in) != d_in:
        raise ConfigError(
            f"train.sae.d_in is {sae['d_in']}, the activations at the hook have {d_in} dimensions; leave it out"
        )
    for key in ("device", "dtype"):
        if key in sae and key in runner and sae[key] != runner[key]:
            raise ConfigError(f"train.sae.{key} is {sae[key]!r} and train.{key} is {runner[key]!r}; give one of them")
    shared = {"device": runner["device"]} | ({"dtype": runner["dtype"]} if "dtype" in runner else {})
    return {**sae, **shared, "d_in": d_in}
