"""The true dictionary of planted vectors as a stock SAELens SAE: the ceiling for a dictionary with that encoder."""

from __future__ import annotations

import numpy as np
import torch
from sae_lens import MatchingPursuitSAE, MatchingPursuitSAEConfig, TopKSAE, TopKSAEConfig

from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.planted.vectors import PlantedVectors
from sae_lens_meme.standardize import train_moments


def true_dictionary(vectors: PlantedVectors, k: int) -> TopKSAE:
    """Reads z-scored vectors along the true directions, of which the k largest count."""
    std = train_moments(vectors.embeddings, FUSED).std
    z = vectors.directions / std
    n_factors, d_in = z.shape
    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=n_factors, k=k, rescale_acts_by_decoder_norm=False))
    sae.cfg.metadata.hook_name = FUSED
    with torch.no_grad():
        sae.W_dec.copy_(torch.from_numpy(vectors.directions))
        sae.W_enc.copy_(torch.from_numpy((z / std / (z**2).sum(axis=1, keepdims=True)).T))
        sae.b_dec.copy_(torch.from_numpy(vectors.origin))
        sae.b_enc.zero_()
    return sae.eval()


def true_matching_pursuit(vectors: PlantedVectors, k: int) -> MatchingPursuitSAE:
    """For z-scored vectors: the same directions, read one after the other. What it finds more, TopK loses to interference."""
    moments = train_moments(vectors.embeddings, FUSED)
    z = vectors.directions / moments.std
    n_factors, d_in = z.shape
    sae = MatchingPursuitSAE(MatchingPursuitSAEConfig(d_in=d_in, d_sae=n_factors, max_iterations=k))
    sae.cfg.metadata.hook_name = FUSED
    with torch.no_grad():
        sae.W_dec.copy_(torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True)))
        sae.b_dec.copy_(torch.from_numpy((vectors.origin - moments.mean) / moments.std))
    return sae.eval()
