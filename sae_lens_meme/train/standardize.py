"""Per-dimension standardisation with the training rows' mean and std, as SAELens' activation scaler.

SAELens folds it into the weights at the end of training and saves it with checkpoints; nothing of it
is left in the saved SAE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from torch import Tensor


@dataclass
class Standardizer(ActivationScaler):
    """z = (x - mean) / std. The matrices of `whitening` are diagonal, so elementwise work is enough."""

    @classmethod
    def from_statistics(cls, mean: Float[np.ndarray, "d_in"], std: Float[np.ndarray, "d_in"]) -> Standardizer:
        """Keep the statistics in float64, so that folding them into the weights is exact."""
        spread = torch.from_numpy(std.astype(np.float64))
        return cls(
            whitening=ActivationWhitening(
                mean=torch.from_numpy(mean.astype(np.float64)),
                matrix=torch.diag(1 / spread),
                inverse_matrix=torch.diag(spread),
            )
        )

    def scale(self, acts: Tensor) -> Tensor:
        if self.whitening is None:  # folded
            return super().scale(acts)
        return (acts - self.whitening.mean.to(acts)) / self.whitening.inverse_matrix.diagonal().to(acts)

    def unscale(self, acts: Tensor) -> Tensor:
        if self.whitening is None:
            return super().unscale(acts)
        return acts * self.whitening.inverse_matrix.diagonal().to(acts) + self.whitening.mean.to(acts)
