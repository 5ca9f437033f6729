"""The loops that published code runs, written down plainly: one table, one threshold, one latent at a time.

They are the independent computation that `benchmarks/` times ours against, and check ours with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.stats import fisher_exact
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests


def association(z: np.ndarray, concepts: np.ndarray, latents: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """p and q of every latent x concept: a boolean 2 x 2 table and `fisher_exact` for each, then BH by concept."""
    p = np.array(
        [
            [_fisher(z[:, latent] > 0, concepts[:, concept]) for concept in range(concepts.shape[1])]
            for latent in latents
        ]
    )
    return p, np.stack([multipletests(column, method="fdr_bh")[1] for column in p.T], axis=1)


def _fisher(fires: np.ndarray, true: np.ndarray) -> float:
    table = [
        [np.sum(fires & true), np.sum(fires & ~true)],
        [np.sum(~fires & true), np.sum(~fires & ~true)],
    ]
    return float(fisher_exact(table, alternative="greater")[1])


def best_f1(z: np.ndarray, concepts: np.ndarray, latents: Iterable[int]) -> np.ndarray:
    """Best F1 of every latent x concept: scikit-learn at each distinct positive activation."""
    return np.array(
        [
            [
                max((f1_score(concepts[:, concept], z[:, latent] >= t) for t in np.unique(z[z[:, latent] > 0, latent])), default=0.0)
                for concept in range(concepts.shape[1])
            ]
            for latent in latents
        ]
    )


def influence(
    z: np.ndarray, probes: Sequence[tuple[np.ndarray, np.ndarray]], latents: Iterable[int], multiplier: float
) -> np.ndarray:
    """Mean change of each class's probability: scale one latent, normalise all rows again, ask every probe again.

    `probes` are `(coef [outputs, d_sae], intercept [outputs])`; a single output is a sigmoid.
    """
    before = [_probabilities(z, *probe) for probe in probes]
    changes = []
    for latent in latents:
        changed = z.copy()
        changed[:, latent] *= multiplier
        after = [_probabilities(changed, *probe) for probe in probes]
        changes.append(np.concatenate([(a - b).mean(axis=0) for a, b in zip(after, before, strict=True)]))
    return np.array(changes)


def _probabilities(z: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    logits = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0) @ coef.T + intercept
    if logits.shape[1] == 1:
        positive = 1 / (1 + np.exp(-logits))
        return np.concatenate([1 - positive, positive], axis=1)
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


class Autoencoder(torch.nn.Module):
    """InterVLM's autoencoder as its paper gives it: z = ReLU(TopK(W_e x + b_e)), x^ = W_d z + b_d."""

    def __init__(self, d_in: int, d_sae: int, k: int):
        super().__init__()
        self.encoder, self.decoder, self.k = torch.nn.Linear(d_in, d_sae), torch.nn.Linear(d_sae, d_in), k
        torch.nn.init.xavier_uniform_(self.encoder.weight)
        torch.nn.init.xavier_uniform_(self.decoder.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pre = self.encoder(x)
        top = pre.topk(self.k, dim=-1)
        z = torch.zeros_like(pre).scatter(-1, top.indices, top.values).relu()
        return self.decoder(z)


def train_step(model: Autoencoder, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
    """One step of the published loop: MSE, Adam, then the decoder's columns divided by max(norm, 1)."""
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), x)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        model.decoder.weight /= model.decoder.weight.norm(dim=0, keepdim=True).clamp(min=1)
    return loss.item()
