"""Embeddings of the shape that real fused CLIP vectors have, for tests: not a cloud of independent Gaussians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Array2D, Dataset, Features, Value

from sae_lens_meme.embeddings import Embeddings

OUTLIER_SHARES = (0.406, 0.205, 0.031)
"""Share of the variance of the three largest dimensions, as on 1,000 real memes with ViT-B/32."""


def anisotropic(
    n: int, d: int, rng: np.random.Generator, n_factors: int = 24, outlier_share: float = sum(OUTLIER_SHARES)
) -> np.ndarray:
    """float32 [n, d]: sparse factors plus noise, norm about 0.05, three dimensions with 64 % of the variance."""
    directions = rng.standard_normal((n_factors, d))
    active = (rng.random((n, n_factors)) < 0.15) * rng.exponential(1.0, (n, n_factors))
    x = active @ directions + 0.3 * rng.standard_normal((n, d))
    x = (x - x.mean(0)) / x.std(0)
    shares = np.full(d, (1 - outlier_share) / (d - len(OUTLIER_SHARES)))
    shares[: len(OUTLIER_SHARES)] = np.array(OUTLIER_SHARES) * (outlier_share / sum(OUTLIER_SHARES))
    x = x * np.sqrt(shares) + 2 * np.sqrt(shares) * rng.choice((-1, 1), d)
    return (0.05 * x / np.linalg.norm(x, axis=1).mean()).astype(np.float32)


def make_embeddings(
    hooks: Mapping[str, np.ndarray],
    *,
    sources: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    labels: Mapping[str, Sequence[Any]] | None = None,
    texts: Sequence[str | None] | None = None,
    **facts: str,
) -> Embeddings:
    """In-memory embeddings; the default split is 70 % train, 15 % validation, 15 % test, in turn."""
    n = len(next(iter(hooks.values())))
    cycle = ["train"] * 14 + ["validation"] * 3 + ["test"] * 3
    columns = {
        "id": [f"meme-{i}" for i in range(n)],
        "source": list(sources) if sources is not None else ["one"] * n,
        "split": list(splits) if splits is not None else [cycle[i % 20] for i in range(n)],
        **({"text": list(texts)} if texts is not None else {}),
        **{name: list(values) for name, values in (labels or {}).items()},
        **{hook: x[:, None, :].astype(np.float32) for hook, x in hooks.items()},
    }
    features = Features(
        {name: Value("string") for name in ("id", "source", "split", *(["text"] if texts is not None else []))}
        | {name: Value(_kind(values)) for name, values in (labels or {}).items()}
        | {hook: Array2D((1, x.shape[1]), "float32") for hook, x in hooks.items()}
    )
    return Embeddings.from_dataset(Dataset.from_dict(columns, features=features), **facts)


def _kind(values: Sequence[Any]) -> str:
    return "string" if any(isinstance(value, str) for value in values) else "int64"
