"""SAE-V on token rows: the weight of each latent from its text tokens and its image tokens, and the scores of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.cross_modal.quantities import TOKEN_COLUMNS, TOKEN_WEIGHTS
from sae_lens_meme.evaluators.cross_modal.selection import ItemScores, rank_correlation
from sae_lens_meme.evaluators.cross_modal.tokens import (
    Sparse,
    Take,
    kinds_of,
    token_chance,
    token_item_scores,
    token_omega,
)
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Measure, Result, Section, nullable, of_known
from sae_lens_meme.hooks.positions import IMAGE, TEXT
from sae_lens_meme.metrics.resampling import permutation_within

SECTION = Section(
    "SAE-V: cosine of the text tokens and the image tokens that fire a latent most, train tokens",
    "chance: any text token and any image token of one source; permuted: each picture's activations given to another of its source",
)
DRAWS = 20
"""Permutations."""


class TokenRows(NamedTuple):
    """Which modality each token row is of, to which item it belongs, and the train rows that weights are made of."""

    kind: Int[np.ndarray, " tokens"]
    item: np.ndarray
    train: Int[np.ndarray, " train"]
    """Rows of the train tokens that are text or part of a picture."""

    @classmethod
    def of(cls, embeddings: Embeddings) -> TokenRows:
        """
        Raises:
            Unavailable: the train tokens are of one of the two kinds.
        """
        columns = embeddings.dataset.with_format(None)
        modality = np.array(columns["modality"], dtype=str)
        kind = kinds_of(modality)
        train = np.flatnonzero((embeddings.splits == "train") & np.isin(kind, (TEXT, IMAGE)))
        if not {TEXT, IMAGE} <= set(kind[train].tolist()):
            found = ", ".join(sorted(set(modality[embeddings.splits == "train"].tolist()))) or "none"
            raise Unavailable(f"a weight compares text tokens with image tokens; the train tokens are: {found}")
        return cls(kind, np.array(columns["item"], dtype=str), train)


class TrainTokens(NamedTuple):
    """The latents of the train tokens, and what is read of their hidden states."""

    z: Sparse
    kind: Int[np.ndarray, " tokens"]
    item: np.ndarray
    source: Int[np.ndarray, " tokens"]
    group: Int[np.ndarray, " tokens"]
    take: Take

    @classmethod
    def of(cls, rows: TokenRows, embeddings: Embeddings, latents: Latents, hook: str) -> TrainTokens:
        def take(places: np.ndarray) -> np.ndarray:
            return embeddings.take(hook, rows.train[places])

        kind, item, source, group = (
            column[rows.train] for column in (rows.kind, rows.item, embeddings.strata, embeddings.groups)
        )
        return cls(latents.csr()[rows.train], kind, item, source, group, take)


def scores_of_tokens(embeddings: Embeddings, latents: Latents, hook: str, *, delta: float) -> ItemScores:
    """SAE-V's score of each item of token rows, of all splits; weights are of the tokens of train items.

    Raises:
        Unavailable: the train tokens are of one kind.
    """
    rows = TokenRows.of(embeddings)
    tokens = TrainTokens.of(rows, embeddings, latents, hook)
    omega = token_omega(tokens.z, tokens.kind, tokens.take)
    found = token_item_scores(latents.csr(), rows.kind, rows.item, omega, delta=delta)
    first = np.unique(rows.item, return_index=True)[1]
    return ItemScores(
        ids=found.items,
        sources=embeddings.sources[first],
        train=np.flatnonzero(embeddings.splits[first] == "train"),
        sum=found.sum,
        mean=found.mean,
        clip=np.full(len(first), np.nan),
        l0=found.l0,
        groups=embeddings.groups[first],
    )


def of_tokens(embeddings: Embeddings, latents: Latents, hook: str, *, delta: float, seed: int) -> Result:
    """SAE-V's weight and score as released (`token_omega`, `token_item_scores`), beside permuted pictures.

    Args:
        delta: a latent is active in a picture above it.

    Raises:
        Unavailable: the train tokens are of one kind.
    """
    z, kind, item, source, _, take = tokens = TrainTokens.of(TokenRows.of(embeddings), embeddings, latents, hook)
    omega = token_omega(z, kind, take)
    permuted = np.array(
        [of_known(np.median, token_omega(z[order], kind, take)) for order in permuted_pictures(tokens, seed)],
        dtype=float,
    )
    chance = token_chance(kind, take, source)
    scores = token_item_scores(z, kind, item, omega, delta=delta)
    measures = _measures(tokens, omega, permuted, chance)
    measures.append(TOKEN_WEIGHTS["score/spearman_l0"](rank_correlation(scores.sum, scores.l0)))
    table = pd.DataFrame({"latent": np.arange(z.shape[1]), **_support(z, kind), "omega": nullable(omega)})
    return Result("cross_modal", SECTION, tuple(measures), table, TOKEN_COLUMNS, _verdict(omega, permuted, chance))


def permuted_pictures(tokens: TrainTokens, seed: int) -> Iterator[Int[np.ndarray, " tokens"]]:
    """For each token one of the same kind whose activations it gets, `DRAWS` times.

    Tokens of one picture are not independent evidence: the activations of a picture and its text go together to another
    picture of the source, as those of a meme do in `cross_modal_weights`, and keep their order. Where the other picture has fewer
    tokens or more, they go to the token at the same share of the way: some are given twice or left out.
    """
    items, first, picture = np.unique(tokens.item, return_index=True, return_inverse=True)
    has = [np.bincount(picture[tokens.kind == code], minlength=len(items)) > 0 for code in (TEXT, IMAGE)]
    alike = 4 * tokens.source[first] + 2 * has[0] + has[1]
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        other = permutation_within(alike, rng, groups=tokens.group[first])
        order = np.arange(len(tokens.kind))
        for code in (TEXT, IMAGE):
            mine = np.flatnonzero(tokens.kind == code)
            mine = mine[np.argsort(picture[mine], kind="stable")]
            of, n = picture[mine], np.bincount(picture[mine], minlength=len(items))
            start = n.cumsum() - n
            place = np.arange(len(mine)) - start[of]
            order[mine] = mine[start[other[of]] + place * n[other[of]] // n[of]]
        yield order


def _measures(
    tokens: TrainTokens, omega: Float64[np.ndarray, " d_sae"], permuted: np.ndarray, chance: float
) -> list[Measure]:
    n, silent = int((~np.isnan(omega)).sum()), int((np.diff(tokens.z.tocsc().indptr) == 0).sum())
    counts = {
        "tokens/text": int((tokens.kind == TEXT).sum()),
        "tokens/image": int((tokens.kind == IMAGE).sum()),
        "pictures/train": len(np.unique(tokens.item)),
        "latents/silent": silent,
        "latents/one_kind": len(omega) - n - silent,
        "latents/with_weight": n,
    }
    few = "no latent has five text tokens and five image tokens among the 30 that fire it most"
    known = permuted[~np.isnan(permuted)]
    control = TOKEN_WEIGHTS["omega/median_permuted"](
        known.mean() if len(known) else None, reason="no permuted latent has a weight"
    )
    beside = TOKEN_WEIGHTS["omega/median_chance"](chance)
    median = TOKEN_WEIGHTS["omega/median"](of_known(np.median, omega), reason=few)
    if median.value is not None:
        label = f"median weight of {n} latents"
        median = median.row(label, control.control("permuted"), beside.control("chance"), section=SECTION)
    return [*(TOKEN_WEIGHTS[key](value) for key, value in counts.items()), median, control, beside]


def _support(z: Sparse, kind: np.ndarray) -> dict[str, np.ndarray]:
    active = z > 0
    return {
        name: np.asarray(active[kind == code].sum(axis=0)).ravel().astype(np.int64)
        for name, code in (("text_tokens", TEXT), ("image_tokens", IMAGE))
    }


def _verdict(omega: np.ndarray, permuted: np.ndarray, chance: float) -> str:
    n, median = int((~np.isnan(omega)).sum()), of_known(np.median, omega)
    if median is None:
        return "SAE-V's weight is defined for no latent: none is fired by enough text tokens and image tokens."
    known = permuted[~np.isnan(permuted)]
    above = int((known < median).sum())
    told = f"above {above} of {len(known)} permutations" if len(known) else "permuted pictures give no weight"
    return (
        f"SAE-V's weight is defined for {n} of {len(omega)} latents, with a median of {median:.2f} "
        f"(any two tokens of one source: {chance:.2f}), {told}."
    )
