"""Integer products inside the towers: what a block computes, and what is left out where nothing reads it."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch

from sae_lens_meme.embed import EmbedOptions, int8
from sae_lens_meme.embed.encoder import Encoder


@pytest.mark.parametrize("side", ["image", "text"])
def test_int8_makes_every_token_where_a_hook_reads_the_last_block(side: str):
    encoder = Encoder.load(EmbedOptions(model="demo-encoder", device="cpu", dtype="int8", batch_size=2))
    model, last = encoder.model, {"image": "hook_image_resid.2", "text": "hook_text_resid.1"}[side]
    tokens = model.tokenize(["a cat", "when the code runs at last"])
    pixels = torch.rand(2, 3, 72, 72, generator=torch.Generator().manual_seed(0))
    encode = {"image": lambda: encoder.encode_image(pixels), "text": lambda: encoder.encode_text(tokens)}[side]
    alone, seen = encode(), []
    with model.hooks([(last, lambda x, hook: seen.append(x.clone()))]):
        beside = encode()
    with torch.inference_mode():
        _, cache = model.run_with_cache({"pixels": pixels, "tokens": tokens}, names_filter=last)
    torch.testing.assert_close(seen[0], cache[last], rtol=0, atol=0)
    cosine = (beside * alone).sum(1) / np.linalg.norm(beside, axis=1) / np.linalg.norm(alone, axis=1)
    assert cosine.min() > 0.9999  # attention at the one token is in float32


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("half", [False, True], ids=["attention in float32", "in bfloat16"])
def test_int8_computes_a_block_with_the_parts_that_it_has(quick: bool, half: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(int8, "BFLOAT16_ATTENTION", half)  # whatever this CPU has
    config = {"width": 64, "layers": 2, "head_width": 16, "image_size": 32, "patch_size": 8, "ls_init_value": 0.3}
    torch.manual_seed(0)
    model = open_clip.CLIP(16, config, {"width": 16, "heads": 2, "layers": 1}, quick_gelu=quick).visual.eval()
    x = torch.randn(3, 17, 64)
    with torch.inference_mode():
        exact = model.transformer(x)
        int8.products_in_int8(model)
        np.testing.assert_allclose(model.transformer(x) - x, exact - x, rtol=0, atol=0.02 * (exact - x).abs().max())
