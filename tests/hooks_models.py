"""Small CLIPs in open_clip's architecture, pictures and SAEs for the tests of `hooks`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from sae_lens_meme.hooks import Towers, load_local_towers
from sae_lens_meme.hooks.towers import Fusion

CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 10, "vocab_size": 520, "width": 24, "heads": 2, "layers": 3},
    "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": [32, 32], "resize_mode": "shortest"},
    "tokenizer": {"context_length": 10},
    "note": "keys of its own are allowed",
}
TEXTS = ["when the code runs", None, "monday again", "a cat. it waits."]


def write_encoder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A folder as the package ships one, with random weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | changes
    torch.manual_seed(seed)
    model = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    save_file(
        {key: value.half().contiguous() for key, value in model.state_dict().items()}, folder / "weights.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    with gzip.open(folder / "merges.txt.gz", "wt", encoding="utf-8") as file:
        file.write("#version\nt h\nth e</w>\na t</w>")
    return folder


def tiny_towers(folder: Path, fusion: Fusion = "clip", seed: int = 0) -> Towers:
    return load_local_towers(write_encoder(folder / "tiny", seed), fusion)


def pictures(n: int = 4, size: tuple[int, int] = (48, 36)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(n)]


def topk_sae(
    d_in: int,
    hook: str = "hook_fused",
    k: int = 4,
    d_sae: int = 32,
    seed: int = 0,
    seqpos_slice: tuple[int | None, ...] = (None,),
):
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(seed)
    metadata = SAEMetadata(hook_name=hook, prepend_bos=False, context_size=1, seqpos_slice=seqpos_slice)
    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=k, metadata=metadata))
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(d_sae, d_in), dim=-1))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_dec.copy_(0.01 * torch.randn(d_in))
    return sae
