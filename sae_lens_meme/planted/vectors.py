"""Planted vectors: more sparse factors than dimensions, with the true directions kept.

A meme is a sparse sum of unit directions, so that a linear probe of every dimension reads many factors at once
(superposition, Elhage et al. 2022) and a dictionary has something to recover. Three outlier dimensions hold a share of
the variance, as in fused CLIP embeddings. Labels follow from factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from datasets import Array2D, Dataset, Features, Value
from jaxtyping import Bool, Float, Int
from pydantic import Field

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.options import Count, Options, Positive, Share

N_OUTLIERS = 3
KINDS = ("visual", "textual", "cross-modal")
"""The side that a factor is added to: picture, caption, or (shared) both."""
SPLITS = (("train", 0.7), ("validation", 0.15), ("test", 0.15))


class VectorOptions(Options):
    """How the vectors are drawn."""

    section: ClassVar[str] = "planted vectors"

    n_samples: Positive = 6000
    """Memes."""
    d_in: Annotated[int, Field(ge=8)] = 128
    """Dimensions, the outlier dimensions included."""
    n_factors: Positive = 256
    """Factors; more than dimensions is superposition."""
    active: Annotated[float, Field(gt=0)] = 8.0
    """Mean number of factors that are true of a meme."""
    zipf: Annotated[float, Field(ge=0)] = 0.5
    """Rate of factor i in proportion to (i + 1) ** -zipf; 0 makes all equally frequent."""
    children: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the factors that are true only where their parent is."""
    correlated: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Correlation of neighbouring factors, in blocks of eight, in the normal scores they are cut from."""
    outlier_share: Annotated[float, Field(ge=0, lt=1)] = 0.64
    """Share of the variance in three outlier dimensions: .64 for memes with ViT-B/32, .27 for photographs, .07 for products."""
    noise: Annotated[float, Field(ge=0)] = 0.05
    """Standard deviation of the noise of a dimension, where a direction has norm 1."""
    n_labels: Positive = 8
    """Labels, each true where any of three factors is, flipped in `label_noise` of the memes."""
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of the memes whose label is flipped."""
    missing: Share = 0.25
    """Share of the memes whose label is missing."""
    group_size: Positive = 1
    """Memes of a group (a template): they share every factor, and their vectors but for the noise."""
    seed: Count = 0


@dataclass(frozen=True, eq=False)
class PlantedVectors:
    """The vectors and everything that is true of them."""

    options: VectorOptions
    embeddings: Embeddings
    """`hook_image_embed`, `hook_text_embed` and `hook_fused`, their sum; labels `label_0` ...; sources, splits, groups."""
    truth: Bool[np.ndarray, "n n_factors"]
    activations: Float[np.ndarray, "n n_factors"]
    """How strongly a factor is present; 0 where it is not true."""
    directions: Float[np.ndarray, "n_factors d_in"]
    """Of `hook_fused`, as added (before the outlier dimensions are scaled up)."""
    kinds: dict[str, str]
    parents: Int[np.ndarray, " n_factors"]
    """Of each factor the factor that must be true for it, -1 where there is none."""

    @cached_property
    def factors(self) -> pd.DataFrame:
        """`id` and one column a factor, as an answer key has them."""
        return pd.DataFrame(self.truth, columns=list(self.kinds)).assign(id=self.embeddings.ids)


def planted_vectors(options: VectorOptions | None = None, **given: Any) -> PlantedVectors:
    """Draw the vectors; the same options give the same bytes.

    Raises:
        ConfigError: a wrong option, or factors that would be true of more than half of the memes.
    """
    options = options if options is not None else VectorOptions(**given)
    rng = np.random.default_rng(options.seed)
    parents = _parents(options, rng)
    truth = _truth(options, parents, rng)
    activations = truth * rng.gamma(4.0, 0.25, truth.shape)
    directions = _directions(options, rng)
    kinds = {f"factor_{i}": KINDS[i % 3] for i in range(options.n_factors)}
    sides = np.array([[kind != "textual", kind != "visual"] for kind in kinds.values()], dtype=np.float64)
    parts = [
        activations * (side / sides.sum(axis=1)) @ directions
        + options.noise * rng.normal(size=(len(truth), options.d_in))
        for side in sides.T
    ]
    columns = rng.choice(options.d_in, N_OUTLIERS, replace=False)
    image, text = (_with_outliers(part, columns, options.outlier_share) for part in parts)
    labels = _labels(options, truth, rng)
    embeddings = _embeddings(options, {IMAGE_EMBED: image, TEXT_EMBED: text, FUSED: image + text}, labels, rng)
    return PlantedVectors(options, embeddings, truth, activations, directions, kinds, parents)


def _parents(options: VectorOptions, rng: np.random.Generator) -> Int[np.ndarray, " n_factors"]:
    """The last factors are children, each of one of the others."""
    parents = np.full(options.n_factors, -1)
    first = options.n_factors - int(options.children * options.n_factors)
    parents[first:] = rng.integers(0, max(first, 1), options.n_factors - first)
    return parents


def _truth(options: VectorOptions, parents: np.ndarray, rng: np.random.Generator) -> Bool[np.ndarray, "n n_factors"]:
    """Which factors are true of which meme: normal scores, correlated within blocks, cut at each factor's rate."""
    rates = (np.arange(options.n_factors) + 1.0) ** -options.zipf
    rates *= options.active / rates.sum()
    if rates.max() > 0.5:
        raise ConfigError(
            f"planted vectors: factor 0 would be true of {rates.max():.0%} of the memes; lower active or zipf, or raise n_factors"
        )
    n_groups = -(-options.n_samples // options.group_size)
    own = rng.normal(size=(n_groups, options.n_factors))
    block = np.repeat(rng.normal(size=(n_groups, -(-options.n_factors // 8))), 8, axis=1)[:, : options.n_factors]
    scores = np.sqrt(1 - options.correlated) * own + np.sqrt(options.correlated) * block
    truth = np.empty(scores.shape, dtype=bool)
    for i in range(options.n_factors):  # parents come before their children
        truth[:, i] = scores[:, i] > np.quantile(scores[:, i], 1 - rates[i])
        if parents[i] >= 0:
            truth[:, i] = truth[:, parents[i]] & (own[:, i] > 0)
    return np.repeat(truth, options.group_size, axis=0)[: options.n_samples]


def _directions(options: VectorOptions, rng: np.random.Generator) -> Float[np.ndarray, "n_factors d_in"]:
    """Random unit vectors, that is, nearly orthogonal ones."""
    directions = rng.normal(size=(options.n_factors, options.d_in))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _with_outliers(x: np.ndarray, columns: np.ndarray, share: float) -> np.ndarray:
    """Three dimensions scaled and shifted until they hold that share of the variance, as fused CLIP vectors have them."""
    if share == 0:
        return x
    variance = x.var(axis=0)
    factor = np.sqrt(share / (1 - share) * (variance.sum() - variance[columns].sum()) / variance[columns].sum())
    out = x.copy()
    out[:, columns] = factor * (x[:, columns] + 2 * np.sqrt(variance[columns]))
    return out


def _labels(options: VectorOptions, truth: np.ndarray, rng: np.random.Generator) -> dict[str, list[int | None]]:
    labels = {}
    for i in range(options.n_labels):
        causes = rng.choice(options.n_factors, min(3, options.n_factors), replace=False)
        values = truth[:, causes].any(axis=1) ^ (rng.random(len(truth)) < options.label_noise)
        known = rng.random(len(truth)) >= options.missing
        labels[f"label_{i}"] = [int(value) if is_known else None for value, is_known in zip(values, known, strict=True)]
    return labels


def _embeddings(
    options: VectorOptions, hooks: dict[str, np.ndarray], labels: dict[str, list[int | None]], rng: np.random.Generator
) -> Embeddings:
    """Splits and sources are dealt to whole groups."""
    group = np.arange(options.n_samples) // options.group_size
    n_groups = int(group.max()) + 1
    names, shares = zip(*SPLITS, strict=True)
    splits = np.array(names)[np.searchsorted(np.cumsum(shares), rng.random(n_groups), side="right").clip(0, 2)]
    sources = np.array(["a", "b"])[rng.integers(0, 2, n_groups)]
    columns: dict[str, Any] = {
        "id": [f"vector-{i:06d}" for i in range(options.n_samples)],
        "source": sources[group].tolist(),
        "split": splits[group].tolist(),
        "group": [f"group-{g:06d}" for g in group],
        **labels,
        **{hook: x[:, None, :].astype(np.float32) for hook, x in hooks.items()},
    }
    features = Features(
        {name: Value("string") for name in ("id", "source", "split", "group")}
        | {name: Value("int64") for name in labels}
        | {hook: Array2D((1, options.d_in), "float32") for hook in hooks}
    )
    return Embeddings.from_dataset(Dataset.from_dict(columns, features=features), model="planted vectors", fusion="sum")
