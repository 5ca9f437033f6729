"""Explained variance and firing of an SAE on given rows, through the inference SAE that would be saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from sae_lens import SAE, TrainingSAE
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_meme.train.source import Source, Statistics

_BATCH = 1024


@dataclass(frozen=True)
class Reconstruction:
    """How well rows are reconstructed.

    `explained_variance` is 1 - |x - x^|^2 / |x - mean|^2 summed over rows and dimensions, the mean
    being that of these rows; `..._zscored` weighs each dimension by 1 / (training std)^2. None: the
    rows do not vary.
    """

    explained_variance: float | None
    explained_variance_zscored: float | None
    l0: float
    fired: Bool[np.ndarray, "d_sae"]


@torch.no_grad()
def reconstruction(
    sae: SAE[Any],
    source: Source,
    rows: Int[np.ndarray, "n"],
    statistics: Statistics,
    scaler: ActivationScaler | None = None,
) -> Reconstruction:
    """Run the SAE over the rows.

    Args:
        statistics: of the training rows; their mean only serves as a numerical origin here.
        scaler: maps activations to the space of the SAE, if it is still in training.
    """
    scaler = scaler or ActivationScaler()
    error, moment, total = (np.zeros(len(statistics.mean)) for _ in range(3))
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=sae.device)
    n_active = 0
    for start in range(0, len(rows), _BATCH):
        x = source(rows[start : start + _BATCH])
        acts = sae.encode(scaler.scale(x.to(sae.device)))
        x_hat = scaler.unscale(sae.decode(acts)).cpu()
        fired |= (acts > 0).any(0)
        n_active += int((acts > 0).sum())
        error += (x.double() - x_hat.double()).square().sum(0).numpy()
        centred = x.double().numpy() - statistics.mean
        moment += np.square(centred).sum(0)
        total += centred.sum(0)
    variance = moment - total**2 / len(rows)
    return Reconstruction(
        explained_variance=_explained(error, variance),
        explained_variance_zscored=_explained(error / statistics.std**2, variance / statistics.std**2),
        l0=n_active / len(rows),
        fired=fired.cpu().numpy(),
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
