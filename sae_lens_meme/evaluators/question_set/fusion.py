"""Memes with swapped captions: the four fused vectors of each item, from the image and text embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Array2D, Dataset, Features, Value
from jaxtyping import Float
from torch import Tensor

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.evaluators.latents import eval_mode
from sae_lens_meme.evaluators.question_set.items import Items
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, unit_product
from sae_lens_meme.hooks.names import EMBEDDING_HOOKS, FUSED, IMAGE_EMBED, TEXT_EMBED

Fuse = Callable[[Float[np.ndarray, "n d_image"], Float[np.ndarray, "n d_text"]], Float[np.ndarray, "n d"]]

TOLERANCE = 1e-4
"""Of the largest stored number: far above what precision and batch size change, far below another fusion."""


def fuse_units(image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Fusion clip: the product of unit vectors, in float64, returned as float32 (as `embed` does)."""
    return unit_product(_tensor(image).double(), _tensor(text).double()).float().numpy()


def fuse_through(heads: MemeCLIPHeads) -> Fuse:
    """Fusion memeclip: through the maps and adapters of MemeCLIP's heads (`read_memeclip_checkpoint(path).heads`)."""

    @torch.no_grad()
    def fuse(image: np.ndarray, text: np.ndarray) -> np.ndarray:
        device = heads.classifier.weight.device
        with eval_mode(heads):  # the maps have dropout
            return heads.fuse(_tensor(image).to(device), _tensor(text).to(device)).float().cpu().numpy()

    return fuse


def fusion_of(embeddings: Embeddings, hook: str, fuse: Fuse | None) -> Fuse | str:
    """How these embeddings were fused, or why captions cannot be swapped."""
    if hook != FUSED:
        return f"the SAE reads {hook}: only at {FUSED} can a picture be given another caption"
    missing = [name for name in EMBEDDING_HOOKS if name not in embeddings.hooks]
    if missing:
        return f"the embeddings have no {', '.join(missing)}; embed the corpus with image and text embeddings"
    fusion = embeddings.facts.get("fusion", "clip")
    if fuse is None and fusion != "clip":
        return f"fusion {fusion} needs its heads; give fuse=fuse_through(heads)"
    return fuse or fuse_units


def fused_items(embeddings: Embeddings, items: Items, fuse: Fuse) -> Embeddings:
    """One row a cell and item, `hook_fused`: all items with picture A and text A, then AB, BA, BB.

    Its ids name the meme of the picture and the meme of the text. Memory is 4 x items x d_in.

    Raises:
        DataError: `fuse` does not reproduce the stored fused vectors of the items' memes.
        NonFiniteError: an embedding of an item is NaN, infinite or a zero vector; the message names the meme.
    """
    images, texts = ([embeddings.take(hook, rows) for rows in items] for hook in (IMAGE_EMBED, TEXT_EMBED))
    sides = [(image, text) for image in (0, 1) for text in (0, 1)]
    vectors = [fuse(images[image], texts[text]) for image, text in sides]
    for memes, found in ((0, vectors[0]), (1, vectors[3])):
        _require_stored(embeddings, items[memes], found)
    ids = [
        f"picture of {p}, text of {t}"
        for image, text in sides
        for p, t in zip(embeddings.ids[items[image]], embeddings.ids[items[text]], strict=True)
    ]
    return _embeddings({"id": ids}, np.concatenate(vectors), embeddings.facts)


def _embeddings(columns: Mapping[str, Any], fused: np.ndarray, facts: Mapping[str, Any]) -> Embeddings:
    features = Features({"id": Value("string"), FUSED: Array2D((1, fused.shape[1]), "float32")})
    return Embeddings.from_dataset(Dataset.from_dict({**columns, FUSED: fused[:, None]}, features=features), **facts)


def _require_stored(embeddings: Embeddings, rows: np.ndarray, found: np.ndarray) -> None:
    stored = embeddings.take(FUSED, rows)
    if stored.shape != found.shape:
        raise DataError(f"question set: fuse gives {found.shape[1]} dimensions, the stored {FUSED} {stored.shape[1]}")
    if len(bad := np.flatnonzero(~np.isfinite(found).all(axis=1))):
        raise NonFiniteError(
            f"embeddings, row {rows[bad[0]]} (id {str(embeddings.ids[rows[bad[0]]])!r}): image and text embedding fuse to NaN "
            "or infinity (one of them is not finite, or of norm 0); remove the meme or embed it again"
        )
    difference = np.abs(found - stored).max(axis=1)
    worst = int(difference.argmax())
    if not difference[worst] <= TOLERANCE * np.abs(stored).max():
        raise DataError(
            f"question set: fusing image and text embeddings does not give the stored {FUSED}: they differ by up to "
            f"{difference[worst]:.3g} (id {str(embeddings.ids[rows[worst]])!r}); embed again, or give the fuse= that made them"
        )


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))
