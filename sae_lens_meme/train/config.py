"""A `train:` section: SAELens' runner config in YAML, checked key by key and value by value.

SAELens silently drops unknown keys under `sae:` and accepts `1e-3`, which YAML reads as a string.
"""

from __future__ import annotations

import copy
import math
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, TrainingSAE
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

from sae_lens_meme.config import apply_overrides, read_yaml
from sae_lens_meme.device import pick_device
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.options import Count, Options, Positive, check_keys, check_value
from sae_lens_meme.train.given import hook_of, with_shape_of
from sae_lens_meme.train.saelens import CannotStandardizeError, quiet, refused_by_saelens, seeded, try_out

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
TAKEN_BEFORE = "from_pretrained_path"  # the step reads the SAE itself
INSTEAD = {
    "resume_from_checkpoint": "an interrupted run is resumed by the same command",
    "cached_activations_path": "give the result of 'embed'",
}
NARROWER = {"seed": Count, "n_checkpoints": Count, "training_tokens": Annotated[int, Field(ge=1, le=10**11)]}
NARROWER |= {"lr": Annotated[float, Field(gt=0, le=100)]} | dict.fromkeys(
    (
        *("dead_feature_window", "feature_sampling_window", "store_batch_size_prompts"),
        *("train_batch_size_tokens", "n_batches_in_buffer"),
    ),
    Positive,
)
NotNegative: Any = Annotated[float, Field(ge=0)]
NARROWER |= {"lr_end": NotNegative | None, "lr_warm_up_steps": Count, "lr_decay_steps": Count}
OF_SAE = {"decoder_init_norm": NotNegative | None, "aux_loss_coefficient": NotNegative, "l1_coefficient": NotNegative}
OF_SAE |= {"l0_coefficient": NotNegative, "l1_warm_up_steps": Count, "l0_warm_up_steps": Count}
Width = Annotated[int, Field(ge=1, le=2**24)]
"""Types of fields of SAELens that it declares as plain integers."""

Epochs = Annotated[int | float, Field(gt=0, le=1_000_000)]


class Recipe(Options):
    """What a `train:` section may hold beside the fields of SAELens' runner config."""

    section = "train"
    epochs: Epochs | None = None
    """Passes over the training rows, turned into `training_tokens`; 50 if neither is given (InterVLM's)."""
    standardize: bool = True
    """Train on (x - mean) / std of the training rows, folded into the saved weights."""
    early_stopping_epochs: Positive | None = None
    """Stop when the explained variance of the validation rows has not risen for this many epochs; keep the best weights."""
    dead_feature_window_epochs: Epochs = 5
    """A latent that has not fired for so long is dead; used where `dead_feature_window` is not given."""
    feature_sampling_window_epochs: Epochs = 10
    """Span of the sparsity that wandb shows while training; used where `feature_sampling_window` is not given."""
    shuffle_buffer: Positive | None = None
    """For embeddings larger than memory: how many rows are mixed at a time, of blocks of the disk in an order of seed and
    epoch; default all rows at once, which reads the whole disk at random."""
    keep: list[Literal["text", "image", "special"]] | None = None
    """Train on all positions of these kinds as the model makes them (train --corpus, HookedVLM), without epochs."""
    hook_names: dict[str, str] | None = None
    """Names of SAEs and their hooks, to train one per hook in one run with SAELens' MultiSAETrainingRunner."""

    def recorded(self) -> dict[str, Any]:
        """What the result depends on; later options only where they are given, so that earlier results are found again."""
        later = {"shuffle_buffer", "keep"}
        return self.model_dump(exclude={name for name in later if getattr(self, name) is None})


@dataclass(frozen=True)
class TrainConfig:
    """A checked `train:` section. `resolve` completes it from the embeddings."""

    section: Mapping[str, Any]  # stock fields as given
    recipe: Recipe

    @property
    def hooks(self) -> dict[str, str]:
        """Names of the SAEs and their hooks; a single SAE has the empty name."""
        return dict(self.recipe.hook_names or {"": self.section.get("hook_name", FUSED)})

    @property
    def given(self) -> dict[str, Path]:
        """Names of the SAEs and the folders of those they start from; a folder of several has one a name."""
        path = self.section.get(TAKEN_BEFORE)
        return {name: Path(path) / name for name in self.hooks} if path else {}

    @property
    def seed(self) -> int:
        return int(self.section.get("seed", LanguageModelSAERunnerConfig.seed))

    def resolve(self, d_in: int, n_rows: int, hook: str | None = None, positions: int | None = None) -> dict[str, Any]:
        """A complete dictionary for `LanguageModelSAERunnerConfig.from_dict`.

        Args:
            d_in: width of the activations.
            n_rows: number of training rows.
            hook: the hook of this SAE in multi-hook training.
            positions: those of a row, where SAELens' store makes the activations.

        Raises:
            ConfigError: the config contradicts the activations, or itself.
        """
        runner: dict[str, Any] = (
            copy.deepcopy(RUNNER_DEFAULTS | dict(self.section)) | FORCED | ({"hook_name": hook} if hook else {})
        )
        batch = runner["train_batch_size_tokens"]
        if positions is not None:
            runner |= {"context_size": positions, "exclude_special_tokens": [0]}
            runner.setdefault("n_batches_in_buffer", max(20, math.ceil(2 * batch / positions)))
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

    def runner_config(
        self, d_in: int, n_rows: int, hook: str | None = None, positions: int | None = None
    ) -> LanguageModelSAERunnerConfig[Any]:
        """SAELens' own config object; arguments as for `resolve`."""
        resolved = self.resolve(d_in, n_rows, hook, positions)
        with quiet(False), refused_by_saelens():
            return LanguageModelSAERunnerConfig.from_dict(resolved)


def load_train_config(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> TrainConfig:
    """Read and check a `train:` section, down to a training step of a small SAE of its kind.

    Args:
        source: a YAML file or the name of a shipped recipe, or a mapping; either holds a section
            `train` or is one.
        overrides: `sae.k=32`, `epochs=10`, ...; values are YAML.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a value of the wrong type, a
            value that the `train` step fixes, or an SAE that SAELens cannot train.
    """
    given = read_yaml(source) if isinstance(source, (str, Path)) else source
    section = given.get("train", given)
    if not isinstance(section, Mapping):
        raise ConfigError(f"train: is {section!r}, not a section; give at least sae: {{d_sae: 4096, k: 64}}")
    section = apply_overrides(copy.deepcopy(dict(section)), overrides)
    types = _field_types(LanguageModelSAERunnerConfig) | NARROWER
    if of_logger := [key for key in section if key in _field_types(LoggingConfig) and key not in types]:
        raise ConfigError(f"train: {of_logger[0]} belongs to the logger; write logger: {{{of_logger[0]}: ...}}")
    check_keys("train", section, [*types, *Recipe.model_fields])
    recipe = Recipe(**{key: section.pop(key) for key in list(section) if key in Recipe.model_fields})
    _check_names(recipe.hook_names or {})
    _check_parts(section, types)
    section = _begun_with(TrainConfig(section, recipe))
    _check_section(section, types)
    if recipe.epochs is not None and section.get("training_tokens"):
        raise ConfigError("train: give either epochs or training_tokens, not both")
    return TrainConfig(section, _tried(section, recipe))


def _tried(section: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """The recipe, without standardisation where that is the default and the architecture cannot take it."""
    if recipe.keep is not None:  # streamed: SAELens' own runner, and nothing to standardise with
        _try_small(section, standardize=False)
        return recipe
    try:
        _try_small(section, standardize=recipe.standardize)
        return recipe
    except CannotStandardizeError:
        if "standardize" in recipe.model_fields_set:
            raise
    architecture = section["sae"]["architecture"]
    print(f"note: train.standardize: false, as {architecture} cannot take standardised input", file=sys.stderr)
    _try_small(section, standardize=False)
    return recipe.model_copy(update={"standardize": False})


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not re.fullmatch(r"\w[\w-]*", name) or name == "checkpoints":
            raise ConfigError(
                f"train.hook_names: {name!r} cannot be the name of an SAE's folder; use letters, digits, - and _"
            )


def _check_parts(section: dict[str, Any], types: dict[str, Any]) -> None:
    for part in ("sae", "logger"):
        section[part] = section.get(part) or {}
        check_value(f"train.{part}", section[part], dict)
    if TAKEN_BEFORE in section:
        check_value(f"train.{TAKEN_BEFORE}", section[TAKEN_BEFORE], types[TAKEN_BEFORE])


def _begun_with(config: TrainConfig) -> dict[str, Any]:
    """The section with what the SAEs to start from say about themselves: their shape, and the hook of a single one."""
    section = dict(config.section)
    for name, folder in config.given.items():
        section["sae"] = with_shape_of(folder, section["sae"])
        if not name and "hook_name" not in section and (hook := hook_of(folder)):
            section["hook_name"] = hook
    return section


def _check_section(section: dict[str, Any], types: dict[str, Any]) -> None:
    for key, value in section.items():
        if key in FORCED and key not in (*IGNORED_IF_GIVEN, TAKEN_BEFORE) and value != FORCED[key]:
            instead = f": {INSTEAD[key]}" if key in INSTEAD else ""
            raise ConfigError(f"train.{key} is {value!r}, this step sets it to {FORCED[key]!r}; leave it out{instead}")
        if key not in ("sae", "logger"):
            check_value(f"train.{key}", value, types[key])
    _check_sae(section["sae"])
    check_keys("train.logger", section["logger"], logging := _field_types(LoggingConfig))
    _check_values("train.logger", section["logger"], logging)


def _check_sae(sae: dict[str, Any]) -> None:
    architecture = sae.setdefault("architecture", "meme_topk")
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        known = ", ".join(sorted(SAE_TRAINING_CLASS_REGISTRY))
        raise ConfigError(f"train.sae.architecture is {architecture!r}, SAELens knows {known}")
    config_class = SAE_TRAINING_CLASS_REGISTRY[architecture][1]
    types = _field_types(config_class) | {"architecture": str, "d_sae": Width}
    types |= {name: kind for name, kind in OF_SAE.items() if name in types}
    _leave_out_fields_of_meme_topk(sae, types)
    check_keys(f"train.sae ({architecture})", sae, types)
    _check_values("train.sae", sae, types)
    if "d_sae" not in sae:
        raise ConfigError("train.sae.d_sae is missing; give the number of latents, e.g. d_sae: 4096")
    if "matryoshka_widths" in types and not sae.get("matryoshka_widths"):
        sae["matryoshka_widths"] = sorted({max(1, sae["d_sae"] // part) for part in (16, 4, 1)})
        print(f"note: train.sae.matryoshka_widths: {sae['matryoshka_widths']}, as none are given", file=sys.stderr)
    if "k" in types:
        k = sae.get("k", config_class.k)  # type: ignore[attr-defined]
        if not 0 < k <= sae["d_sae"]:
            raise ConfigError(f"train.sae.k is {k}, it must lie between 1 and d_sae {sae['d_sae']}")


def _leave_out_fields_of_meme_topk(sae: dict[str, Any], types: Mapping[str, Any]) -> None:
    """The shipped recipes are of `meme_topk`: another architecture is one line, and what it lacks is named."""
    own = _field_types(SAE_TRAINING_CLASS_REGISTRY["meme_topk"][1])
    for key in [key for key in sae if key in own and key not in types]:
        value = sae.pop(key)
        print(f"note: train.sae.{key}: {value!r} is left out, {sae['architecture']} has no such field", file=sys.stderr)


def _try_small(section: Mapping[str, Any], *, standardize: bool) -> None:
    """A narrow version of the section's SAE, trained for one step: it fails before hours of embedding, not after them."""
    device = pick_device(section.get("device", "auto"), mps=False)
    small = {"d_in": 8, **copy.deepcopy(section["sae"]), "device": device}
    with seeded(0), quiet(False), refused_by_saelens("train.sae"):
        warnings.simplefilter("ignore")  # until `quiet` ends: the SAE that is trained is built again, and warned of
        sae = TrainingSAE.from_dict(small)
    try_out(sae, standardize=standardize)


def _field_types(config_class: type) -> dict[str, Any]:
    """The declared type of each field of a dataclass."""
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in fields(config_class)}  # type: ignore[arg-type]


def _check_values(where: str, given: Mapping[str, Any], types: Mapping[str, Any]) -> None:
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
