"""The cross-modal weight of every latent: how alike the texts and the images of its strongest memes are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int, UInt8
from threadpoolctl import threadpool_limits

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.cross_modal.kernels import resampled_weights
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.result import nullable
from sae_lens_meme.hook_columns import require_finite
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.metrics.ranking import Ranked
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval, permutation_within

CHUNK = 64
"""Latents whose strongest memes are held in memory at once."""


@dataclass(frozen=True)
class SideHooks:
    """The hooks whose vectors are compared."""

    image: str = IMAGE_EMBED
    text: str = TEXT_EMBED

    def incomparable(self, embeddings: Embeddings) -> str | None:
        """Why the two sides have no cosine, or None."""
        if missing := [hook for hook in (self.image, self.text) if hook not in embeddings.hooks]:
            have = ", ".join(embeddings.hooks) or "none"
            return f"these embeddings have no {' and no '.join(missing)} (they have {have}); embed the corpus with them"
        if embeddings.d_in(self.image) != embeddings.d_in(self.text):
            return (
                f"{self.image} has {embeddings.d_in(self.image)} dimensions, {self.text} has "
                f"{embeddings.d_in(self.text)}: there is no cosine between them"
            )
        if self.text == TEXT_EMBED and embeddings.facts.get("fusion") == "memeclip":
            return f"{TEXT_EMBED} of fusion memeclip is not projected into the space of {self.image}"
        return None

    def unit(self, embeddings: Embeddings, rows: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors of both sides, float64 [n, d]; a zero vector stays zero."""
        return _unit(embeddings, self.image, rows), _unit(embeddings, self.text, rows)


@dataclass(frozen=True, eq=False)
class MemePairs:
    """Cosines of every meme's own image and text, and mean cosines between different train memes."""

    sides: SideHooks
    clip: Float64[np.ndarray, " n_samples"]
    """NaN where either vector is zero."""
    train: Int[np.ndarray, " n_train"]
    """Rows of the train memes that have a cosine, sorted by id, so row order does not matter."""
    sources: Int[np.ndarray, " n_train"]
    """A code of the source of each train meme."""
    own: Float64[np.ndarray, " n_sources"]
    """Mean cosine of a train meme's own image and text, by source."""
    between: Float64[np.ndarray, "n_sources n_sources"]
    """Mean cosine of the text of one train meme (row) and the image of another (column); NaN where there is none."""

    @classmethod
    def of(cls, embeddings: Embeddings, sides: SideHooks | None = None) -> MemePairs:
        """One pass over the embeddings.

        Raises:
            DataError: the sides have no cosine, or there are no train memes.
            NonFiniteError: an embedding is NaN or infinite; the message names the meme.
        """
        sides = sides or SideHooks()
        if why := sides.incomparable(embeddings):
            raise DataError(f"cross-modal weights: {why}")
        sources = embeddings.strata
        clip, images, texts = _sums(embeddings, sides, sources)
        train = train_by_id(embeddings)
        train = train[~np.isnan(clip[train])]
        if not len(train):
            raise DataError("cross-modal weights: there are no train memes with an image and a text embedding")
        sizes = np.bincount(sources[train], minlength=len(images))
        own_sums = np.bincount(sources[train], clip[train], minlength=len(images))
        n_pairs = np.outer(sizes, sizes) - np.diag(sizes)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.where(n_pairs > 0, (texts @ images.T - np.diag(own_sums)) / n_pairs, np.nan)
            return cls(sides, clip, train, sources[train], own_sums / sizes, between)

    @property
    def any_pair(self) -> float:
        """Mean cosine of the text of one train meme and the image of another, whatever their sources."""
        sizes = np.bincount(self.sources, minlength=len(self.own))
        return _weighted_mean(self.between, np.outer(sizes, sizes) - np.diag(sizes))

    @property
    def pair_within_source(self) -> float:
        """The same for two memes of one source."""
        sizes = np.bincount(self.sources, minlength=len(self.own))
        return _weighted_mean(np.diag(self.between), sizes * (sizes - 1))


@dataclass(frozen=True, eq=False)
class Weights:
    """omega of every latent and what it is made of; NaN where the latent fires on too few memes."""

    support: Int[np.ndarray, " d_sae"]
    """Train memes on which the latent exceeds delta."""
    omega: Float64[np.ndarray, " d_sae"]
    """Mean of the top x top cosines of text and image of the memes that activate the latent most."""
    paired: Float64[np.ndarray, " d_sae"]
    """Mean of those between a meme's own text and image (the memes' CLIP score)."""
    unpaired: Float64[np.ndarray, " d_sae"]
    """Mean of those between the text of one meme and the image of another."""
    chance: Float64[np.ndarray, " d_sae"]
    """omega expected of as many random train memes of the same sources."""
    replicates: Float64[np.ndarray, "replicates d_sae"]
    """omega on resampled train memes; NaN where too few of a latent's memes were drawn."""
    top: int
    min_support: int
    delta: float

    @property
    def corrected(self) -> Float64[np.ndarray, " d_sae"]:
        """(omega - chance) / (1 - chance); NaN where chance is 1."""
        room = 1 - self.chance
        return np.divide(self.omega - self.chance, room, out=np.full_like(room, np.nan), where=room > 0)

    @cached_property
    def interval(self) -> Float64[np.ndarray, "2 d_sae"]:
        """95 % percentile interval over the replicates."""
        if not len(self.replicates):
            return np.full((2, len(self.omega)), np.nan)
        return np.where(np.isnan(self.omega), np.nan, percentile_interval(self.replicates))

    def table(self) -> pd.DataFrame:
        """One row per latent; null where undefined."""
        low, high = self.interval
        columns = {"omega": self.omega, "low": low, "high": high, "chance": self.chance}
        columns |= {"omega_corrected": self.corrected, "paired": self.paired, "unpaired": self.unpaired}
        found = {name: nullable(column) for name, column in columns.items()}
        return pd.DataFrame({"latent": np.arange(len(self.omega)), "support": self.support, **found})


def cross_modal_weights(
    embeddings: Embeddings,
    latents: Latents,
    *,
    top: int = 5,
    min_support: int | None = None,
    delta: float = 0.0,
    n_bootstrap: int = 200,
    seed: int = 0,
    sides: SideHooks | None = None,
    pairs: MemePairs | None = None,
    shuffled: bool = False,
) -> Weights:
    """omega_f of Lou et al. 2025 (SAE-V), on the train memes.

    SAE-V takes tokens of two modalities: of the 30 that activate a latent most, the five strongest text tokens and the
    five strongest image tokens, and the mean of the 25 cosines of their hidden states. A fused embedding is of both
    modalities at once, so here the two sides are the text embedding and the image embedding of the `top` memes that
    activate the latent most (ties to the smaller id); memes without a cosine (a zero vector) take no part.

    Resamples draw train memes within source, groups whole; a meme drawn twice is not paired with itself. Which latents have enough
    support is decided on all train memes.

    Args:
        min_support: train memes on which a latent has to fire, default `top`.
        delta: a latent fires where its activation is larger.
        sides: the hooks to compare, default the image and the text embedding.
        pairs: what `MemePairs.of` made of these embeddings before.
        shuffled: control: each meme's embeddings are those of another meme of its source, drawn by `seed`.

    Raises:
        ConfigError: top is below 2, min_support below top, or delta negative.
        DataError: the embeddings have no two sides of one width, or no train memes.
    """
    min_support = top if min_support is None else min_support
    _require(top, min_support, delta, n_bootstrap)
    require_latents_of(latents, embeddings)
    pairs = pairs or MemePairs.of(embeddings, sides)
    most = 3 * top + 10 if n_bootstrap else top
    support, memes = _strongest(latents.rows(pairs.train), delta, most)
    groups = embeddings.groups[pairs.train]
    draws = _draws(pairs.sources, groups, n_bootstrap, seed)
    looked_up = np.arange(len(pairs.train))
    if shuffled:
        looked_up = permutation_within(pairs.sources, np.random.default_rng([seed, 1]), groups=groups)
    columns = np.full((4 + n_bootstrap, latents.d_sae), np.nan)
    measured = np.flatnonzero(support >= min_support)
    with threadpool_limits(1, user_api="blas"):  # many small products: threads would wait for each other
        for start in range(0, len(measured), CHUNK):
            chunk = measured[start : start + CHUNK]
            columns[:, chunk] = _measured(embeddings, pairs, looked_up, memes[chunk], support[chunk], draws, top)
    omega, paired, unpaired, chance = columns[:4]
    return Weights(support, omega, paired, unpaired, chance, columns[4:], top, min_support, delta)


def _require(top: int, min_support: int, delta: float, n_bootstrap: int) -> None:
    if top < 2:
        raise ConfigError(f"top is {top}; give 2 or more memes per latent, one meme is compared with itself alone")
    if min_support < top:
        raise ConfigError(f"min_support is {min_support}; give at least top, {top}")
    if not 0 <= delta < np.inf:
        raise ConfigError(f"delta is {delta}; give an activation, 0 or more")
    if n_bootstrap < 0:
        raise ConfigError(f"n_bootstrap is {n_bootstrap}; give 0 (no intervals) or more")


def _strongest(latents: Latents, delta: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """How many memes each latent fires on, and the strongest of them [d_sae, most] in descending order (0 beyond).

    Ties go to the earlier meme. Of 3 top + 10 memes a resample draws fewer than `top` with probability 2e-6 or less.
    """
    ranked = Ranked.of(latents.csr())
    fired = np.concatenate([[0], np.cumsum(ranked.values > delta)])
    support = np.diff(fired[ranked.starts])
    places = ranked.starts[:-1, None] + np.arange(most)
    inside = np.arange(most) < support[:, None]
    memes = np.zeros(places.shape, np.int64)
    memes[inside] = ranked.rows[places[inside]]
    return support, memes


def _draws(
    sources: np.ndarray, groups: np.ndarray, n_bootstrap: int, seed: int
) -> UInt8[np.ndarray, "n_train replicates"]:
    draws = np.empty((len(sources), n_bootstrap), np.uint8)  # a group is drawn about once: 255 times is out of reach
    for r, weights in enumerate(bootstrap_weights(sources, n_bootstrap, seed, groups)):
        draws[:, r] = weights
    return draws


def _measured(
    embeddings: Embeddings,
    pairs: MemePairs,
    looked_up: np.ndarray,
    memes: Int[np.ndarray, "latents most"],
    support: np.ndarray,
    draws: np.ndarray,
    top: int,
) -> Float[np.ndarray, "values latents"]:
    cosines = _cosines(embeddings, pairs, looked_up[memes])
    block = cosines[:, :top, :top]
    paired = np.einsum("fii->f", block) / top
    omega = block.mean(axis=(1, 2))
    unpaired = (top * omega - paired) / (top - 1)
    chance = _chance(pairs, pairs.sources[memes[:, :top]])
    n_memes = np.minimum(support, memes.shape[1])
    return np.vstack([omega, paired, unpaired, chance, resampled_weights(cosines, memes, n_memes, draws, top)])


def _cosines(
    embeddings: Embeddings, pairs: MemePairs, memes: Int[np.ndarray, "latents most"]
) -> Float64[np.ndarray, "latents most most"]:
    """Of the text of each of a latent's memes and the image of each."""
    once, place = np.unique(memes, return_inverse=True)  # latents share memes: each is read once
    image, text = pairs.sides.unit(embeddings, pairs.train[once])
    place = place.reshape(memes.shape)
    return text[place] @ image[place].transpose(0, 2, 1)


def _chance(pairs: MemePairs, sources: Int[np.ndarray, "latents top"]) -> Float64[np.ndarray, " latents"]:
    """The expected omega of distinct random memes with these sources."""
    top = sources.shape[1]
    between = pairs.between[sources[:, :, None], sources[:, None, :]]
    between[:, range(top), range(top)] = pairs.own[sources]
    return between.mean(axis=(1, 2))


def train_by_id(embeddings: Embeddings) -> Int[np.ndarray, " n_train"]:
    """Rows of the train memes in ascending order of id."""
    return embeddings.by_id[embeddings.splits[embeddings.by_id] == "train"]


def _sums(embeddings: Embeddings, sides: SideHooks, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The memes' own cosines, and sums of unit vectors over the train memes of each source."""
    clip = np.empty(len(embeddings))
    sums = np.zeros((2, sources.max(initial=-1) + 1, embeddings.d_in(sides.image)))
    train = embeddings.splits == "train"
    for start in range(0, len(embeddings), 1024):
        rows = np.arange(start, min(start + 1024, len(embeddings)))
        image, text = sides.unit(embeddings, rows)
        usable = image.any(axis=1) & text.any(axis=1)
        clip[rows] = np.where(usable, np.einsum("nd,nd->n", image, text), np.nan)
        for source in np.unique(sources[rows]):
            mine = usable & train[rows] & (sources[rows] == source)
            sums[0, source] += mine @ image
            sums[1, source] += mine @ text
    return clip, sums[0], sums[1]


def _unit(embeddings: Embeddings, hook: str, rows: np.ndarray) -> Float64[np.ndarray, "n d"]:
    x = embeddings.take(hook, rows).astype(np.float64)
    require_finite(x, hook, embeddings.ids, rows)
    norms = np.sqrt(np.einsum("nd,nd->n", x, x))
    return np.divide(x, norms[:, None], out=x, where=norms[:, None] > 0)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """NaN where nothing has weight."""
    counted = weights > 0
    return float(np.average(values[counted], weights=weights[counted])) if counted.any() else float("nan")
