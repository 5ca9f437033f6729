"""The `train` step: embeddings and a config in, a folder with a stock SAELens SAE out."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.constants import RUNNER_CFG_FILENAME
from torch import Tensor
from tqdm.auto import tqdm

from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks import HookedModel, HookedVLM
from sae_lens_meme.provenance import weights_fingerprint
from sae_lens_meme.row_kind import MEME
from sae_lens_meme.storage import StepFolder, through_stores, to_json, write_text
from sae_lens_meme.train.abstopk import abstopk_loader
from sae_lens_meme.train.checkpoint import CHECKPOINTS
from sae_lens_meme.train.config import TrainConfig, load_train_config
from sae_lens_meme.train.data import TrainingData, open_data
from sae_lens_meme.train.folder import training_folder
from sae_lens_meme.train.given import given_sha256, load_given
from sae_lens_meme.train.monitor import ReconstructionQuality, Trainers, reconstruction
from sae_lens_meme.train.runner import MemeMultiSAETrainingRunner, MemeSAETrainingRunner, multi_config
from sae_lens_meme.train.saelens import write_saved
from sae_lens_meme.train.stream import train_on_positions

LOG = "training_log.jsonl"
GIVEN = "begun_with"
"""In the fingerprint: hashes of the SAEs that training began with."""


@through_stores()
def train(
    config: TrainConfig | str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    embeddings: Embeddings | str | Path,
    model: Any = None,
    overrides: Iterable[str] = (),
    shuffled: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> SAE[Any] | dict[str, SAE[Any]]:
    """Train an SAE, or resume an interrupted run; a finished one is only loaded.

    The folder holds `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`, `runner_cfg.json`
    and `training_log.jsonl` (one line per epoch); the same inputs give the same bytes on a CPU. With
    `hook_names` in the config each SAE has a subfolder of its name.

    Args:
        config: see `load_train_config`.
        out: the result folder; None keeps nothing but the SAE that comes back.
        embeddings: rows, splits and activations; or only rows and splits where `model` is given.
        model: a HookedMemeCLIP with its memes attached, to train on live activations; or, with `keep`, a HookedVLM or a
            HookedMemeCLIP, the positions of which are streamed through SAELens' own runner.
        shuffled: train the control on rows whose dimensions are permuted independently.

    Returns:
        The SAE as `SAE.load_from_disk` gives it, or one by name.

    Raises:
        ConfigError, DataError, NonFiniteError, StorageError: one line each, with what to do.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as made:
            kept: Any = {"model": model, "overrides": overrides, "shuffled": shuffled, "progress": progress}
            return train(config, out=Path(made) / "sae", embeddings=embeddings, **kept)
    if not isinstance(config, TrainConfig):
        config = load_train_config(config, overrides)
    if isinstance(model, HookedVLM) or (config.recipe.keep is not None and isinstance(model, HookedModel)):
        section = _model(str(model.model_name), type(model).__name__) | dict(config.section)
        memes = embeddings if isinstance(embeddings, Embeddings) else None
        how: Any = {"memes": memes, "overwrite": overwrite, "progress": progress}
        return train_on_positions(TrainConfig(section, config.recipe), model, out, **how)
    if config.recipe.keep is not None:
        raise ConfigError(
            "train.keep is for a HookedVLM or a tower, which run during training; give --corpus, or leave it out"
        )
    if not isinstance(embeddings, Embeddings):
        embeddings = Embeddings.load(embeddings)
    chunk = config.section.get("store_batch_size_prompts", 64)
    data = open_data(embeddings, list(config.hooks.values()), model=model, chunk=chunk)
    section = _model_of(embeddings) | dict(config.section)
    config = TrainConfig(section, config.recipe)
    with training_folder(out, _fingerprint(config, data, model, shuffled), overwrite=overwrite) as folder:
        if not folder.complete:
            _Step(config, data, model, shuffled, folder, progress).run()
    if not config.recipe.hook_names:
        return SAE.load_from_disk(out)
    return {name: SAE.load_from_disk(Path(out) / name) for name in sorted(config.hooks)}


class _Step:
    def __init__(
        self, config: TrainConfig, data: TrainingData, model: Any, shuffled: bool, folder: StepFolder, progress: bool
    ):
        self.config, self.data, self.model, self.shuffled = config, data, model, shuffled
        self.folder, self.progress = folder, progress
        n_rows = len(data.train_rows)
        self.configs = {
            name: config.runner_config(data.d_in[hook], n_rows, hook) for name, hook in config.hooks.items()
        }

    def run(self) -> None:
        self.folder.write_text(RUNNER_CFG_FILENAME, to_json(self._runner_cfg()))
        runner = self._runner()
        runner.run()
        trainers: Trainers = runner.trainer.trainers if self.config.recipe.hook_names else {"": runner.trainer}
        for name, trainer in trainers.items():
            self._write_sae(name, trainer, runner)
        self.folder.write_text(LOG, _json_lines(runner.monitor.records))
        facts = {name: self._facts(name, trainer, runner) for name, trainer in trainers.items()}
        shutil.rmtree(self.folder.path / CHECKPOINTS, ignore_errors=True)
        self.folder.finish(**(facts if self.config.recipe.hook_names else facts[""]))

    def _runner(self) -> Any:
        recipe = self.config.recipe
        options: dict[str, Any] = {
            "model": self.model,
            "standardize": recipe.standardize,
            "early_stopping_epochs": recipe.early_stopping_epochs,
            "shuffle_buffer": recipe.shuffle_buffer,
            "shuffled": self.shuffled,
            "checkpoint_folder": self.folder.path / CHECKPOINTS,
            "log": self._log,
            "progress": self.progress,
        }
        hooks = self.config.hooks
        given = {
            name: load_given(path, self.configs[name].sae, hooks[name]) for name, path in self.config.given.items()
        }
        if recipe.hook_names:
            cfg = multi_config(self.configs, hooks)
            return MemeMultiSAETrainingRunner(cfg, self.data, override_saes=given or None, **options)
        return MemeSAETrainingRunner(self.configs[""], self.data, override_sae=given.get(""), **options)

    def _runner_cfg(self) -> dict[str, Any]:
        """What SAELens saves as runner_cfg.json, and the keys of ours that made it."""
        if self.config.recipe.hook_names:
            stock = multi_config(self.configs, self.config.hooks).to_dict()
        else:
            stock = self.configs[""].to_dict()
        ours = {**self.config.recipe.recorded(), "shuffled": self.shuffled}
        ours |= (
            {GIVEN: {name: given_sha256(path) for name, path in self.config.given.items()}} if self.config.given else {}
        )
        return {**stock, "sae_lens_meme": ours}

    def _write_sae(self, name: str, trainer: Any, runner: Any) -> None:
        with tempfile.TemporaryDirectory() as made:
            trainer.sae.save_inference_model(made)
            sparsity = trainer.log_feature_sparsity
            if trainer.sae.cfg.architecture() == "abstopk":
                runner.on_train_rows[name], sparsity = self._one_sign_a_latent(name, made)
            write_saved(self.folder, made, sparsity, name)

    def _one_sign_a_latent(self, name: str, made: str) -> tuple[ReconstructionQuality, Tensor]:
        """Save AbsTopK as the `topk` SAE that computes the same, with what is counted of its latents."""
        sae, hook = SAE.load_from_disk(made, converter=abstopk_loader), self.config.hooks[name]
        data = self.data
        result = reconstruction(sae, data.sources[hook], data.train_rows, data.moments[hook])
        sae.cfg.metadata.num_dead_features = result.never_fired
        sae.cfg.metadata.weights_fingerprint = weights_fingerprint(sae)
        sae.save_model(made)
        return result, (torch.from_numpy(result.n_fired) / result.n + 1e-10).log10()  # as SAELens has it

    def _facts(self, name: str, trainer: Any, runner: Any) -> dict[str, Any]:
        """What the validation rows say comes first, measured on the SAE as it is saved."""
        sae, hook = SAE.load_from_disk(self.folder.path / name), self.config.hooks[name]
        validation = reconstruction(sae, self.data.sources[hook], self.data.validation_rows, self.data.moments[hook])
        facts = {
            **_numbers("validation", validation),
            **_numbers("train", runner.on_train_rows[name]),
            "d_in": sae.cfg.d_in,
            "d_sae": sae.cfg.d_sae,
            "steps": trainer.n_training_steps,
            "epochs": runner.monitor.epoch,
        }
        if self.data.embeddings.row_kind != MEME:
            facts["rows"] = self.data.embeddings.row_kind.many
        best = runner.monitor.best.get(name)
        return facts | ({"best_epoch": best["epoch"]} if best else {}) | {"shuffled": self.shuffled}

    def _log(self, records: list[dict[str, Any]]) -> None:
        """Keep the log on disk as it grows, and show about ten lines of it over the whole training."""
        write_text(self.folder.path / LOG, _json_lines(records))
        epochs = self.config.recipe.epochs or 50
        latest = records[-1]
        if self.progress and latest["epoch"] % max(1, epochs // 10) < 1:
            tqdm.write(_one_line(latest), file=sys.stderr)


def _numbers(part: str, result: ReconstructionQuality) -> dict[str, Any]:
    reason = "no rows of this split" if not result.n else "these rows are all alike"
    return {
        f"{part}_n": result.n,
        f"{part}_explained_variance": result.explained_variance,
        f"{part}_explained_variance_zscored": result.explained_variance_zscored,
        **({f"{part}_reason": reason} if result.explained_variance is None else {}),
        f"{part}_l0": result.l0,
        f"{part}_never_fired": result.never_fired if result.n else None,
    }


def read_log(sae: str | Path) -> list[dict[str, Any]]:
    """What was logged when the SAE in this folder was trained, a record an epoch; none where another program trained it.

    SAEs that were trained together have one log, beside their folders.
    """
    folder = Path(sae).absolute()
    for owner in (folder, *folder.parents[:2]):
        name = "" if owner == folder else folder.relative_to(owner).as_posix()
        try:
            records = [json.loads(line) for line in (owner / LOG).read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError):
            continue
        if mine := [record for record in records if record.get("sae", "") == name]:
            return mine
    return []


def _json_lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def _one_line(record: dict[str, Any]) -> str:
    parts = [f"epoch {record['epoch']}", f"loss {record['loss']:.5f}"]
    for part in ("validation", "train"):
        raw, zscored = record[f"{part}_explained_variance"], record[f"{part}_explained_variance_zscored"]
        if raw is not None and zscored is not None:
            parts.append(f"{part} explained variance {raw:.3f} (z-scored {zscored:.3f})")
    return ", ".join(parts)


def _fingerprint(config: TrainConfig, data: TrainingData, model: Any, shuffled: bool) -> dict[str, Any]:
    n_rows = len(data.train_rows)
    resolved = {name: config.resolve(data.d_in[hook], n_rows, hook) for name, hook in config.hooks.items()}
    given = {name: given_sha256(path) for name, path in config.given.items()}
    live_model = None if model is None else str(getattr(model, "fingerprint", type(model).__name__))
    return {
        "embeddings": data.embeddings.fingerprint,
        "model": live_model,
        "config": resolved if config.recipe.hook_names else resolved[""],
        "recipe": config.recipe.recorded(),
        "shuffled": shuffled,
        **({GIVEN: given} if given else {}),
    }


def _model_of(embeddings: Embeddings) -> dict[str, Any]:
    """What SAELens' `load_model` needs to load the model again."""
    facts = embeddings.facts
    found = _model(str(facts.get("model", "unknown")), facts.get("model_class_name"))
    if facts.get("fusion") == "memeclip":
        found["model_from_pretrained_kwargs"] = {"fusion": "memeclip", "heads": HEADS}
    return found


def _model(name: str, class_name: str | None = None) -> dict[str, Any]:
    """Without a local path, which would tell of this machine."""
    known = {"model_class_name": class_name} if class_name else {}
    return {"model_name": Path(name).name if Path(name).is_absolute() else name, **known}
