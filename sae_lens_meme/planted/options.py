"""The options of planted memes and of planted vectors."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sae_lens_meme.options import Count, Options, Positive

PLAIN = "plain"
"""The world where nothing is superposed: that of the demo."""


class PlantedOptions(Options):
    """The section `corpus.planted` of a recipe."""

    section: ClassVar[str] = "corpus.planted"

    seed: Count = 0
    """Another seed draws other memes."""
    scale: Annotated[float, Field(gt=0, le=4)] = 1.0  # beyond it streams would share file names
    """Size of the corpus; 1.0: 6,035 memes, about a quarter of the three real data sets."""
    world: Literal["plain", "crowded"] = PLAIN
    """What is in the memes: plain, fewer values than the embedding has dimensions; crowded, five times as many (embed.model: crowded-encoder)."""


class VectorOptions(Options):
    """The section `embed.planted` of a recipe: vectors in place of memes and a model."""

    section: ClassVar[str] = "embed.planted"

    n_samples: Positive = 6000
    """Vectors, one per meme."""
    d_in: Annotated[int, Field(ge=8)] = 128
    """Dimensions, the three outlier dimensions among them."""
    n_factors: Positive = 256
    """Number of factors; with more factors than dimensions they are in superposition."""
    active: Annotated[float, Field(gt=0)] = 8.0
    """Mean number of factors that are true of a meme."""
    zipf: Annotated[float, Field(ge=0)] = 0.5
    """The rate of factor i is in proportion to (i + 1) ** -zipf; 0 makes all equally frequent."""
    children: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the factors that have a parent: such a factor is true of half of its parent's memes, and of no others."""
    correlated: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Correlation, in blocks of eight neighbours, of the normal scores that are thresholded into factors without a parent."""
    outlier_share: Annotated[float, Field(ge=0, lt=1)] = 0.64
    """Share of the variance in three dimensions: .64 as measured on memes with ViT-B/32, .27 photographs, .07 products; 0 leaves all dimensions alike."""
    noise: Annotated[float, Field(ge=0)] = 0.05
    """Standard deviation of the noise in each dimension; the direction of a factor has norm 1."""
    n_labels: Count = 8
    """Number of labels, each true where any of three factors is."""
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of the memes whose label is flipped."""
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the memes whose label is unknown."""
    group_size: Positive = 1
    """Memes in each group (a template): their vectors differ only by noise."""
    seed: Count = 0
    """Another seed draws other factors, directions and memes."""
