"""What is logged at the end of each epoch, and the best weights if early stopping is on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.train.data import TrainingData
from sae_lens_meme.train.heldout import InferenceView, reconstruction

_TRAIN_SAMPLE = 2048  # training rows on which explained variance is shown beside the held-out one

Trainers = dict[str, SAETrainer[Any, Any]]
Log = Callable[[list[dict[str, Any]]], None]


class EpochMonitor:
    """Records of finished epochs: loss, explained variance on held-out and on training rows, L0, dead latents.

    Args:
        trainers: by name of the SAE.
        hooks: the hook of each SAE.
        data: prepared.
        standardize: whether the SAE is trained on standardised rows; early stopping looks at the
            explained variance in the space of training.
        patience: epochs without a rise of held-out explained variance after which training stops.
        log: is given all records after each epoch.
    """

    def __init__(
        self,
        trainers: Trainers,
        hooks: dict[str, str],
        data: TrainingData,
        *,
        standardize: bool,
        patience: int | None = None,
        log: Log | None = None,
    ):
        if patience is not None and data.heldout_split != "validation":
            raise ConfigError(
                "train.early_stopping_epochs needs rows of split 'validation'; stopping on test rows would leak them"
            )
        self._trainers = trainers
        self._hooks = hooks
        self._data = data
        self._key = "explained_variance_zscored" if standardize else "explained_variance"
        self._patience = patience
        self._log = log or (lambda records: None)
        self._views = {name: InferenceView(trainer.sae) for name, trainer in trainers.items()}
        step = max(1, len(data.train_rows) // _TRAIN_SAMPLE)
        self._train_sample = data.train_rows[::step][:_TRAIN_SAMPLE]
        self._loss = {name: [0.0, 0] for name in trainers}
        self.records: list[dict[str, Any]] = []
        self.epoch: int | float = 0
        self.best: dict[str, dict[str, Any]] = {}
        self.best_weights: dict[str, dict[str, Tensor]] = {}

    def observe(self, name: str, loss: float) -> None:
        self._loss[name][0] += loss
        self._loss[name][1] += 1

    def due(self, n_samples: int, finished: bool) -> bool:
        """An epoch has ended, or training has ended within one."""
        whole = n_samples // len(self._data.train_rows)
        return whole > self.epoch or (finished and any(count for _, count in self._loss.values()))

    def end_epoch(self, n_samples: int) -> list[dict[str, Any]]:
        """Evaluate every SAE and log it."""
        whole = n_samples // len(self._data.train_rows)
        self.epoch = whole if whole > self.epoch else round(n_samples / len(self._data.train_rows), 3)
        records = [self._record(name, trainer) for name, trainer in self._trainers.items()]
        self.records += records
        self._loss = {name: [0.0, 0] for name in self._trainers}
        self._log(self.records)
        return records

    @property
    def stalled(self) -> bool:
        """No SAE has improved for `patience` epochs."""
        if self._patience is None or not self.best:
            return False
        return all(self.epoch - best["epoch"] >= self._patience for best in self.best.values())

    def restore_best(self) -> None:
        """With early stopping, the weights of the best epoch."""
        for name, weights in self.best_weights.items():
            self._trainers[name].sae.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        return {"records": self.records, "epoch": self.epoch, "best": self.best, "loss": self._loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.records, self.epoch = list(state["records"]), state["epoch"]
        self.best, self._loss = dict(state["best"]), dict(state["loss"])

    def _record(self, name: str, trainer: SAETrainer[Any, Any]) -> dict[str, Any]:
        total, count = self._loss[name]
        record: dict[str, Any] = {"sae": name} if name else {}
        record |= {"epoch": self.epoch, "step": trainer.n_training_steps, "loss": total / count if count else None}
        heldout = self._explained(name, self._data.heldout_rows)
        train = self._explained(name, self._train_sample)
        record |= {f"heldout_{key}": value for key, value in heldout.items()}
        record |= {f"train_{key}": value for key, value in train.items()}
        record["dead_latents"] = int(trainer.dead_neurons.sum())
        if self._patience is not None:
            self._keep_best(name, heldout[self._key])
        return record

    def _explained(self, name: str, rows: np.ndarray) -> dict[str, Any]:
        if not len(rows):
            return {"explained_variance": None, "explained_variance_zscored": None, "l0": None}
        hook = self._hooks[name]
        result = reconstruction(
            self._views[name].refresh(),
            self._data.sources[hook],
            rows,
            self._data.statistics[hook],
            self._trainers[name].activation_scaler,
        )
        return {
            "explained_variance": result.explained_variance,
            "explained_variance_zscored": result.explained_variance_zscored,
            "l0": result.l0,
        }

    @torch.no_grad()
    def _keep_best(self, name: str, value: float | None) -> None:
        if value is not None and (name not in self.best or value > self.best[name]["explained_variance"]):
            self.best[name] = {"epoch": self.epoch, "explained_variance": value}
            self.best_weights[name] = {k: v.clone() for k, v in self._trainers[name].sae.state_dict().items()}
