"""Small memes, an SAE, and a context from which every registered evaluator is made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from arrays import anisotropic, make_embeddings
from datasets import Dataset
from tiny_sae import tiny_sae

from sae_lens_meme.attributions import FEATURES, Attributions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators import EvaluateOptions, encode
from sae_lens_meme.evaluators.context import Context

FEW = {
    "concept_alignment": {"n_bootstrap": 5},
    "contest": {"controls": ["neurons", "pca", "random"], "n_permutations": 1, "ks": [1, 2], "ns": [1, 5]},
    "baselines": {"raw": ["neurons", "pca", "random_topk"], "n_permutations": 1},
    "subgroups": {"min_support": 3, "n_matched": 3, "n_permutations": 2, "words": {"pets": ["cat", "dog"]}},
    "monosemanticity": {"min_support": 3, "n_permutations": 19},
    "cross_modal": {"shares": [0.25, 0.5]},
    "attribution": {"min_auroc": 0.5, "n_bootstrap": 5},
}
"""Options with which the whole suite takes seconds."""


def small_memes() -> tuple[np.ndarray, Embeddings]:
    """Fused vectors, and memes with both modalities, captions, missing labels, two sources and three splits."""
    rng = np.random.default_rng(0)
    image, text = anisotropic(400, 16, rng), anisotropic(400, 16, rng)
    x = _unit(image) * _unit(text)
    hate = [int(v) if i % 5 else None for i, v in enumerate(x[:, 4] + x[:, 5] > x[:, 4].mean() + x[:, 5].mean())]
    labels = {"hate": hate, "humor": rng.integers(0, 4, 400).tolist(), "always": [1] * 400}
    words = np.array(["cat", "dog", "rain", "sun", "tea"])
    texts = [
        " ".join(words[row > np.median(text[:, 3:8], axis=0)]) if i % 9 else None for i, row in enumerate(text[:, 3:8])
    ]
    hooks = {"hook_image_embed": image, "hook_text_embed": text, "hook_fused": x}
    return x, make_embeddings(hooks, labels=labels, sources=["a", "b"] * 200, texts=texts, fusion="clip")


def small_context(x: np.ndarray, embeddings: Embeddings) -> Context:
    """As `evaluate` makes it, with an SAE of another seed, a shuffled control and an answer key of one factor."""
    sae = tiny_sae(x, d_sae=24, k=4)
    hate = embeddings.label("hate")
    factors = pd.DataFrame({"id": embeddings.ids, "hot": hate.known & (hate.values == 1)})
    options = EvaluateOptions(
        bootstrap=5, stability_seeds=1, answer_key=Path("key"), attribution=Path("a"), evaluators=FEW
    )
    shuffled = np.random.default_rng(1).permuted(x, axis=0)
    return Context(
        *(sae, embeddings, encode(sae, embeddings), options),
        train_shuffled=lambda: tiny_sae(shuffled, d_sae=24, k=4),
        train_seed=lambda i: tiny_sae(x, d_sae=24, k=4, seed=i),
        answer_key=SimpleNamespace(factors=factors, kinds={"hot": "visual"}, places=small_places(embeddings)),
        attributions=small_attributions(embeddings, 24),
    )


def small_places(embeddings: Embeddings) -> pd.DataFrame:
    """The factor is drawn in the upper left quarter of every picture."""
    box = {"x0": 0.0, "y0": 0.0, "x1": 0.5, "y1": 0.5, "word_start": None, "word_end": None}
    return pd.DataFrame([{"id": identity, "factor": "hot", "value": "True", **box} for identity in embeddings.ids])


def small_attributions(embeddings: Embeddings, d_sae: int) -> Attributions:
    """Random scores of every latent on every fifth meme."""
    rng = np.random.default_rng(0)
    rows = [
        dict.fromkeys(FEATURES)
        | {"latent": latent, "id": str(embeddings.ids[i]), "kind": "top", "rank": 0}
        | {"word_scores": [], "patch_scores": rng.standard_normal(49).tolist()}
        for i in range(0, len(embeddings), 5)
        for latent in range(d_sae)
    ]
    columns = {name: [row[name] for row in rows] for name in FEATURES}
    return Attributions(Dataset.from_dict(columns, features=FEATURES), {"latents": list(range(d_sae)), "grid": 7})


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
