"""Heads fitted to cached embeddings: MemeCLIP's own, and a linear one for the fusion that has no classifier.

The epoch of MemeCLIP's heads is picked on validation, never on test.
"""

from __future__ import annotations

import copy
import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from sae_lens_meme.errors import DataError, ModelError, NonFiniteError
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.hooks.sources import CachedEmbeddings

MAX_DEFAULT_CLASSES = 20  # a column with more values is a description (a file name, a date), not a label


class Batch(NamedTuple):
    image: Float[Tensor, "n d_image"]
    text: Float[Tensor, "n d_text"]
    target: Int[Tensor, " n"]


class TrainedHeads(NamedTuple):
    """The heads of the best epoch (from 0), and the validation cross-entropy after each."""

    checkpoint: MemeCLIPCheckpoint
    epoch: int
    validation_losses: list[float]


@torch.inference_mode(False)
@torch.enable_grad()  # notebooks turn them off
def train_memeclip_head(
    embeddings: CachedEmbeddings,
    task: str,
    *,
    heads: MemeCLIPHeads | None = None,
    epochs: int = 10,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-4,
    d_map: int = 1024,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> TrainedHeads:
    """Train MemeCLIP's heads for one label with AdamW and cross-entropy (settings of arXiv 2409.14703).

    Args:
        embeddings: made with fusion memeclip: the text is the feature before CLIP's projection.
        heads: where training starts (for class prompts: those of
            `from_pretrained(fusion="memeclip", class_names=...)`); they are not changed. Default: new ones.

    Raises:
        ModelError: the embeddings are of another fusion.
        DataError: fewer than two classes among the labelled rows of train or of validation.
        NonFiniteError: the loss is not finite.
    """
    fusion = getattr(embeddings, "facts", {}).get("fusion")
    if fusion != "memeclip":
        raise ModelError(
            f"these embeddings have fusion {fusion!r}; MemeCLIP reads un-projected text, embed with fusion memeclip"
        )
    classes = np.unique(labelled_rows(embeddings, task, "train")[1]).tolist()
    train, validation = (_read(embeddings, task, split, classes, device) for split in ("train", "validation"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if heads is None:
            heads = MemeCLIPHeads(train.image.shape[1], train.text.shape[1], len(classes), d_map)
        model = copy.deepcopy(heads).to(device)
        if model.n_classes != len(classes):
            raise ModelError(
                f"heads with {model.n_classes} logits for {task}, which has {len(classes)} classes in train"
            )
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
        losses: list[float] = []
        best = model.state_dict()
        for _ in range(epochs):
            _train_epoch(model, optimizer, train, batch_size)
            losses.append(_loss(model, validation))
            if losses[-1] <= min(losses):
                best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return TrainedHeads(MemeCLIPCheckpoint(model.eval(), task, tuple(classes)), int(np.argmin(losses)), losses)


def _read(embeddings: CachedEmbeddings, task: str, split: str, classes: list, device: str | torch.device) -> Batch:
    rows, values = labelled_rows(embeddings, task, split)
    known = np.isin(values, np.array(classes, dtype=values.dtype))  # a class that train lacks cannot be learned
    image, text = (torch.from_numpy(embeddings.take(hook, rows[known])) for hook in (IMAGE_EMBED, TEXT_EMBED))
    target = torch.from_numpy(np.searchsorted(classes, values[known].tolist()))
    return Batch(image.to(device), text.to(device), target.to(device))


def _train_epoch(model: MemeCLIPHeads, optimizer: torch.optim.Optimizer, data: Batch, batch_size: int) -> None:
    model.train()
    for rows in torch.randperm(len(data.target)).split(batch_size):
        loss = F.cross_entropy(model(data.image[rows], data.text[rows]), data.target[rows])
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                f"MemeCLIP's training loss is {loss.item()}; look for zero vectors or lower the learning rate"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _loss(model: MemeCLIPHeads, data: Batch) -> float:
    model.eval()
    return float(F.cross_entropy(model(data.image, data.text), data.target))


def logistic_regression(
    x: Float[np.ndarray, "n d"], y: np.ndarray
) -> tuple[Float[np.ndarray, "outputs d"], Float[np.ndarray, " outputs"]]:
    """Weight and bias on standardised vectors, the standardisation folded in; outputs in the order of sorted classes."""
    scaler = StandardScaler().fit(x)
    # on these thin matrices BLAS threads wait for each other; the line search warns at the limit of float64
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = LogisticRegression(solver="newton-cg", tol=1e-8, max_iter=200).fit(scaler.transform(x), y)
    mean, scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    weight = probe.coef_.astype(np.float64) / scale
    return weight, probe.intercept_ - weight @ mean


def linear_head(weight: Float[np.ndarray, "outputs d"], bias: Float[np.ndarray, " outputs"]) -> nn.Linear:
    """A layer with one logit per class; a regression with one output z gets the logits -z/2 and z/2.

    Their softmax is the regression's probability.
    """
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head.eval()


def labelled_rows(embeddings: CachedEmbeddings, task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a split whose label is known, and the labels.

    Raises:
        DataError: fewer than two classes among them.
    """
    label, rows = embeddings.label(task), embeddings.rows(split)
    rows = rows[label.known[rows]]
    classes = np.unique(label.values[rows]).tolist()
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no labelled rows"
        raise DataError(
            f"label {task!r} has {found} in split {split}; a classifier needs two classes, take another task"
        )
    return rows, label.values[rows]


def first_task(embeddings: CachedEmbeddings) -> str | None:
    """The first label that a classifier can be fitted to."""
    for name in embeddings.label_names:
        label, rows = embeddings.label(name), embeddings.rows("train")
        if 2 <= len(np.unique(label.values[rows][label.known[rows]])) <= MAX_DEFAULT_CLASSES:
            return name
    return None
