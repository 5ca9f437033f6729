"""The flat numbers of a comparison of filters, undefined ones with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sae_lens_meme.evaluators.cross_modal.comparison import Aurocs, Comparison
from sae_lens_meme.evaluators.cross_modal.numbers import Numbers, Reasons, with_reasons
from sae_lens_meme.evaluators.cross_modal.scores import CRITERIA
from sae_lens_meme.metrics.bootstrap import percentile_interval

LEVELS = ("auroc", "auroc_within_source")
NO_DRAWS = "there is no random selection to compare with: n_random is 0, or none has every class"

Line = tuple[str, Any, str]
"""Key, value, and the reason in case that the value is NaN."""


def comparison_numbers(task: str, n_held_out: int, found: Comparison) -> tuple[Numbers, Reasons]:
    """AUROCs on the held-out memes, and their differences to the mean of the random selections."""
    lines = list(_lines(task, n_held_out, found))
    return with_reasons({key: value for key, value, _ in lines}, {key: reason for key, _, reason in lines})


def comparison_keys(task: str, shares: Sequence[float]) -> list[str]:
    """The keys of `comparison_numbers`."""
    nothing = np.full((2, 1), np.nan)
    by_score: dict[tuple[float, str], Aurocs | str] = {(s, by): "" for s in shares for by in CRITERIA}
    empty = Comparison(0, nothing, dict.fromkeys(shares, 0), by_score, dict.fromkeys(shares, np.empty((0, 2, 1))))
    return [key for key, _, _ in _lines(task, 0, empty)]


def _lines(task: str, n_held_out: int, found: Comparison) -> Iterator[Line]:
    one_class = (
        f"all {n_held_out} held-out rows are of one class",
        f"the {n_held_out} held-out rows of each source are of one class",
    )
    undefined = one_class if n_held_out else ("no known test or validation rows",) * 2
    yield f"{task}/n_train", found.n_train, ""
    yield from _levels(f"{task}/all", found.everything, undefined)
    for share, n_kept in found.n_kept.items():
        at, draws = f"{task}/keep_{share:g}", found.random[share]
        yield f"{at}/n_kept", n_kept, ""
        yield from _random(f"{at}/random", draws, undefined)
        for by in CRITERIA:
            mine = found.by_score[share, by]
            aurocs = np.full_like(found.everything, np.nan) if isinstance(mine, str) else mine
            why = (mine, mine) if isinstance(mine, str) else undefined
            yield from _levels(f"{at}/{by}", aurocs, why)
            yield from _differences(f"{at}/{by}", aurocs, draws, why)


def _levels(at: str, aurocs: Aurocs, why: Sequence[str]) -> Iterator[Line]:
    for i, level in enumerate(LEVELS):
        yield f"{at}/{level}", aurocs[i, 0], why[i]


def _random(at: str, draws: np.ndarray, why: Sequence[str]) -> Iterator[Line]:
    for i, level in enumerate(LEVELS):
        each = draws[:, i, 0] if len(draws) else np.full(1, np.nan)
        reason = why[i] if len(draws) else NO_DRAWS
        yield f"{at}/{level}", each.mean(), reason
        yield f"{at}/{level}_lowest", each.min(), reason
        yield f"{at}/{level}_highest", each.max(), reason


def _differences(at: str, aurocs: Aurocs, draws: np.ndarray, why: Sequence[str]) -> Iterator[Line]:
    difference = aurocs - draws.mean(axis=0) if len(draws) else np.full_like(aurocs, np.nan)
    for i, level in enumerate(LEVELS):
        key, resampled = f"{at}/{level}_minus_random", difference[i, 1:]
        low, high = percentile_interval(resampled) if len(resampled) else (np.nan, np.nan)
        reason = why[i] if np.isnan(aurocs[i, 0]) else NO_DRAWS
        yield key, difference[i, 0], reason
        reason = reason if np.isnan(difference[i, 0]) else "n_bootstrap is 0: no intervals"
        yield f"{key}_low", low, reason
        yield f"{key}_high", high, reason
