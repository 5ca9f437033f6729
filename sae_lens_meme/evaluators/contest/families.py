"""Memes that belong together (a template, a repost) are drawn together and permuted together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Real

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.metrics.bootstrap import bootstrap_weights


def groups_of(embeddings: Embeddings) -> Int[np.ndarray, " n"]:
    """The group of each meme as a code; each meme is its own where the embeddings name no groups."""
    groups = getattr(embeddings, "groups", None)
    if groups is None:
        return np.arange(len(embeddings))
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def resampled(embeddings: Embeddings, rows: np.ndarray, replicates: int, seed: int) -> Real[np.ndarray, "rows draws"]:
    """How often each of these memes is drawn, uint8: once in column 0, then in each of `replicates` bootstrap samples.

    As many groups as there are, with replacement, within the source of their first meme.
    """
    rows_by_id = embeddings.by_id[np.isin(embeddings.by_id, rows)]
    _, first, group = np.unique(groups_of(embeddings)[rows_by_id], return_index=True, return_inverse=True)
    strata = embeddings.strata[rows_by_id[first]]
    weights = np.ones((len(embeddings), replicates + 1), np.uint8)
    for i, drawn in enumerate(bootstrap_weights(strata, replicates, seed), start=1):
        weights[rows_by_id, i] = drawn[group]
    return weights[rows]


def permuted_rows(embeddings: Embeddings, generator: np.random.Generator) -> Int[np.ndarray, " n"]:
    """For each meme another whose labels it takes: whole groups change places with groups of the same size and sources."""
    to = np.arange(len(embeddings))
    groups, by_id = groups_of(embeddings), embeddings.by_id
    order = by_id[np.argsort(groups[by_id], kind="stable")]
    blocks = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    rank = np.argsort(by_id)
    alike: dict[tuple[int, ...], list[np.ndarray]] = {}
    for block in sorted(blocks, key=lambda block: rank[block[0]]):
        alike.setdefault(tuple(embeddings.strata[block].tolist()), []).append(block)
    for same in alike.values():
        for block, i in zip(same, generator.permutation(len(same)), strict=True):
            to[block] = same[i]
    return to
