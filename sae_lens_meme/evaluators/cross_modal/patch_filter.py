"""Whether a patch filter keeps the right patches: each score beside as many random patches, a CLIP score and L0.

What is compared is one number an item and a filter: the share of known right patches that it keeps, or whether a
classifier still answers rightly when the other patches are blanked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.cross_modal.patches import blank, keep_patches
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable
from sae_lens_meme.metrics.bootstrap import bootstrap_weights, percentile_interval

Scores = Mapping[str, Float64[np.ndarray, "items grid grid"]]
"""By the name of the filter."""
Outcome = Callable[[Bool[np.ndarray, "items grid grid"]], Float64[np.ndarray, " items"]]
"""What each item gives where these cells are kept; NaN where that is undefined."""
PICTURE = "whole picture"
PLAIN = ("CLIP score", "L0")
"""Filters that know nothing of cross-modal weights, shown beside every other."""
_NOT_DEFINED = "no item has this outcome"


def kept_right(right: Bool[np.ndarray, "items grid grid"]) -> Outcome:
    """Share of the right patches of each item that are kept; NaN where it has none."""

    def outcome(keep: Bool[np.ndarray, "items grid grid"]) -> Float64[np.ndarray, " items"]:
        n = right.sum(axis=(1, 2))
        return np.divide((keep & right).sum(axis=(1, 2)), n, out=np.full(len(n), np.nan), where=n > 0)

    return outcome


def still_classified(
    classify: Callable[[Any], Sequence[Any] | np.ndarray],
    pixels: Any,
    labels: Sequence[Any] | np.ndarray,
    fill: float = 0.0,
) -> Outcome:
    """1 where the classifier's answer to the picture with the other patches blanked is the item's label, else 0.

    Args:
        classify: pixels [items, channels, height, width] to answers.
        fill: what blanked pixels are.
    """
    labels = np.asarray(labels)

    def outcome(keep: Bool[np.ndarray, "items grid grid"]) -> Float64[np.ndarray, " items"]:
        answers = np.asarray(classify(blank(pixels, keep, fill)))
        if answers.shape != labels.shape:
            raise DataError(f"patch filter: {answers.shape} answers for {labels.shape} labels; give one a picture")
        return (answers == labels).astype(np.float64)

    return outcome


def compare_patch_filters(
    scores: Scores,
    outcome: Outcome,
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    groups: Int[np.ndarray, " items"] | None = None,
    n_random: int = 8,
    n_bootstrap: int = 200,
    seed: int = 0,
    what: str = "share of the right patches that are kept",
) -> Result:
    """Mean outcome of each filter minus that of as many random patches, with 95 % intervals over items.

    Every filter keeps exactly as many patches as the random ones; the draws of the latter are averaged by item.

    Args:
        scores: what each filter is, such as {"SAE-V": ..., "CLIP score": ..., "L0": ...}; a larger score is kept first.
        outcome: `kept_right`, or `still_classified`.
        shares: of the patches to keep.
        groups: items of one group (crops, copies) are resampled together; default each item is its own.
        n_random: random selections.

    Returns:
        A row for each filter and share, and a table of the outcomes of each item.

    Raises:
        ConfigError: no filter, no share, or no random selection.
        DataError: the filters are of different pictures.
    """
    shapes = {np.shape(values) for values in scores.values()}
    if not scores or not shares or n_random < 1:
        raise ConfigError("patch filter: give scores, shares and n_random of 1 or more")
    if len(shapes) > 1 or len(shape := shapes.pop()) != 3:
        raise DataError(
            f"patch filter: scores of {', '.join(scores)} are not all [items, grid, grid] of the same items"
        )
    section = Section(
        f"Patch filter: {what}, minus that of as many random patches",
        f"filter, random, CLIP score, L0: means over items; {PICTURE}: nothing blanked; intervals over items, groups whole",
    )
    whole = outcome(np.ones(shape, bool))
    measures, tables, wins = [Measure("n_items", shape[0], "items whose pictures are filtered")], [], 0
    compared = 0
    for share in shares:
        found = _outcomes(scores, outcome, share, n_random, seed)
        tables.append(_table(found, share))
        means = {name: _mean(values) for name, values in found.items()} | {PICTURE: _mean(whole)}
        ends = _intervals(found, groups, n_bootstrap, seed)
        for name in scores:
            made = _of_filter(name, share, means, ends[name], what, n_bootstrap, section)
            measures += made
            difference = next(m for m in made if m.section is not None or m.key.endswith("minus_random"))
            if name not in PLAIN and difference.interval and difference.interval.low is not None:
                compared += 1
                wins += difference.interval.low > 0
        measures.append(_QUANTITY(means["random"], f"keep_{share:g}/random", rows=_RANDOM, reason=_NOT_DEFINED))
    measures.append(_QUANTITY(_mean(whole), PICTURE.replace(" ", "_"), reason=_NOT_DEFINED))
    table = pd.concat(tables, ignore_index=True)
    verdict = _verdict(measures, scores, shares, wins, compared)
    return Result("patch_filter", section, tuple(measures), table, _COLUMNS, verdict)


_QUANTITY = Quantity("outcome", "mean over items of the outcome", _NOT_DEFINED)
_DIFFERENCE = Quantity(
    "minus_random", "mean outcome minus that of as many random patches, paired by item", _NOT_DEFINED
)
_RIVAL = Quantity(
    "minus_best_plain", "mean outcome minus that of the better of CLIP score and L0, paired by item", _NOT_DEFINED
)
_RANDOM = "control: random patches, the mean of the draws"
_OVER_ITEMS = "percentile bootstrap over items, groups whole, the random draws held fixed"
_COLUMNS = {
    "share": "of the patches that are kept",
    "item": "place of the item, in the order of the scores",
    "filter": "whose patches are kept; random: mean of the draws",
    "outcome": "see the section's title; null where the item has none",
}


def _outcomes(scores: Scores, outcome: Outcome, share: float, n_random: int, seed: int) -> dict[str, np.ndarray]:
    """By filter, and of random patches: one a item."""
    rng = np.random.default_rng(seed)
    found = {name: outcome(keep_patches(np.asarray(values, np.float64), share, rng)) for name, values in scores.items()}
    nothing = np.zeros(np.shape(next(iter(scores.values()))))
    draws = [outcome(keep_patches(nothing, share, rng)) for _ in range(n_random)]
    return found | {"random": np.mean(draws, axis=0)}


def _intervals(
    found: dict[str, np.ndarray], groups: np.ndarray | None, n_bootstrap: int, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Low and high of each filter's differences to random and to the better plain filter."""
    n = len(found["random"])
    weights = list(bootstrap_weights(np.zeros(n, np.int64), n_bootstrap, seed, groups))
    drawn = np.array(weights).reshape(len(weights), n)
    ends: dict[str, dict[str, np.ndarray]] = {}
    for name, values in found.items():
        rivals = {
            "random": found["random"],
            **({"plain": plain} if (plain := _best_plain(found, name)) is not None else {}),
        }
        ends[name] = {}
        for rival, others in rivals.items():
            difference = values - others
            known = ~np.isnan(difference)
            size = drawn[:, known].sum(axis=1)
            total = drawn[:, known] @ difference[known]
            replicates = np.divide(total, size, out=np.full(len(size), np.nan), where=size > 0)
            ends[name][rival] = np.array([difference[known].mean() if known.any() else np.nan, *_ends(replicates)])
    return ends


def _ends(replicates: np.ndarray) -> np.ndarray:
    return percentile_interval(replicates) if len(replicates) else np.full(2, np.nan)


def _best_plain(found: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    plain = [found[other] for other in PLAIN if other in found and other != name]
    return max(plain, key=lambda values: _mean(values) or -np.inf) if plain else None


def _of_filter(
    name: str, share: float, means: dict[str, float | None], ends: dict[str, np.ndarray], what: str, n_bootstrap: int,
    section: Section,
) -> list[Measure]:  # fmt: skip
    at = f"keep_{share:g}/{name.replace(' ', '_')}"
    why = None if n_bootstrap else "n_bootstrap is 0: no intervals"
    rows = f"outcome: {what}; best {share:.0%} of the patches by {name}"
    made = [_QUANTITY(means[name], at, rows=rows)]
    for rival, quantity in (("random", _DIFFERENCE), ("plain", _RIVAL)):
        if rival in ends:
            value, low, high = ends[rival]
            made.append(quantity(value, at, rows=rows, interval=Interval(low, high, _OVER_ITEMS, why)))
    beside = {"filter": means[name], "random": means["random"], **{p: means[p] for p in PLAIN if p in means}}
    beside |= {PICTURE: means[PICTURE]}
    controls = [
        _QUANTITY(value, label, rows=label, reason=_NOT_DEFINED).control(label) for label, value in beside.items()
    ]
    difference = next(i for i, measure in enumerate(made) if measure.key.endswith("minus_random"))
    if made[difference].value is not None:
        made[difference] = made[difference].row(f"{name}, best {share:.0%}", *controls, section=section)
    return made


def _table(found: dict[str, np.ndarray], share: float) -> pd.DataFrame:
    n = len(found["random"])
    parts = [
        pd.DataFrame({"share": share, "item": np.arange(n), "filter": name, "outcome": nullable(values)})
        for name, values in found.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _verdict(
    measures: Sequence[Measure], scores: Scores, shares: Sequence[float], wins: int, compared: int
) -> str | None:
    if not compared:
        return None
    rivals = [m.interval for m in measures if m.key.endswith("minus_best_plain") and not _is_plain(m.key)]
    over = sum(end.low > 0 for end in rivals if end is not None and end.low is not None)
    found = f"Keeping patches by {_and([name for name in scores if name not in PLAIN])} beats random patches in {wins} of {compared} comparisons"
    plain = [name for name in PLAIN if name in scores]
    return f"{found}; beyond the better of {_and(plain)} in {over} of {len(rivals)}." if plain else f"{found}."


def _is_plain(key: str) -> bool:
    return key.split("/")[1] in [name.replace(" ", "_") for name in PLAIN]


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
