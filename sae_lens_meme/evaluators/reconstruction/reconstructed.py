"""Embeddings beside their reconstructions, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import Latents


def reconstructed(
    sae: Any, embeddings: Embeddings, latents: Latents, hook: str, rows: np.ndarray, batch_size: int = 2048
) -> Iterator[tuple[np.ndarray, Float[np.ndarray, "batch d_in"], Float[np.ndarray, "batch d_in"]]]:
    """Batches of `(rows, embeddings, reconstructions)`.

    Latents are decoded as they are; only an SAE that normalises each sample at run time is run again,
    because its `decode` needs what its `encode` left behind.
    """
    for batch_rows, x in embeddings.batches(hook, rows, batch_size):
        with torch.no_grad():
            if normalises_at_run_time(sae):
                acts = sae.encode(torch.from_numpy(x).to(sae.device, sae.dtype))
            else:
                dense = latents.rows(batch_rows).csr().toarray()
                acts = torch.from_numpy(dense).to(sae.device, sae.dtype)
            yield batch_rows, x, sae.decode(acts).float().cpu().numpy()


def normalises_at_run_time(sae: Any) -> bool:
    return getattr(sae.cfg, "normalize_activations", "none") in ("layer_norm", "constant_norm_rescale")
