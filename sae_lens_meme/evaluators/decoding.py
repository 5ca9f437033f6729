"""Embeddings as their latents reconstruct them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents, decoder_rows, normalises_at_run_time
from sae_lens_meme.hook_columns import require_finite

DENSE_VALUES = 2**25
"""Of one dense batch of activations (128 MB): many latents are taken of fewer memes at once."""


def memes_at_once(width: int, most: int) -> int:
    """Rows of a dense batch of activations."""
    return min(most, max(DENSE_VALUES // width, 1))


def reconstructed(
    sae: Any, embeddings: Embeddings, latents: Latents, hook: str, rows: np.ndarray, batch_size: int = 2048
) -> Iterator[tuple[np.ndarray, Float[np.ndarray, "batch d_in"], Float[np.ndarray, "batch d_in"]]]:
    """Batches of `(rows, embeddings, reconstructions)`.

    Latents are decoded as they are; only an SAE that normalises each sample at run time is run again,
    because its `decode` needs what its `encode` left behind. Many memes of a wide SAE are decoded from the
    latents that fire: through `decode` they would take hundreds of times as long.

    Raises:
        DataError: the latents are of another SAE.
        NonFiniteError: a reconstruction is NaN or infinite.
    """
    if latents.d_sae != sae.cfg.d_sae:
        raise DataError(
            f"these are latents of an SAE with d_sae {latents.d_sae}, not {sae.cfg.d_sae}; encode with this SAE"
        )
    at_once = memes_at_once(latents.d_sae, batch_size)
    sparsely = at_once < batch_size < len(rows) and not normalises_at_run_time(sae)
    decoded = _sparse_decoder(sae) if sparsely else None
    for batch_rows, x in embeddings.batches(hook, rows, batch_size if sparsely else at_once):
        with torch.no_grad():
            if decoded is not None:
                x_hat = decoded(latents.rows(batch_rows).csr())
            elif normalises_at_run_time(sae):
                x_hat = _decoded(sae, sae.encode(torch.from_numpy(x).to(sae.device, sae.dtype)))
            else:
                dense = latents.rows(batch_rows).csr().toarray()
                x_hat = _decoded(sae, torch.from_numpy(dense).to(sae.device, sae.dtype))
            require_finite(x_hat, f"the reconstruction of {hook}", embeddings.ids, batch_rows)
            yield batch_rows, x, x_hat


def _decoded(sae: Any, acts: Tensor) -> Float32[np.ndarray, "batch d_in"]:
    return sae.decode(acts).float().cpu().numpy()


@torch.no_grad()
def _sparse_decoder(sae: Any) -> Callable[[Any], Float32[np.ndarray, "batch d_in"]]:
    """From CSR latents."""
    rows = decoder_rows(sae).astype(np.float32)
    nothing = _decoded(sae, torch.zeros(1, int(sae.cfg.d_sae), device=sae.device, dtype=sae.dtype))
    return lambda active: active @ rows + nothing
