"""Several SAEs, one a hook, trained on the same memes in one run by SAELens' multi-SAE runner."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from sae_lens import LanguageModelSAERunnerConfig, MultiSAETrainingRunner, MultiSAETrainingRunnerConfig, TrainingSAE
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from torch import Tensor

from sae_lens_meme.train.checkpoint import Checkpoints
from sae_lens_meme.train.data import TrainingData
from sae_lens_meme.train.monitor import EpochMonitor, Log
from sae_lens_meme.train.provider import EpochShuffle
from sae_lens_meme.train.runner import quiet, refused_by_saelens, row_dataset, seeded, stand_in_model
from sae_lens_meme.train.session import Session
from sae_lens_meme.train.standardize import Standardizer


class MemeMultiSAETrainingRunner(MultiSAETrainingRunner):
    """A stock multi-SAE runner whose batches are epochs over the training rows of `data`.

    Args:
        cfg: with `context_size` 1, e.g. `multi_config(...)`.
        data: made by `open_data` for the hooks of `cfg`; prepared here if it is not yet.
        model: as in `MemeSAETrainingRunner`, as are the other arguments.
    """

    def __init__(
        self,
        cfg: MultiSAETrainingRunnerConfig,
        data: TrainingData,
        *,
        model: Any = None,
        standardize: bool = True,
        early_stopping_epochs: int | None = None,
        shuffled: bool = False,
        checkpoint_folder: str | Path | None = None,
        log: Log | None = None,
        progress: bool = True,
    ):
        if not data.statistics:
            data.prepare(shuffle_seed=cfg.seed if shuffled else None, show=progress)
        self.data = data
        self._standardize = standardize
        self._patience = early_stopping_epochs
        folder = checkpoint_folder or cfg.checkpoint_path
        self._checkpoints = Checkpoints(folder) if folder else None
        self._log = log
        self._progress = progress
        with seeded(cfg.seed), quiet(progress), refused_by_saelens():
            super().__init__(cfg, row_dataset(data), stand_in_model(data, model))
        self.monitor: EpochMonitor | None = None

    def run(self) -> dict[str, TrainingSAE[Any]]:
        """Train or resume; the SAEs that come back take raw activations."""
        with seeded(self.cfg.seed), quiet(self._progress), refused_by_saelens():
            return super().run()

    def _run_with_interruption_handling(self, trainer: MultiSAETrainer) -> dict[str, TrainingSAE[Any]]:
        hooks = self.cfg.hook_names_per_sae
        provider = EpochShuffle(self._fetch, self.data.train_rows, self.cfg.train_batch_size_tokens, self.cfg.seed)
        trainer.data_provider = provider
        trainer.evaluator = None
        if self._standardize:
            for name, one in trainer.trainers.items():
                statistics = self.data.statistics[hooks[name]]
                one.activation_scaler = Standardizer.from_statistics(statistics.mean, statistics.std)
        self.trainer = trainer
        self.monitor = EpochMonitor(
            trainer.trainers,
            hooks,
            self.data,
            standardize=self._standardize,
            patience=self._patience,
            log=self._log,
        )
        return Session(trainer.trainers, trainer, provider, self.monitor, self._checkpoints).fit(trainer.fit)

    def _fetch(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {hook: source(rows) for hook, source in self.data.sources.items()}


def multi_config(
    configs: dict[str, LanguageModelSAERunnerConfig[Any]], hooks: dict[str, str]
) -> MultiSAETrainingRunnerConfig:
    """SAELens' multi-SAE config from single ones that differ in their hook and their `sae.d_in` only."""
    first = next(iter(configs.values()))
    shared = {f.name for f in fields(MultiSAETrainingRunnerConfig)} & {f.name for f in fields(first)}
    values = {name: getattr(first, name) for name in shared if name != "checkpoint_path"}
    with refused_by_saelens():
        return MultiSAETrainingRunnerConfig(
            saes={name: cfg.sae for name, cfg in configs.items()}, hook_names=hooks, checkpoint_path=None, **values
        )
