"""Image and text embeddings of the same memes: their cosines, and what a random pair of memes has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED


@dataclass(frozen=True)
class Sides:
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

    sides: Sides
    clip: Float64[np.ndarray, " n_samples"]
    """NaN where either vector is zero."""
    train: Int[np.ndarray, " n_train"]
    """Rows of the train memes that have a cosine, by id: results do not hang on the order of the memes."""
    sources: Int[np.ndarray, " n_train"]
    """A code of the source of each train meme."""
    own: Float64[np.ndarray, " n_sources"]
    """Mean cosine of a train meme's own image and text, by source."""
    between: Float64[np.ndarray, "n_sources n_sources"]
    """Mean cosine of the text of one train meme (row) and the image of another (column); NaN where there is none."""

    @classmethod
    def of(cls, embeddings: Embeddings, sides: Sides | None = None) -> MemePairs:
        """One pass over the embeddings.

        Raises:
            DataError: the sides have no cosine, or there are no train memes.
            NonFiniteError: an embedding is NaN or infinite; the message names the meme.
        """
        sides = sides or Sides()
        if why := sides.incomparable(embeddings):
            raise DataError(f"cross-modal weights: {why}")
        sources = np.unique(embeddings.sources, return_inverse=True)[1]
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


def train_by_id(embeddings: Embeddings) -> Int[np.ndarray, " n_train"]:
    """Rows of the train memes in ascending order of id."""
    train = embeddings.rows("train")
    return train[np.argsort(embeddings.ids[train], kind="stable")]


def _sums(embeddings: Embeddings, sides: Sides, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    norms = np.sqrt(np.einsum("nd,nd->n", x, x))
    if not np.isfinite(norms).all():
        row = rows[np.flatnonzero(~np.isfinite(norms))[0]]
        raise NonFiniteError(
            f"embeddings, row {row} (id {str(embeddings.ids[row])!r}): {hook} has NaN or infinity; "
            "remove the meme or embed it again"
        )
    return np.divide(x, norms[:, None], out=x, where=norms[:, None] > 0)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """NaN where nothing has weight."""
    counted = weights > 0
    return float(np.average(values[counted], weights=weights[counted])) if counted.any() else float("nan")
