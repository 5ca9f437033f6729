"""A score on held-out captions for a name that is more than a word: does a judge find the memes that fire by it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.external import by_id, generator_of, matched_rows, texts_of
from sae_lens_meme.evaluators.naming.memes import Memes
from sae_lens_meme.evaluators.result import nullable
from sae_lens_meme.metrics.contingency import FALSE, TRUE
from sae_lens_meme.metrics.ranking import Ranked, auroc, delong_interval

N_JUDGED = 20
"""Memes of each kind that a judge is asked about, at most."""

COLUMNS = ("judge_auroc", "judge_auroc_low", "judge_auroc_high", "judge_auroc_wrong_name")

Judge = Callable[[str, Sequence[str]], Sequence[float]]
"""From a name and captions to how well each caption fits the name: the larger, the better. Captions are untrusted text."""


def judge_columns(
    judge: Judge, named: dict[int, str], embeddings: Embeddings, latents: Latents, memes: Memes, seed: int
) -> dict[str, Any]:
    """COLUMNS for all latents, null for those without a name here.

    The control judges the same captions under the name of the next latent (null where all have one name).
    """
    scores = np.full((latents.d_sae, len(COLUMNS)), np.nan)
    called = list(named)
    for i, latent in enumerate(called):
        sample = judge_sample(embeddings, latents, memes, latent, seed)
        scores[latent, :3] = judged(judge, named[latent], embeddings, sample, latent)
        others = (named[other] for other in (*called[i + 1 :], *called[:i]))
        other = next((name for name in others if name != named[latent]), None)
        if other is not None:
            scores[latent, 3] = judged(judge, other, embeddings, sample, latent)[0]
    return {name: nullable(column) for name, column in zip(COLUMNS, scores.T, strict=True)}


def judge_sample(
    embeddings: Embeddings, latents: Latents, memes: Memes, latent: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out memes with captions in random order, and which of them fire: half of them, source by source."""
    fires = latents.csc()[:, [latent]].indices
    with_text = memes.held_out[[texts_of(embeddings)[row] is not None for row in memes.held_out]]
    rng = generator_of(seed, latent)
    firing = by_id(with_text[np.isin(with_text, fires)], embeddings)
    firing = rng.permutation(firing)[:N_JUDGED]
    silent = matched_rows(with_text[~np.isin(with_text, fires)], firing, embeddings, rng)
    rows = rng.permutation(np.concatenate([firing, silent]).astype(np.int64))
    return rows, np.isin(rows, firing)


def judged(
    judge: Judge, name: str, embeddings: Embeddings, sample: tuple[np.ndarray, np.ndarray], latent: int
) -> tuple[float, float, float]:
    """AUROC within source of the judge's scores against firing, with DeLong's interval; NaN without both kinds of memes.

    Detection scoring as by Bills et al. (2023) and Paulo et al. (2024), with a ranking in place of a threshold.

    Raises:
        DataError: the judge raises, or does not give one finite score a caption; the message names the latent.
    """
    rows, fires = sample
    if len(rows) == 0:
        return np.nan, np.nan, np.nan
    captions = [str(texts_of(embeddings)[row]) for row in rows]
    try:
        given = np.asarray(judge(name, captions), dtype=np.float64)
    except Exception as error:
        raise DataError(f"latent {latent}: the judge raised {type(error).__name__}: {error}") from error
    if given.shape != (len(rows),) or not np.isfinite(given).all():
        raise DataError(
            f"latent {latent}: the judge gave scores of shape {given.shape} for {len(rows)} captions, or NaN"
        )
    ranks = sparse.csc_matrix(rankdata(given)[:, None].astype(np.float32))
    codes = np.where(fires, np.uint8(TRUE), np.uint8(FALSE))[:, None]
    strata = np.unique(embeddings.sources[rows], return_inverse=True)[1]
    value, error = (float(part[0, 0]) for part in auroc(Ranked.of(ranks), codes, strata))
    low, high = delong_interval(value, error)
    return value, float(low), float(high)
