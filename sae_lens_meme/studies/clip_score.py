"""The plain rival of SAE-V's weights: how close CLIP puts each patch of a picture to the text about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from sae_lens_meme.errors import ModelError
from sae_lens_meme.evaluators.cross_modal.patches import cell_means
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.hooks.names import IMAGE_RESID
from sae_lens_meme.hooks.patches import boxes_of_grid
from sae_lens_meme.hooks.positions import IMAGE
from sae_lens_meme.hooks.sources import PIXELS, TOKENS


@torch.no_grad()
def clip_scores(
    model: HookedMemeCLIP, pictures: Sequence[Any], texts: Sequence[str], grid: int, batch_size: int = 32
) -> Float64[np.ndarray, "pictures grid grid"]:
    """Cosine of each projected patch of the last block and the text, as the mean over the patches of a cell.

    Raises:
        ModelError: its image tower is not a ViT whose patches can be projected.
    """
    visual, last = (
        model.towers.model.visual,
        max((name for name in model.shapes if name.startswith(IMAGE_RESID)), key=_layer, default=None),
    )
    if last is None or getattr(visual, "proj", None) is None or not hasattr(visual, "ln_post"):
        raise ModelError(
            f"{model.model_name}: its patches cannot be compared with text; give a ViT, such as ViT-B-32/openai"
        )
    rows, columns = visual.grid_size
    parts = []
    for start in range(0, len(pictures), batch_size):
        batch = slice(start, start + batch_size)
        pixels = torch.stack([model.preprocess(picture) for picture in pictures[batch]]).to(model.device)
        tokens = model.tokenize(list(texts[batch])).to(model.device)
        _, cache = model.run_with_cache({PIXELS: pixels, TOKENS: tokens}, names_filter=[last], stop_at_layer=0)
        patches = visual.ln_post(cache[last][:, -rows * columns :]) @ visual.proj
        text = model.encode_text(tokens)
        parts.append(
            torch.nn.functional.cosine_similarity(patches.float(), text[:, None].float(), dim=-1).cpu().numpy()
        )
    value = np.concatenate(parts)
    boxes = np.tile(boxes_of_grid(np.arange(rows * columns), rows, columns), (len(value), 1))
    of = np.arange(len(value)).repeat(rows * columns)
    return cell_means(value.ravel(), np.full(value.size, IMAGE), of, boxes, grid, len(value))


def _layer(hook: str) -> int:
    return int(hook.rpartition(".")[2])
