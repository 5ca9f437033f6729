"""The loops that published code runs, written down plainly: one table, one threshold, one latent at a time.

They are the independent computation that `benchmarks/` times ours against, and check ours with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import fisher_exact
from sklearn.metrics import f1_score, precision_recall_curve
from statsmodels.stats.multitest import multipletests


def association(z: np.ndarray, concepts: np.ndarray, latents: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """p and q of every latent x concept: a boolean 2 x 2 table and `fisher_exact` for each, then BH by concept."""
    p = np.array(
        [
            [_fisher(z[:, latent] > 0, concepts[:, concept]) for concept in range(concepts.shape[1])]
            for latent in latents
        ]
    )
    adjusted: list[Any] = [multipletests(column, method="fdr_bh")[1] for column in p.T]
    return p, np.stack(adjusted, axis=1)


def _fisher(fires: np.ndarray, true: np.ndarray) -> float:
    table = [
        [np.sum(fires & true), np.sum(fires & ~true)],
        [np.sum(~fires & true), np.sum(~fires & ~true)],
    ]
    found: Any = fisher_exact(table, alternative="greater")
    return float(found[1])


def best_f1(z: np.ndarray, concepts: np.ndarray, latents: Iterable[int]) -> np.ndarray:
    """Best F1 of every latent x concept: scikit-learn at each distinct positive activation."""
    return np.array([[_best_f1(z[:, latent], concept) for concept in concepts.T] for latent in latents])


def _best_f1(activation: np.ndarray, true: np.ndarray) -> float:
    thresholds = np.unique(activation[activation > 0])
    return max((float(f1_score(true, activation >= t)) for t in thresholds), default=0.0)


def best_f1_by_curve(z: np.ndarray, concepts: np.ndarray, latents: Iterable[int]) -> np.ndarray:
    """The same from scikit-learn's `precision_recall_curve`, which sorts once for each pair."""
    return np.array([[_best_on_curve(z[:, latent], concept) for concept in concepts.T] for latent in latents])


def _best_on_curve(activation: np.ndarray, true: np.ndarray) -> float:
    precision, recall, thresholds = precision_recall_curve(true, activation)
    precision, recall = precision[:-1][thresholds > 0], recall[:-1][thresholds > 0]
    both = precision + recall
    return float(np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0).max(initial=0.0))


def influence(
    z: np.ndarray, probes: Sequence[tuple[np.ndarray, np.ndarray]], latents: Iterable[int], multipliers: Sequence[float]
) -> np.ndarray:
    """Mean change of each probability: scale one latent, normalise all rows again, ask every probe again.

    `probes` are `(coef [outputs, d_sae], intercept [outputs])`; one output is the sigmoid of the second
    class. The result is [latents, multipliers, all outputs].
    """
    before = _all_probabilities(z, probes)
    changes = []
    for latent in latents:
        for multiplier in multipliers:
            changed = z.copy()
            changed[:, latent] *= multiplier
            changes.append((_all_probabilities(changed, probes) - before).mean(axis=0))
    return np.array(changes).reshape(-1, len(multipliers), before.shape[1])


def _all_probabilities(z: np.ndarray, probes: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    unit = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0)
    return np.hstack([_probabilities(unit @ coef.T + intercept) for coef, intercept in probes])


def _probabilities(logits: np.ndarray) -> np.ndarray:
    if logits.shape[1] == 1:
        return 1 / (1 + np.exp(-logits))
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def monosemanticity(z: np.ndarray, embeddings: np.ndarray, batch: int = 100) -> np.ndarray:
    """MS of every latent: one meme against the later ones, a hundred at a time, as the released metric.py goes."""
    low, high = z.min(axis=0), z.max(axis=0)
    with np.errstate(invalid="ignore"):  # a latent that never fires is 0 / 0
        a = (z - low) / (high - low)
    norm = np.linalg.norm(embeddings, axis=1)
    similar, weight = np.zeros(z.shape[1], z.dtype), np.zeros(z.shape[1], z.dtype)
    for i in range(len(z)):
        for j in range(i + 1, len(z), batch):
            cosine = embeddings[j : j + batch] @ embeddings[i] / (norm[j : j + batch] * norm[i])
            weights = a[i] * a[j : j + batch]
            similar += (weights * cosine[:, None]).sum(axis=0)
            weight += weights.sum(axis=0)
    return np.divide(similar, weight, out=np.full_like(similar, np.nan), where=weight != 0)


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


def embed(towers: Any, path: Path, caption: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and text embedding of one meme, one forward pass of each tower, float32."""
    with torch.no_grad():
        pixels = towers.preprocess(Image.open(path).convert("RGB"))[None]
        return towers.model.encode_image(pixels)[0].numpy(), embed_caption(towers, caption)


def embed_caption(towers: Any, caption: str) -> np.ndarray:
    with torch.no_grad():
        return towers.model.encode_text(towers.tokenize([caption]))[0].numpy()


def train_step(model: Autoencoder, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
    """One step of the published loop: MSE, Adam, then the decoder's columns divided by max(norm, 1)."""
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), x)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        model.decoder.weight /= model.decoder.weight.norm(dim=0, keepdim=True).clamp(min=1)
    return loss.item()
