"""Training MemeCLIP's heads on cached CLIP embeddings; the epoch is picked on validation, never on test."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae_lens_meme.errors import ModelError, NonFiniteError
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint
from sae_lens_meme.hooks.linear_head import labelled_rows
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.hooks.sources import CachedEmbeddings


class Batch(NamedTuple):
    image: Float[Tensor, "n d_image"]
    text: Float[Tensor, "n d_text"]
    target: Int[Tensor, " n"]


class TrainedHeads(NamedTuple):
    """The heads of the best epoch (from 0), and the validation cross-entropy after each."""

    checkpoint: MemeCLIPCheckpoint
    epoch: int
    validation_losses: list[float]


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
