"""SAE-V on tokens of two modalities: the cross-modal weight of each latent, and the scores of items computed from it.

Latents of tokens are a sparse matrix [tokens, d_sae]; a modality code (TEXT, IMAGE; others take no part) and an item
say what each token is and to what it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import sparse

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.hooks.positions import IMAGE, TEXT
from sae_lens_meme.metrics.directions import unit_rows

Take = Callable[[Int[np.ndarray, " rows"]], Float[np.ndarray, "rows d"]]
"""Hidden states of these tokens."""
Sparse = Any
"""scipy's csr_matrix, whose types are not known."""
CHUNK = 4096


def token_omega(
    z: Any,
    modality: Int[np.ndarray, " tokens"],
    take: Take,
    *,
    rule: Literal["code", "paper"] = "code",
    top: int = 30,
    side: int = 5,
    per_token: int | None = 50,
) -> Float64[np.ndarray, " d_sae"]:
    """omega of Lou et al. 2025 (SAE-V): mean cosine of the hidden states of a latent's text tokens and image tokens.

    The mean of side x side cosines is the dot product of two mean unit vectors, so that only tokens in a list are read.
    A token with activation 0 is in no list, and ties go to the earlier token.

    Args:
        z: latents of tokens, sparse [tokens, d_sae].
        modality: TEXT or IMAGE; tokens of any other code take no part.
        take: the hidden states of these rows.
        rule: `code`, the released one: of the `top` tokens that fire a latent most, the `side` strongest of each modality.
            `paper`: the `side` strongest of each modality, however far apart they fire it.
        per_token: the most active latents of a token that count; None for all.

    Returns:
        NaN where a latent has fewer than `side` tokens of either modality.

    Raises:
        ConfigError: an unknown rule, or a number below 1.
        DataError: there is not one modality a token, or a hidden state is not finite.
    """
    if rule not in ("code", "paper"):
        raise ConfigError(f"token weights: rule is {rule!r}, it must be 'code' or 'paper'")
    if min(top, side, per_token or 1) < 1:
        raise ConfigError(f"token weights: top {top}, side {side} and per_token {per_token} must be 1 or more")
    z = token_matrix(z, modality)
    z = z if per_token is None else keep_largest(z, per_token)
    row, latent = _descending(z)
    kind = np.asarray(modality)[row]
    if rule == "code":
        first = _rank(latent) < top
        row, latent, kind = row[first], latent[first], kind[first]
    lists = [_first(row[kind == code], latent[kind == code], side) for code in (TEXT, IMAGE)]
    counts = [np.bincount(of, minlength=z.shape[1]) for _, of in lists]
    measured = np.flatnonzero((counts[0] == side) & (counts[1] == side))
    omega = np.full(z.shape[1], np.nan)
    if len(measured):
        lists = [(r[np.isin(of, measured)], of[np.isin(of, measured)]) for r, of in lists]
        needed = np.unique(np.concatenate([r for r, _ in lists]))
        units = _units(needed, take)
        text, image = (_means(r, of, needed, measured, side) @ units for r, of in lists)
        omega[measured] = np.einsum("fd,fd->f", text, image)
    return omega


def token_chance(
    modality: Int[np.ndarray, " tokens"], take: Take, strata: Int[np.ndarray, " tokens"] | None = None
) -> float:
    """What omega is expected to be where a latent's tokens are random: the mean cosine of a text and an image token.

    Args:
        strata: of each token, such as its source; only pairs of one stratum count.

    Returns:
        NaN where there are no such pairs.
    """
    modality, strata = np.asarray(modality), np.zeros(len(modality), int) if strata is None else np.asarray(strata)
    total, pairs = 0.0, 0
    for stratum in np.unique(strata):
        text, image = (np.flatnonzero((modality == code) & (strata == stratum)) for code in (TEXT, IMAGE))
        if len(text) and len(image):
            total += float(_sum_of_units(text, take) @ _sum_of_units(image, take))
            pairs += len(text) * len(image)
    return total / pairs if pairs else float("nan")


def _sum_of_units(rows: np.ndarray, take: Take) -> Float64[np.ndarray, " d"]:
    parts = [_units(rows[start : start + CHUNK], take).sum(axis=0) for start in range(0, len(rows), CHUNK)]
    return np.sum(parts, axis=0)


class TokenItemScores(NamedTuple):
    """Of each item, in the order of `items`."""

    items: np.ndarray
    sum: Float64[np.ndarray, " items"]
    """Sum of omega over the item's latents: SAE-V's score. It grows with their number."""
    mean: Float64[np.ndarray, " items"]
    """The same over their number; NaN where none has a weight."""
    count: Int[np.ndarray, " items"]
    """The item's latents that have a weight."""
    l0: Int[np.ndarray, " items"]
    """The item's latents, with a weight or without: a score that knows nothing of cosines."""


def token_item_scores(
    z: Any,
    modality: Int[np.ndarray, " tokens"],
    item: Sequence[Any] | np.ndarray,
    omega: Float64[np.ndarray, " d_sae"],
    *,
    rule: Literal["cooccurrence", "any"] = "cooccurrence",
    delta: float = 1.0,
) -> TokenItemScores:
    """SAE-V's score of each item: the sum of omega over its latents; those without a weight add nothing.

    Args:
        z: latents of tokens, sparse [tokens, d_sae].
        item: of each token.
        rule: an item's latents are those active in a text token *and* an image token of it (`cooccurrence`), or in either.
        delta: a latent is active above it; it is in the units of the SAE's activations.

    Raises:
        ConfigError: an unknown rule, or delta is negative.
        DataError: there is not one modality, item and weight where there must be.
    """
    if rule not in ("cooccurrence", "any"):
        raise ConfigError(f"token scores: rule is {rule!r}, it must be 'cooccurrence' or 'any'")
    if not delta >= 0:
        raise ConfigError(f"token scores: delta is {delta}; give an activation, 0 or more")
    z = token_matrix(z, modality)
    omega = weights_for(omega, z)
    items, of = item_places(item, z)
    active: Sparse = sparse.csr_matrix(z > delta)
    text, image = (_of_items(active, of, np.asarray(modality) == code, len(items)) for code in (TEXT, IMAGE))
    mine = text.multiply(image).tocsr() if rule == "cooccurrence" else ((text + image) > 0).tocsr()
    mine = mine.astype(np.float64)
    known = ~np.isnan(omega)
    total, count = mine @ np.where(known, omega, 0.0), mine @ known.astype(np.float64)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return TokenItemScores(items, total, mean, count.astype(np.int64), np.diff(mine.indptr).astype(np.int64))


def kinds_of(modality: np.ndarray) -> Int[np.ndarray, " tokens"]:
    """TEXT, IMAGE or 0, by the names in the column `modality` of token rows."""
    return np.select([modality == "text", modality == "image"], [TEXT, IMAGE])


def keep_largest(z: Sparse, k: int) -> Sparse:
    """The k most active latents of each token; ties go to the smaller latent."""
    if z.getnnz(axis=1).max(initial=0) <= k:
        return z
    row = np.repeat(np.arange(z.shape[0]), np.diff(z.indptr))
    order = np.lexsort((z.indices, -z.data, row))
    kept = np.sort(order[_rank(row[order]) < k])
    return sparse.csr_matrix((z.data[kept], (row[kept], z.indices[kept])), shape=z.shape)


def text_latents(active: Sparse, of: np.ndarray, modality: np.ndarray, n_items: int) -> Sparse:
    """Which latents are active in a text token of each item."""
    return _of_items(active, of, np.asarray(modality) == TEXT, n_items)


def token_matrix(z: Any, modality: np.ndarray) -> Sparse:
    z = _csr(z)
    if len(modality) != z.shape[0]:
        raise DataError(f"token latents: {len(modality)} modalities for {z.shape[0]} tokens; give one each")
    if z.data.size and not z.data.min() >= 0:
        raise DataError(f"token latents: activation {z.data.min()} is negative or NaN; latents are 0 or more")
    z = z.copy()
    z.data[~np.isin(np.repeat(modality, np.diff(z.indptr)), (TEXT, IMAGE))] = 0
    z.eliminate_zeros()
    return z


def _csr(z: Any) -> Sparse:
    return sparse.csr_matrix(z)


def weights_for(omega: np.ndarray, z: Sparse) -> Float64[np.ndarray, " d_sae"]:
    if len(omega) != z.shape[1]:
        raise DataError(f"{len(omega)} weights do not fit latents of d_sae {z.shape[1]}")
    return np.asarray(omega, np.float64)


def item_places(item: Any, z: Sparse) -> tuple[np.ndarray, np.ndarray]:
    """The items, and the place among them of each token's."""
    if len(item) != z.shape[0]:
        raise DataError(f"token latents: {len(item)} items for {z.shape[0]} tokens; give one each")
    return np.unique(np.asarray(item), return_inverse=True)


def _of_items(active: Sparse, of: np.ndarray, mask: Bool[np.ndarray, " tokens"], n_items: int) -> Sparse:
    tokens = np.flatnonzero(mask)
    member = sparse.csr_matrix((np.ones(len(tokens), np.int64), (of[tokens], tokens)), shape=(n_items, len(of)))
    return sparse.csr_matrix((member @ active.astype(np.int64)) > 0)


def _descending(z: Sparse) -> tuple[np.ndarray, np.ndarray]:
    """Token and latent of each activation, latent by latent, the strongest first."""
    row = np.repeat(np.arange(z.shape[0]), np.diff(z.indptr))
    order = np.lexsort((row, -z.data, z.indices))
    return row[order], z.indices[order].astype(np.int64)


def _rank(sorted_groups: np.ndarray) -> Int[np.ndarray, " n"]:
    """0, 1, 2, ... within each run of equal values."""
    places = np.arange(len(sorted_groups))
    if not len(places):
        return places
    starts = np.flatnonzero(np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]]))
    return places - np.repeat(starts, np.diff(np.append(starts, len(places))))


def _first(row: np.ndarray, latent: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    kept = _rank(latent) < n
    return row[kept], latent[kept]


def _units(rows: np.ndarray, take: Take) -> Float64[np.ndarray, "rows d"]:
    """Unit vectors; a zero vector stays zero."""
    h = np.concatenate([np.asarray(take(rows[s : s + CHUNK]), np.float64) for s in range(0, len(rows), CHUNK)])
    if not np.isfinite(h).all():
        raise DataError(f"token {int(rows[~np.isfinite(h).all(axis=1)][0])}: its hidden state is NaN or infinite")
    return unit_rows(h)


def _means(row: np.ndarray, latent: np.ndarray, needed: np.ndarray, measured: np.ndarray, side: int) -> Any:
    """[measured, needed]: the mean over the `side` tokens of each latent."""
    places = (np.searchsorted(measured, latent), np.searchsorted(needed, row))
    return sparse.csr_matrix((np.full(len(row), 1 / side), places), shape=(len(measured), len(needed)))
