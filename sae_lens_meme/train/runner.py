"""SAELens' training runner on the rows of a meme corpus: epochs, standardisation, exact checkpoints."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, TrainingSAE
from sae_lens.training import multi_sae_trainer, sae_trainer
from sae_lens.training.sae_trainer import SAETrainer

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, MemeError
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.train.checkpoint import Checkpoints
from sae_lens_meme.train.data import TrainingData, open_data
from sae_lens_meme.train.monitor import EpochMonitor, Log
from sae_lens_meme.train.provider import EpochShuffle
from sae_lens_meme.train.session import Session
from sae_lens_meme.train.standardize import Standardizer


class MemeSAETrainingRunner(LanguageModelSAETrainingRunner):
    """A stock runner whose batches are epochs over the training rows of `data`.

    Args:
        cfg: any SAELens runner config with `context_size` 1, e.g. `TrainConfig.runner_config(...)`.
        data: embeddings, or what `open_data` made of them.
        model: a HookedRootModule that takes row numbers; its activations are used if `data` is
            embeddings and this is given.
        standardize: train on (x - mean) / std of the training rows.
        early_stopping_epochs: stop when held-out explained variance has not risen for so many epochs.
        shuffled: train the control, each dimension permuted on its own.
        checkpoint_folder: where checkpoints go (default `cfg.checkpoint_path`); a complete one that
            lies there is resumed.
        log: is given the records of all finished epochs after each epoch.
        progress: show SAELens' progress bar.

    Raises:
        NonFiniteError: a row or a loss is not finite.
    """

    def __init__(
        self,
        cfg: LanguageModelSAERunnerConfig[Any],
        data: TrainingData | Embeddings,
        *,
        model: Any = None,
        override_sae: TrainingSAE[Any] | None = None,
        standardize: bool = True,
        early_stopping_epochs: int | None = None,
        shuffled: bool = False,
        checkpoint_folder: str | Path | None = None,
        log: Log | None = None,
        progress: bool = True,
    ):
        if isinstance(data, Embeddings):
            data = open_data(data, [cfg.hook_name], model=model)
        _require_width(cfg, data.d_in[cfg.hook_name])
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
            super().__init__(cfg, row_dataset(data), stand_in_model(data, model), override_sae)
        self.monitor: EpochMonitor | None = None

    def run(self) -> TrainingSAE[Any]:
        """Train or resume; the SAE that comes back takes raw activations."""
        with seeded(self.cfg.seed), quiet(self._progress), refused_by_saelens():
            return super().run()

    def run_trainer_with_interruption_handling(self, trainer: SAETrainer[Any, Any]) -> TrainingSAE[Any]:
        hook, cfg = self.cfg.hook_name, self.cfg
        provider = EpochShuffle(self.data.sources[hook], self.data.train_rows, cfg.train_batch_size_tokens, cfg.seed)
        trainer.data_provider = provider
        trainer.evaluator = None  # SAELens' needs a language model; held-out rows are evaluated each epoch
        if self._standardize:
            statistics = self.data.statistics[hook]
            trainer.activation_scaler = Standardizer.from_statistics(statistics.mean, statistics.std)
        self.trainer = trainer
        self.monitor = EpochMonitor(
            {"": trainer},
            {"": hook},
            self.data,
            standardize=self._standardize,
            patience=self._patience,
            log=self._log,
        )
        return Session({"": trainer}, trainer, provider, self.monitor, self._checkpoints).fit(trainer.fit)


def row_dataset(data: TrainingData) -> Dataset:
    """SAELens reads tokens: a meme is a sequence of one token, its row number."""
    return Dataset.from_dict({"input_ids": data.train_rows[:, None].tolist()})


def stand_in_model(data: TrainingData, model: Any) -> Any:
    """The given model, or cached activations behind the same interface."""
    return model if model is not None else HookedMemeCLIP.from_embeddings(data.embeddings, fit_head=False)


def _require_width(cfg: LanguageModelSAERunnerConfig[Any], d_in: int) -> None:
    if cfg.sae.d_in != d_in:
        raise ConfigError(f"cfg.sae.d_in is {cfg.sae.d_in}, the activations at {cfg.hook_name} have {d_in} dimensions")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random state starts from `seed` and is put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def refused_by_saelens() -> Iterator[None]:
    """What SAELens finds wrong with a config is an error in the config."""
    try:
        yield
    except MemeError:
        raise
    except Exception as error:
        from_wandb = type(error).__module__.startswith("wandb")  # not logged in, no such project, ...
        if not from_wandb and not isinstance(error, (AssertionError, TypeError, ValueError)):
            raise
        who = "wandb" if from_wandb else "SAELens"
        raise ConfigError(f"train: {who} refuses this config: {' '.join(str(error).split())}") from error


@contextmanager
def quiet(progress: bool) -> Iterator[None]:
    """Without SAELens' warnings about overridden datasets and repeated samples, which here are the plan.

    Its bar is drawn in a terminal or a notebook, never into a log.
    """
    logger = logging.getLogger("sae_lens")
    modules: tuple[Any, ...] = (sae_trainer, multi_sae_trainer)
    level, bars = logger.level, [module.tqdm for module in modules]
    logger.setLevel(max(level, logging.ERROR))
    for module, bar in zip(modules, bars, strict=True):
        module.tqdm = partial(bar, disable=not (progress and _has_a_reader()))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The training dataset contains fewer samples")
            warnings.filterwarnings("ignore", message="\\nThis SAE has non-empty model_from_pretrained_kwargs")
            yield
    finally:
        logger.setLevel(level)
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar


def _has_a_reader() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
