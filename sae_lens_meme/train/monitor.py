"""Explained variance and firing at the end of each epoch, and the best weights if early stopping is on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from sae_lens import SAE, TrainingSAE
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.standardize import Moments
from sae_lens_meme.train.data import Source, TrainingData

_BATCH = 1024
_TRAIN_SAMPLE = 2048  # training rows on which explained variance is shown beside that of the validation rows

Trainers = dict[str, SAETrainer[Any, Any]]
Log = Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class ReconstructionQuality:
    """How well rows are reconstructed.

    `explained_variance` is 1 - |x - x^|^2 / |x - mean|^2 summed over rows and dimensions, the mean
    being that of these rows; `..._zscored` weighs each dimension by 1 / (training std)^2. None: the
    rows do not vary, or there are none.
    """

    n: int
    explained_variance: float | None
    explained_variance_zscored: float | None
    l0: float | None
    n_fired: Int[np.ndarray, "d_sae"]
    """On how many of the rows each latent fires."""

    @property
    def never_fired(self) -> int:
        return int((self.n_fired == 0).sum())


@torch.no_grad()
def reconstruction(
    sae: SAE[Any],
    source: Source,
    rows: Int[np.ndarray, "n"],
    moments: Moments,
    scaler: ActivationScaler | None = None,
) -> ReconstructionQuality:
    """Run the SAE over the rows.

    Args:
        moments: of the training rows.
        scaler: maps activations to the space of the SAE, if it is still in training.
    """
    scaler = scaler or ActivationScaler()
    error, moment, total = (np.zeros(len(moments.mean)) for _ in range(3))
    n_fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
    origin = np.zeros(0)
    for start in range(0, len(rows), _BATCH):
        x = source(rows[start : start + _BATCH])
        acts = sae.encode(scaler.scale(x.to(sae.device)))
        x_hat = scaler.unscale(sae.decode(acts)).cpu()
        n_fired += (acts != 0).sum(0)
        error += (x.double() - x_hat.double()).square().sum(0).numpy()
        values = x.double().numpy()
        origin = origin if start else values[0]  # around a row: rows that are alike have exactly no variance
        moment += np.square(values - origin).sum(0)
        total += (values - origin).sum(0)
    n = len(rows)
    variance = moment - total**2 / max(n, 1)
    return ReconstructionQuality(
        n=n,
        explained_variance=_explained(error, variance),
        explained_variance_zscored=_explained(error * moments.zscore_weights, variance * moments.zscore_weights),
        l0=int(n_fired.sum()) / n if n else None,
        n_fired=n_fired.cpu().numpy(),
    )


def _explained(error: np.ndarray, variance: np.ndarray) -> float | None:
    return 1 - float(error.sum()) / float(variance.sum()) if variance.sum() > 0 else None


class InferenceView:
    """The inference SAE that a training SAE would save now, its weights copied at each `refresh`.

    BatchTopK, for one, encodes differently in training (k on average over the batch) and in use
    (a threshold): what steers must be what is saved.
    """

    def __init__(self, sae: TrainingSAE[Any]):
        self._training = sae
        with torch.random.fork_rng():  # building an SAE draws weights
            self._inference = SAE.from_dict(sae.cfg.get_inference_sae_cfg_dict()).to(sae.device)

    @torch.no_grad()
    def refresh(self) -> SAE[Any]:
        state = {name: value.clone() for name, value in self._training.state_dict().items()}
        self._training.process_state_dict_for_saving_inference(state)
        self._inference.process_state_dict_for_loading(state)
        self._inference.load_state_dict(state)
        return self._inference.eval()


class Monitor:
    """What a session tells of its run; this one is of a run without epochs, and keeps nothing."""

    def __init__(self) -> None:
        self.best_weights: dict[str, dict[str, Tensor]] = {}

    @property
    def stalled(self) -> bool:
        return False

    def observe(self, name: str, loss: float) -> None: ...
    def due(self, n_samples: int, finished: bool) -> bool:
        return False

    def end_epoch(self, n_samples: int) -> list[dict[str, Any]]:
        return []

    def restore_best(self) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class EpochMonitor(Monitor):
    """Records of finished epochs: loss, explained variance on validation and on training rows, L0, dead latents.

    Args:
        trainers: by name of the SAE.
        hooks: the hook of each SAE.
        data: prepared.
        standardize: whether the SAE is trained on standardised rows; early stopping looks at the
            explained variance in the space of training.
        patience: epochs without a rise of the validation rows' explained variance after which training stops.
        log: is given all records after each epoch.

    Raises:
        ConfigError: there is a patience and there are no validation rows.
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
        if patience is not None and not len(data.validation_rows):
            raise ConfigError(
                "train.early_stopping_epochs needs rows of split 'validation'; stopping on test rows would leak them"
            )
        super().__init__()
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
        first = next(iter(trainers.values()))
        self.epoch: int | float = first.n_training_samples // len(data.train_rows)
        self.best: dict[str, dict[str, Any]] = {}

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
        sae = self._views[name].refresh()
        for part, rows in (("validation", self._data.validation_rows), ("train", self._train_sample)):
            hook = self._hooks[name]
            moments, source = self._data.moments[hook], self._data.sources[hook]
            result = reconstruction(sae, source, rows, moments, trainer.activation_scaler)
            keys = ("explained_variance", "explained_variance_zscored", "l0")
            record |= {f"{part}_{key}": getattr(result, key) for key in keys}
        record["dead_latents"] = int(trainer.dead_neurons.sum())
        if self._patience is not None:
            self._keep_best(name, record[f"validation_{self._key}"])
        return record

    @torch.no_grad()
    def _keep_best(self, name: str, value: float | None) -> None:
        if value is not None and (name not in self.best or value > self.best[name]["explained_variance"]):
            self.best[name] = {"epoch": self.epoch, "explained_variance": value}
            self.best_weights[name] = {k: v.clone() for k, v in self._trainers[name].sae.state_dict().items()}
