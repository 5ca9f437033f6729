"""What each meme scores, the best share of them as rows or as a dataset, and whether it is kept again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict
from jaxtyping import Float64, Int
from scipy import sparse
from scipy.stats import hypergeom, spearmanr

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.cross_modal.weights import MemePairs, Weights, train_by_id
from sae_lens_meme.evaluators.latents import Latents, require_latents_of

CRITERIA = ("sum", "mean", "clip", "l0")
COLUMN = "cross_modal_score"
AnyDataset = TypeVar("AnyDataset", Dataset, DatasetDict)
BLOCK = 16
"""Resamples whose scores are held in memory at once."""
NEGLIGIBLE = 1e-18
"""A probability that does not count."""


@dataclass(frozen=True, eq=False)
class ItemScores:
    """Scores of every meme of the embeddings, in their order; NaN where a meme has none."""

    ids: np.ndarray
    sources: np.ndarray
    train: Int[np.ndarray, " n_train"]
    """Rows of the train memes in ascending order of id: the memes to select from."""
    sum: Float64[np.ndarray, " n_samples"]
    """Sum of omega over the meme's active latents; those without a weight add nothing."""
    mean: Float64[np.ndarray, " n_samples"]
    """Mean of omega over the meme's active latents that have a weight: the sum grows with their number."""
    clip: Float64[np.ndarray, " n_samples"]
    """Cosine of the meme's own image and text embedding."""
    l0: Int[np.ndarray, " n_samples"]
    """Active latents of the meme."""
    groups: Int[np.ndarray, " n_samples"]
    """As `Embeddings.groups`."""

    def by(self, criterion: str) -> Float64[np.ndarray, " n_samples"]:
        """One of `CRITERIA`, the larger the better.

        Raises:
            DataError: there is no such score.
        """
        if criterion not in CRITERIA:
            raise DataError(f"score {criterion!r} is not one of {', '.join(CRITERIA)}")
        return np.asarray(getattr(self, criterion), dtype=np.float64)


def item_scores(
    embeddings: Embeddings, latents: Latents, weights: Weights, *, pairs: MemePairs | None = None
) -> ItemScores:
    """s_i of Lou et al. 2025 (SAE-V) for every meme: the sum of omega over its active latents, and their mean.

    In SAE-V a latent counts for an item where it is active on both a text token and an image token of it. A fused
    embedding is of both at once: a latent counts where it is active. Weights are of the train memes, so that
    the scores of other memes are scores of memes that the weights have not seen.

    Args:
        pairs: what `MemePairs.of` made of these embeddings before.
    """
    require_latents_of(latents, embeddings)
    if latents.d_sae != len(weights.omega):
        raise DataError(f"{len(weights.omega)} weights do not fit latents of d_sae {latents.d_sae}")
    pairs = pairs or MemePairs.of(embeddings)
    fires = active(latents, weights.delta)
    total, mean = sums_of(fires, weights.omega[:, None])
    return ItemScores(
        ids=embeddings.ids,
        sources=embeddings.sources,
        train=train_by_id(embeddings),
        sum=total[:, 0],
        mean=mean[:, 0],
        clip=pairs.clip,
        l0=np.diff(fires.indptr),
        groups=embeddings.groups,
    )


def active(latents: Latents, delta: float) -> sparse.csr_matrix:
    """float64 [n, d_sae]: 1 where a latent exceeds delta."""
    z = latents.csr()
    fires = sparse.csr_matrix(((z.data > delta).astype(np.float64), z.indices, z.indptr), shape=z.shape, copy=delta > 0)
    if delta > 0:
        fires.eliminate_zeros()
    return fires


def sums_of(
    fires: sparse.csr_matrix, omega: Float64[np.ndarray, "d_sae columns"]
) -> tuple[Float64[np.ndarray, "n columns"], Float64[np.ndarray, "n columns"]]:
    """Sums and means over the active latents of each meme that have a weight, of several sets of weights at once."""
    known = ~np.isnan(omega)
    total, count = fires @ np.where(known, omega, 0.0), fires @ known.astype(np.float64)
    return total, np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, over the memes that have both; NaN where either is constant."""
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return float(spearmanr(x, y).statistic)  # type: ignore[attr-defined]


def select(
    scores: ItemScores, share: float, *, by: str = "sum", within_source: bool = False
) -> Int[np.ndarray, " kept"]:
    """Rows of the train memes with the largest score, ascending.

    Ties go to the smaller id; memes without a score come last.

    Args:
        share: of the train memes to keep, above 0 and at most 1; rounded to whole memes, at least one.
        by: `sum`, `mean`, `clip` or `l0`.
        within_source: keep this share of each source, so that the filter does not choose between sources.

    Raises:
        ConfigError: the share is not one.
        DataError: there is no such score.
    """
    values = scores.by(by)[scores.train]
    return np.sort(scores.train[best(values, share, scores.sources[scores.train] if within_source else None)])


def best(values: Float64[np.ndarray, " n"], share: float, groups: np.ndarray | None = None) -> Int[np.ndarray, " kept"]:
    """Places of the largest values (of each group), ascending; ties go to the earlier place, NaN is last."""
    require_share(share)
    kept = []
    for group in (None,) if groups is None else np.unique(groups):
        mine = np.arange(len(values)) if group is None else np.flatnonzero(groups == group)
        kept.append(mine[np.argsort(-values[mine], kind="stable")[: n_kept(len(mine), share)]])
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def n_kept(n: int, share: float) -> int:
    """`share` of n, rounded, at least one of any."""
    return max(min(n, 1), round(share * n))


def filter_dataset(
    dataset: AnyDataset,
    scores: ItemScores,
    share: float,
    *,
    by: str = "sum",
    within_source: bool = False,
    column: str = COLUMN,
    key: str = "id",
) -> AnyDataset:
    """The dataset without the train memes that `select` leaves out, and with the score as a column.

    Validation and test memes stay. Nothing is copied: the result is a selection of the rows of `dataset`.

    Args:
        dataset: a corpus, one split of it, or the dataset of embeddings; memes are known by their `id`.
        column: name of the new column, null where a meme has no score.
        key: `item` for token rows: all rows of an item stay or go.

    Raises:
        ConfigError: the share is not one, or the dataset has the column already.
        DataError: a meme of the dataset has no scores, or one to keep is not in the dataset; the message names it.
    """
    kept = scores.ids[select(scores, share, by=by, within_source=within_source)]
    parts = dict(dataset) if isinstance(dataset, DatasetDict) else {"": dataset}
    rows_of = {str(meme): row for row, meme in enumerate(scores.ids)}
    rows = {name: _rows(part, rows_of, column, key) for name, part in parts.items()}
    here = np.concatenate([np.empty(0, np.int64), *rows.values()])
    _require_all(here, kept, scores, rows_of, once=key == "id")
    stays = ~np.isin(np.arange(len(scores.ids)), scores.train)
    stays[[rows_of[str(meme)] for meme in kept]] = True
    values = scores.by(by)
    found = {
        str(name): _with_column(part, column, values[rows[name]], np.flatnonzero(stays[rows[name]]))
        for name, part in parts.items()
    }
    return DatasetDict(found) if isinstance(dataset, DatasetDict) else found[""]  # type: ignore[return-value]


def require_share(share: float) -> None:
    """Raises ConfigError unless 0 < share <= 1."""
    if not 0 < share <= 1:
        raise ConfigError(f"share is {share}; give the share of train memes to keep, above 0 and at most 1")


def _rows(dataset: Dataset, rows_of: dict[str, int], column: str, key: str) -> Int[np.ndarray, " n"]:
    """The row in the scores of each meme of the dataset."""
    if key not in dataset.column_names:
        raise DataError(f"this dataset has no column {key!r}; it has {', '.join(dataset.column_names) or 'none'}")
    if column in dataset.column_names:
        raise ConfigError(f"this dataset has a column {column!r} already; give another column=")
    ids = [str(meme) for meme in dataset.with_format(None)[key]]
    if (unknown := next((meme for meme in ids if meme not in rows_of), None)) is not None:
        raise DataError(f"meme {unknown!r} has no score; give the dataset that the embeddings were made from")
    return np.array([rows_of[meme] for meme in ids], dtype=np.int64)


def _require_all(
    here: np.ndarray, kept: np.ndarray, scores: ItemScores, rows_of: dict[str, int], *, once: bool
) -> None:
    times = np.bincount(here, minlength=len(scores.ids))
    if once and (times > 1).any():
        raise DataError(f"meme {str(scores.ids[times.argmax()])!r} is in this dataset more than once")
    if (missing := next((str(meme) for meme in kept if not times[rows_of[str(meme)]]), None)) is not None:
        raise DataError(
            f"meme {missing!r} is to be kept but is not in this dataset; give the whole dataset that the embeddings "
            "were made from, or all of its train split"
        )


def _with_column(dataset: Dataset, column: str, values: np.ndarray, rows: np.ndarray) -> Dataset:
    """`add_column` would copy the rows of a dataset that is a selection already: the column goes to its base."""
    base, places = dataset, np.arange(len(dataset))
    if dataset._indices is not None:
        places = dataset._indices.column(0).to_numpy()
        base = copy.copy(dataset)
        base._indices = None
    full = np.full(len(base), np.nan)
    full[places] = values
    nullable = pa.array(full, from_pandas=True)  # NaN is null
    return base.add_column(column, nullable).select(places[rows])  # type: ignore[arg-type]


def kept_again(
    latents: Latents, scores: ItemScores, weights: Weights, share: float, within_source: bool = False
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    """For `sum` and `mean`: the share of the kept memes that is kept again with the weights of each resample.

    The memes that are scored stay the same; their weights are those of resampled train memes.
    """
    groups = scores.sources[scores.train] if within_source else None
    first = {by: np.zeros(len(scores.train), bool) for by in ("sum", "mean")}
    for by, kept in first.items():
        kept[best(scores.by(by)[scores.train], share, groups)] = True
    again: dict[str, list[float]] = {by: [] for by in first}
    for rescored in _rescored(latents, scores, weights):
        for by, values in rescored.items():
            again[by] += [float(first[by][best(column, share, groups)].mean()) for column in values.T]
    return {by: np.array(found) for by, found in again.items()}


def jaccard(share_kept: np.ndarray) -> np.ndarray:
    """Of two selections of one size, from the share of either that is in both."""
    return share_kept / (2 - share_kept)


def random_overlap(scores: ItemScores, share: float, within_source: bool = False) -> tuple[float, float]:
    """Expected share kept again and Jaccard index of two random selections of this size, exactly."""
    sources = scores.sources[scores.train] if within_source else np.zeros(len(scores.train), np.int64)
    sizes = np.unique(sources, return_counts=True)[1].tolist()
    kept = [n_kept(n, share) for n in sizes]
    both, first = np.ones(1), 0  # distribution of the number of memes in both selections, from its first value on
    for n, k in zip(sizes, kept, strict=True):
        place = np.arange(max(0, 2 * k - n), k + 1)
        mass = hypergeom.pmf(place, n, k, k)
        likely = mass > NEGLIGIBLE
        both, first = np.convolve(both, mass[likely]), first + int(place[likely][0])
    overlap = sum(k * k / n for n, k in zip(sizes, kept, strict=True)) / sum(kept)
    shared = (first + np.arange(len(both))) / sum(kept)
    return overlap, float(both @ jaccard(shared))


def _rescored(latents: Latents, scores: ItemScores, weights: Weights) -> Iterator[dict[str, np.ndarray]]:
    fires = active(latents, weights.delta)[scores.train]
    for start in range(0, len(weights.replicates), BLOCK):
        total, mean = sums_of(fires, weights.replicates[start : start + BLOCK].T.copy())
        yield {"sum": total, "mean": mean}
