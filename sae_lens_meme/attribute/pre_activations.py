"""An SAE's pre-activations beside its activations, whatever its architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from sae_lens_meme.errors import ModelError


@torch.no_grad()
def pre_activations(
    sae: Any, x: Float[np.ndarray, "n d_in"]
) -> tuple[Float[torch.Tensor, "n d_sae"], Float[torch.Tensor, "n d_sae"]]:
    """What the activation function sees, and what it makes of it.

    Raises:
        ModelError: the SAE has no such stage (matching pursuit, for one).
    """
    seen: list[torch.Tensor] = []
    handle = sae.hook_sae_acts_pre.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        acts = sae.encode(torch.from_numpy(x).to(sae.device, sae.dtype))
    finally:
        handle.remove()
    if not seen:
        raise ModelError(f"an SAE of architecture {sae.cfg.architecture()!r} has no pre-activation to attribute")
    pre = seen[-1]
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):  # SAELens scales after the hook
        pre = pre * sae.W_dec.norm(dim=-1)
    return pre.float(), (acts.to_dense() if acts.is_sparse else acts).float()
