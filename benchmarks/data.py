"""Synthetic data of the true shape: 20,827 memes, 768 dimensions, 4,096 latents, k 64, 13 concepts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.jit import njit


@dataclass(frozen=True)
class Shape:
    """The defaults are InterVLM's."""

    n: int = 20_827
    n_test: int = 1_007
    d_in: int = 768
    d_sae: int = 4_096
    k: int = 64
    concepts: int = 13

    @classmethod
    def of(cls, quick: bool) -> Shape:
        return cls(n=600, n_test=150, d_in=32, d_sae=96, k=8, concepts=4) if quick else cls()


def make_latents(shape: Shape, seed: int = 0) -> Latents:
    """Active latents with the skew of trained SAEs: firing rates fall as a power of the rank."""
    rng = np.random.default_rng(seed)
    rate = (1 + np.arange(shape.d_sae)) ** -0.7
    keys = np.log(rate) + rng.gumbel(size=(1, shape.d_sae))
    indices = np.empty((shape.n, shape.k), dtype=np.int32)
    for start in range(0, shape.n, 512):  # Gumbel top-k: k latents without replacement by rate
        rows = slice(start, min(start + 512, shape.n))
        noisy = keys + rng.gumbel(size=(rows.stop - rows.start, shape.d_sae))
        indices[rows] = np.sort(np.argpartition(-noisy, shape.k, axis=1)[:, : shape.k], axis=1)
    values = rng.exponential(1.0, size=indices.shape).astype(np.float32) + 1e-3
    return Latents(indices, values, shape.d_sae)


def make_many_latents(n: int, d_sae: int, k: int, seed: int = 0) -> Latents:
    """The same skew at any size: rates are drawn from until k latents of a meme differ, O(n k)."""
    cumulative = np.cumsum((1 + np.arange(d_sae)) ** -0.7)
    indices = _draw_distinct(cumulative / cumulative[-1], n, k, seed)
    values = np.random.default_rng(seed).exponential(1.0, indices.shape).astype(np.float32)
    return Latents(indices, values + np.float32(1e-3), d_sae)


@njit()
def _draw_distinct(cumulative, n, k, seed):
    np.random.seed(seed)
    last = len(cumulative) - 1
    indices, drawn_by = np.empty((n, k), np.int32), np.full(len(cumulative), -1)
    for row in range(n):
        found = 0
        while found < k:
            latent = min(np.searchsorted(cumulative, np.random.random()), last)
            if drawn_by[latent] != row:
                drawn_by[latent] = row
                indices[row, found] = latent
                found += 1
        indices[row].sort()
    return indices


def make_concepts(shape: Shape, seed: int = 1) -> np.ndarray:
    """bool [n, concepts], prevalences between 5 % and 60 %."""
    rng = np.random.default_rng(seed)
    return rng.random((shape.n, shape.concepts)) < np.linspace(0.05, 0.6, shape.concepts)


def make_zscored(shape: Shape, seed: int = 2) -> np.ndarray:
    """float32 [n, d_in], z-scored, with a few hundred sparse directions behind it."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((400, shape.d_in)).astype(np.float32)
    strength = rng.exponential(1.0, (shape.n, 400)) * (rng.random((shape.n, 400)) < 0.05)
    x = strength.astype(np.float32) @ directions + 0.5 * rng.standard_normal((shape.n, shape.d_in)).astype(np.float32)
    return (x - x.mean(0)) / x.std(0)
