"""SAELens' training runners on the rows of a meme corpus: epochs, standardisation, exact checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sae_lens import (
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
    TrainingSAE,
)
from sae_lens.constants import TRAINER_STATE_FILENAME
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from transformer_lens.hook_points import HookedRootModule

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.provenance import TRAINED_FURTHER, describe_training_rows, training_rows_known
from sae_lens_meme.standardize import Moments
from sae_lens_meme.train.checkpoint import Checkpoints, refuse_code
from sae_lens_meme.train.data import EpochShuffle, TrainingData, open_data
from sae_lens_meme.train.given import config_of
from sae_lens_meme.train.monitor import (
    EpochMonitor,
    InferenceView,
    Log,
    ReconstructionQuality,
    Trainers,
    reconstruction,
)
from sae_lens_meme.train.saelens import quiet, refused_by_saelens, seeded, try_out
from sae_lens_meme.train.session import Session


class _EpochRunner:
    """Goes before a runner of SAELens: its batches are then epochs over the training rows.

    Args:
        given: SAEs to begin with, where SAELens does not make them.
        model: a HookedRootModule that takes row numbers; its activations are used if `data` is
            embeddings and this is given.
        standardize: train on (x - mean) / std of the training rows.
        early_stopping_epochs: stop when the explained variance of the validation rows has not risen for this many epochs.
        shuffled: train the control, each dimension permuted on its own.
        checkpoint_folder: where checkpoints go (default `cfg.checkpoint_path`); a complete one that
            is found there is resumed.
        log: is given the records of all finished epochs after each epoch.
        progress: show SAELens' progress bar.

    Raises:
        ConfigError: SAELens cannot train this, or not on standardised input.
        DataError, NonFiniteError: a row or a loss cannot be trained on.
    """

    cfg: Any
    sae: Any
    saes: Any
    activations_store: Any
    hooks: dict[str, str]  # by name of the SAE; a single one has the empty name
    monitor: EpochMonitor  # of the latest run
    on_train_rows: dict[str, ReconstructionQuality]  # of the saved weights

    def __init__(
        self,
        cfg: Any,
        data: TrainingData | Embeddings | str | Path,
        given: Any = None,
        *,
        model: Any = None,
        standardize: bool = True,
        early_stopping_epochs: int | None = None,
        shuffle_buffer: int | None = None,
        shuffled: bool = False,
        checkpoint_folder: str | Path | None = None,
        log: Log | None = None,
        progress: bool = True,
    ):
        if not isinstance(data, TrainingData):
            memes = data if isinstance(data, Embeddings) else Embeddings.load(data)
            data = open_data(memes, list(self.hooks.values()), model=model)
        self.data = data
        self._standardize, self._shuffled, self._progress, self._log = standardize, shuffled, progress, log
        self._patience, self._buffer = early_stopping_epochs, shuffle_buffer
        folder = checkpoint_folder or cfg.checkpoint_path
        self._checkpoints = Checkpoints(folder) if folder else None
        path = getattr(cfg, "from_pretrained_path", None)
        self._takes_raw = given is not None or path is not None
        if path is not None:
            config_of(path)
        # SAELens wants tokens and a model to run them through; the batches come from `data`, whatever these are
        rows = Dataset.from_dict({"input_ids": data.train_rows[:, None].tolist()})
        with self._in_saelens(cfg):
            super().__init__(cfg, rows, HookedRootModule() if model is None else model, given)  # type: ignore[call-arg]
        self.activations_store.load_from_checkpoint = lambda checkpoint_path: None  # nothing is read from it
        for name, sae in self._all():
            hook = self.hooks[name]
            if sae.cfg.d_in != data.d_in[hook]:
                raise ConfigError(
                    f"cfg.sae.d_in is {sae.cfg.d_in}, the activations at {hook} have {data.d_in[hook]} dimensions"
                )
            try_out(sae, standardize=standardize)
        self._began_unknown = {name for name, sae in self._all() if self._takes_raw and self._unknown(sae)}
        if not data.moments:
            data.prepare(shuffle_seed=cfg.seed if shuffled else None, show=progress)

    def run(self) -> Any:
        """Train or resume; what comes back takes raw activations."""
        if self.cfg.resume_from_checkpoint is not None:
            for state in Path(self.cfg.resume_from_checkpoint).rglob(TRAINER_STATE_FILENAME):
                refuse_code(state)
        with self._in_saelens(self.cfg), _closing_wandb(self.cfg.logger.log_to_wandb):
            return super().run()  # type: ignore[misc]

    def _all(self) -> Iterable[tuple[str, TrainingSAE[Any]]]:
        return (self.saes if hasattr(self, "saes") else {"": self.sae}).items()

    def _unknown(self, sae: TrainingSAE[Any]) -> bool:
        """Whether the given weights may have seen other rows than these train rows."""
        return training_rows_known(InferenceView(sae).refresh(), self.data.embeddings) is not None

    @contextmanager
    def _in_saelens(self, cfg: Any) -> Iterator[None]:
        with seeded(cfg.seed), quiet(self._progress), refused_by_saelens():
            yield

    def _fit(self, trainers: Trainers, coordinator: Any, provider: EpochShuffle[Any]) -> Any:
        """Train with `coordinator.fit`, then measure what is saved on all training rows."""
        provider.n_served = coordinator.n_training_samples
        coordinator.data_provider = provider
        coordinator.evaluator = None  # SAELens' needs a language model; validation rows are evaluated each epoch
        self.trainer = coordinator
        for name, trainer in trainers.items():
            self._enter_space_of_training(trainer, self.data.moments[self.hooks[name]])
        self.monitor = EpochMonitor(
            *(trainers, self.hooks, self.data),
            standardize=self._standardize,
            patience=self._patience,
            log=self._log,
        )
        result = Session(trainers, coordinator, provider, self.monitor, self._checkpoints).fit(coordinator.fit)
        self._takes_raw = True
        self.on_train_rows = {name: self._measure(name, trainer) for name, trainer in trainers.items()}
        return result

    def _enter_space_of_training(self, trainer: SAETrainer[Any, Any], moments: Moments) -> None:
        resumed = self.cfg.resume_from_checkpoint
        if self._standardize and resumed is None:
            trainer.activation_scaler = Standardizer.of(moments)
            if self._takes_raw:
                trainer.activation_scaler.unfold(trainer.sae)
        elif self._standardize and trainer.activation_scaler.whitening is None:
            raise ConfigError(f"{resumed}: was trained on raw activations; resume with standardize=False")
        norm = getattr(trainer.sae.cfg, "decoder_norm", "none")
        if self._takes_raw and norm != "none" and not trainer.sae.decoder_is_constrained():
            raise ConfigError(
                f"decoder_norm {norm!r} would change the weights that are given, before the first step; "
                "give an SAE whose config has decoder_norm='none'"
            )

    def _measure(self, name: str, trainer: SAETrainer[Any, Any]) -> ReconstructionQuality:
        """Sparsity, L0 and dead latents of the weights that are saved; SAELens' own are of the last steps' weights."""
        sae, hook = InferenceView(trainer.sae).refresh(), self.hooks[name]
        result = reconstruction(sae, self.data.sources[hook], self.data.train_rows, self.data.moments[hook])
        trainer.act_freq_scores = torch.from_numpy(result.n_fired).to(trainer.act_freq_scores)
        trainer.n_frac_active_samples = result.n
        metadata = trainer.sae.cfg.metadata
        facts = {
            "l0": result.l0,
            "num_dead_features": result.never_fired,
            "standardized": self._standardize,
            "shuffled_control": self._shuffled,
            "fusion": self.data.embeddings.facts.get("fusion"),
            **describe_training_rows(sae, self.data.embeddings),
        }
        if name in self._began_unknown or self.cfg.resume_from_checkpoint is not None:
            facts[TRAINED_FURTHER] = True
        for key, value in facts.items():
            metadata[key] = value
        return result


@contextmanager
def _closing_wandb(used: bool) -> Iterator[None]:
    """SAELens closes the run of a training that ends; one that stops would take in the next training's numbers."""
    try:
        yield
    except BaseException:
        if used:
            import wandb

            if wandb.run is not None:
                wandb.finish(exit_code=1)
        raise


class MemeSAETrainingRunner(_EpochRunner, LanguageModelSAETrainingRunner):
    """A stock runner whose batches are epochs over the training rows of `data`.

    Args:
        cfg: any SAELens runner config with `context_size` 1, e.g. `TrainConfig.runner_config(...)`.
        data: embeddings, their folder, or what `open_data` made of them.
        override_sae: weights to begin with, as `cfg.from_pretrained_path` gives them too. They take raw activations,
            and with `standardize` the standardisation is taken out of them before the first step.
        options: `model`, `standardize`, `early_stopping_epochs`, `shuffled`, `checkpoint_folder`, `log`, `progress`
            of `_EpochRunner`.
    """

    def __init__(
        self,
        cfg: LanguageModelSAERunnerConfig[Any],
        data: TrainingData | Embeddings | str | Path,
        *,
        override_sae: TrainingSAE[Any] | None = None,
        **options: Any,
    ):
        self.hooks = {"": cfg.hook_name}
        super().__init__(cfg, data, override_sae, **options)

    def run_trainer_with_interruption_handling(self, trainer: SAETrainer[Any, Any]) -> TrainingSAE[Any]:
        source, cfg = self.data.sources[self.cfg.hook_name], self.cfg
        provider = EpochShuffle(source, self.data.train_rows, cfg.train_batch_size_tokens, cfg.seed, self._buffer)
        return self._fit({"": trainer}, trainer, provider)


class MemeMultiSAETrainingRunner(_EpochRunner, MultiSAETrainingRunner):
    """A stock runner of several SAEs, one per hook, on the same memes; arguments as for `MemeSAETrainingRunner`."""

    def __init__(
        self,
        cfg: MultiSAETrainingRunnerConfig,
        data: TrainingData | Embeddings | str | Path,
        *,
        override_saes: dict[str, TrainingSAE[Any]] | None = None,
        **options: Any,
    ):
        self.hooks = cfg.hook_names_per_sae
        super().__init__(cfg, data, override_saes, **options)

    def _run_with_interruption_handling(self, trainer: MultiSAETrainer) -> dict[str, TrainingSAE[Any]]:
        def fetch(rows: np.ndarray) -> dict[str, Tensor]:
            return {hook: source(rows) for hook, source in self.data.sources.items()}

        rows, batch = self.data.train_rows, self.cfg.train_batch_size_tokens
        provider = EpochShuffle(fetch, rows, batch, self.cfg.seed, self._buffer)
        return self._fit(trainer.trainers, trainer, provider)


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


@dataclass
class Standardizer(ActivationScaler):
    """z = (x - mean) / std, as SAELens' activation scaler: saved with checkpoints, folded into the weights at the end.

    The matrices of `whitening` are diagonal, so elementwise work is enough.
    """

    @classmethod
    def of(cls, moments: Moments) -> Standardizer:
        """Keep them in float64, so that folding them into the weights is exact."""
        mean, std = torch.from_numpy(moments.mean), torch.from_numpy(moments.std)
        return cls(whitening=ActivationWhitening(mean, torch.diag(1 / std), torch.diag(std)))

    def unfold(self, sae: TrainingSAE[Any]) -> None:
        """Have weights that take raw activations take standardised ones: the inverse map, folded into them."""
        assert self.whitening is not None
        mean, scale, inverse = self.whitening.mean, self.whitening.matrix, self.whitening.inverse_matrix
        sae.folded = True  # type: ignore[assignment]
        sae.fold_activation_whitening(-mean @ scale, inverse, scale)

    def scale(self, acts: Tensor) -> Tensor:
        if self.whitening is None:  # folded
            return super().scale(acts)
        return (acts - self.whitening.mean.to(acts)) / self.whitening.inverse_matrix.diagonal().to(acts)

    def unscale(self, acts: Tensor) -> Tensor:
        if self.whitening is None:
            return super().unscale(acts)
        return acts * self.whitening.inverse_matrix.diagonal().to(acts) + self.whitening.mean.to(acts)
