"""What patches are filtered by: latents of the tokens that a chat model reads and, their plain rival, cosines of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy import sparse

from sae_lens_meme.errors import ModelError
from sae_lens_meme.evaluators.cross_modal.patches import cell_means
from sae_lens_meme.evaluators.latents import eval_mode
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.hooks.names import IMAGE_RESID
from sae_lens_meme.hooks.patches import Boxes, boxes_of_grid, boxes_of_tokens
from sae_lens_meme.hooks.positions import IMAGE, TEXT
from sae_lens_meme.hooks.processors import prompt_of
from sae_lens_meme.hooks.sources import PIXELS, TOKENS
from sae_lens_meme.steer.asking import Asker
from sae_lens_meme.steer.opened import AskedModel

_BATCH = 32


class ReadTokens(NamedTuple):
    """The text and image tokens of all pictures, picture by picture."""

    latents: Any
    """scipy's csr_matrix [tokens, d_sae]."""
    vectors: Float[np.ndarray, "tokens d"]
    """Only on request: 10 MB per picture for a 7B model."""
    modality: Int[np.ndarray, " tokens"]
    item: Int[np.ndarray, " tokens"]
    boxes: Boxes


@torch.no_grad()
def read_tokens(study: AskedModel, asker: Asker, answers: Sequence[str], *, vectors: bool) -> ReadTokens:
    """One pass over each picture with the prompt and the answer behind it; nothing behind the hook is computed.

    Raises:
        ModelError: it is not known where an image token lies.
    """
    model, prompt = study.model, prompt_of(study.model, asker.prompt)
    parts: list[ReadTokens] = []
    for item, (picture, answer) in enumerate(zip(asker.pictures, answers, strict=True)):
        both = model.processor.both(images=[picture], text=[f"{prompt} {answer}"], return_tensors="pt")
        inputs = dict(both)
        tags = model.model_tags(inputs)[0].cpu().numpy()
        _, cache = model.run_with_cache(inputs, names_filter=[study.hook], stop_at_layer=0)
        kept = np.isin(tags, (TEXT, IMAGE))
        x = cache[study.hook][0][torch.from_numpy(kept)].float().cpu()
        with eval_mode(study.sae):
            z = study.sae.encode(x.to(study.sae.device, study.sae.dtype)).float().cpu().numpy()
        image = tags[kept] == IMAGE
        boxes = np.full((len(x), 4), np.nan)
        boxes[image] = boxes_of_tokens(model.hf, inputs, 0, int(image.sum()))
        if np.isnan(boxes[image]).all():
            raise ModelError(
                f"{model.model_name}: it is not known where its {image.sum()} image tokens lie in a picture"
            )
        kept_x = x.numpy() if vectors else np.empty((len(x), 0), np.float32)
        parts.append(ReadTokens(sparse.csr_matrix(z), kept_x, tags[kept], np.full(len(x), item), boxes))
    joined = [np.concatenate(column) for column in list(zip(*parts, strict=True))[1:]]
    return ReadTokens(sparse.vstack([part.latents for part in parts], format="csr"), *joined)


@torch.no_grad()
def clip_scores(
    model: HookedMemeCLIP, pictures: Sequence[Any], texts: Sequence[str], grid: int
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
    for start in range(0, len(pictures), _BATCH):
        batch = slice(start, start + _BATCH)
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
