"""A generated corpus whose latents know the source of a meme: what makes a pooled test find thousands."""

from __future__ import annotations

import numpy as np
from arrays import make_embeddings
from scipy import sparse

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import Latents

SOURCES = ("alpha", "beta", "gamma")
CONCEPTS = ("hate=1", "hate=0", "humor>=2", "sentiment>=1", "sentiment<=-1", "offensive>=2")
KNOWN_IN = {"hate": "alpha beta", "humor": "alpha gamma", "sentiment": "gamma", "offensive": "beta gamma"}
FOLLOWS_SOURCE, FOLLOWS_HATE = range(60), range(60, 70)
N_LATENTS = 120


def source_corpus(n: int = 3000, seed: int = 0, informative: bool = True) -> tuple[Embeddings, Latents]:
    """Latents 0..59 follow the source alone, 60..69 hate=1 within a source (if `informative`), the rest nothing.

    Each label is known in some sources only, and its prevalence differs between them.
    """
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 3, n)
    labels = {
        "hate": rng.random(n) < np.array([0.2, 0.6, 0.5])[source],
        "humor": np.minimum(rng.poisson(np.array([2.5, 1.0, 0.8])[source]), 3),
        "sentiment": rng.integers(-2, 3, n),
        "offensive": np.minimum(rng.poisson(np.array([1.0, 2.0, 0.7])[source]), 3),
    }
    known = {name: np.isin(np.array(SOURCES)[source], where.split()) for name, where in KNOWN_IN.items()}
    rate = np.full((n, N_LATENTS), 0.08)
    rate[:, FOLLOWS_SOURCE] = np.where(source[:, None] == np.array(FOLLOWS_SOURCE) % 3, 0.35, 0.03)
    if informative:
        rate[:, FOLLOWS_HATE] = np.where(labels["hate"], 0.5, 0.05)[:, None]
    fires = rng.random((n, N_LATENTS)) < rate
    latents = Latents.from_csr(sparse.csr_matrix((fires * (rng.random(fires.shape) + 0.1)).astype(np.float32)))
    embeddings = make_embeddings(
        {"hook_fused": rng.standard_normal((n, 8)).astype(np.float32)},
        sources=np.array(SOURCES)[source].tolist(),
        splits=rng.choice(["train", "validation", "test"], n, p=[0.7, 0.15, 0.15]).tolist(),
        labels={
            name: [int(v) if k else None for v, k in zip(labels[name], known[name], strict=True)] for name in labels
        },
    )
    return embeddings, latents
