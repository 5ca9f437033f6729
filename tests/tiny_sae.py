"""A small stock TopK SAE on given embeddings: random directions in z-scored space, folded as a trained one would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sae_lens import TopKSAE, TopKSAEConfig


def tiny_sae(
    x: np.ndarray, d_sae: int = 48, k: int = 6, hook: str = "hook_fused", seed: int = 0, **cfg: Any
) -> TopKSAE:
    d_in = x.shape[1]
    sae = TopKSAE(
        TopKSAEConfig(
            d_in=d_in, d_sae=d_sae, k=k, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False, **cfg
        )
    )
    sae.cfg.metadata.hook_name = hook
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.from_numpy(x.mean(0)), torch.from_numpy(x.std(0))
    directions = torch.randn(d_in, d_sae, generator=generator) / d_in**0.5
    with torch.no_grad():
        sae.W_enc.copy_(directions / std[:, None])
        sae.b_enc.copy_(-(mean / std) @ directions)
        sae.W_dec.copy_(directions.T * std * 0.7)
        sae.b_dec.copy_(mean)
    return sae.eval()
