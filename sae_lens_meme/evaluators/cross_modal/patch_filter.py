"""Whether a patch filter keeps the right patches: each score beside as many random patches, a CLIP score and L0.

What is compared is one number per item and filter: the share of known right patches that it keeps, or whether a
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
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable, of_known
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

Outcome = Callable[[Bool[np.ndarray, "items grid grid"]], Float64[np.ndarray, " items"]]
"""What each item gives where these cells are kept; NaN where that is undefined."""
Outcomes = dict[str, Float64[np.ndarray, " items"]]
"""By filter; `RANDOM` is the mean of the random selections."""
RANDOM, WHOLE = "random", "whole picture"
PLAIN = ("CLIP score", "L0")
"""Filters that ignore cross-modal weights: what any other must beat besides chance."""

_NONE = "no item has this outcome"
OUTCOME = Quantity("outcome", "mean over items of the outcome", _NONE)
DIFFERENCES = {
    RANDOM: Quantity("minus_random", "mean outcome minus that of as many random patches, paired by item", _NONE),
    **{
        plain: Quantity(f"minus_{plain.replace(' ', '_')}", f"mean outcome minus that of the filter by {plain}, paired by item", _NONE)
        for plain in PLAIN
    },
}  # fmt: skip
COLUMNS = {
    "share": "of the patches that are kept",
    "item": "place of the item, in the order of the scores",
    "filter": "whose patches are kept; random: mean of the draws",
    "outcome": "see the section's title; null where the item has none",
}


def kept_right(right: Bool[np.ndarray, "items grid grid"]) -> Outcome:
    """Share of the right patches of each item that are kept; NaN where it has none."""

    def outcome(keep: Bool[np.ndarray, "items grid grid"]) -> Float64[np.ndarray, " items"]:
        n = right.sum(axis=(1, 2))
        return np.divide((keep & right).sum(axis=(1, 2)), n, out=np.full(len(n), np.nan), where=n > 0)

    return outcome


def still_classified(
    classify: Callable[[Any], Any], pixels: Any, labels: Sequence[Any] | np.ndarray, fill: float = 0.0
) -> Outcome:
    """1 where the classifier's answer to the picture with the other patches blanked is the item's label, else 0.

    Args:
        classify: pixels [items, channels, height, width] to answers, one per picture.
        fill: what blanked pixels are.
    """
    labels = np.asarray(labels)

    def outcome(keep: Bool[np.ndarray, "items grid grid"]) -> Float64[np.ndarray, " items"]:
        answers = np.asarray(classify(blank(pixels, keep, fill)))
        if answers.shape != labels.shape:
            raise DataError(f"patch filter: {answers.shape} answers for {labels.shape} labels; give one per picture")
        return (answers == labels).astype(np.float64)

    return outcome


def compare_patch_filters(
    scores: Mapping[str, Float64[np.ndarray, "items grid grid"]],
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

    Every filter keeps exactly as many patches as the random selections, whose outcomes are averaged by item.

    Args:
        scores: by filter, such as {"SAE-V": ..., "CLIP score": ..., "L0": ...}; the largest are kept.
        outcome: `kept_right`, or `still_classified`.
        shares: of the patches to keep.
        groups: items of one group (crops, copies) are resampled together; default each item is its own.
        n_random: random selections.

    Returns:
        A row for each filter and share, and a table of the outcomes of each item.

    Raises:
        ConfigError: no filter, no share, or no random selection.
        DataError: the filters are not of the same pictures.
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
        f"filter, {RANDOM}, {', '.join(PLAIN)}: means over items; {WHOLE}: nothing blanked; interval: over items, groups whole",
    )
    whole = of_known(np.mean, outcome(np.ones(shape, bool)))
    draws = np.stack(
        list(bootstrap_weights(np.zeros(shape[0], np.int64), n_bootstrap, seed, groups)) or [np.ones(shape[0])]
    )
    measures, tables = (
        [Measure("n_items", shape[0], "items whose pictures are filtered"), OUTCOME(whole, "whole_picture")],
        [],
    )
    for share in shares:
        found = _outcomes(scores, outcome, share, n_random, seed)
        tables.append(_table(found, share))
        measures.append(
            OUTCOME(of_known(np.mean, found[RANDOM]), f"keep_{share:g}/{RANDOM}", rows=f"{n_random} random selections")
        )
        for name in scores:
            measures += _of_filter(name, share, found, whole, draws if n_bootstrap else None, what)
    return Result(
        "patch_filter",
        section,
        tuple(measures),
        pd.concat(tables, ignore_index=True),
        COLUMNS,
        _verdict(measures, scores),
    )


def _outcomes(scores: Mapping[str, np.ndarray], outcome: Outcome, share: float, n_random: int, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    found = {name: outcome(keep_patches(np.asarray(values, np.float64), share, rng)) for name, values in scores.items()}
    nothing = np.zeros(np.shape(next(iter(scores.values()))))
    return found | {RANDOM: np.mean([outcome(keep_patches(nothing, share, rng)) for _ in range(n_random)], axis=0)}


def _of_filter(
    name: str, share: float, found: Outcomes, whole: float | None, draws: np.ndarray | None, what: str
) -> list[Measure]:
    """Its outcome, and its differences to random patches and to the plain filters."""
    at, rows = f"keep_{share:g}/{name.replace(' ', '_')}", f"{what}; best {share:.0%} of the patches by {name}"
    measures = [OUTCOME(of_known(np.mean, found[name]), at, rows=rows)]
    for rival in (RANDOM, *(plain for plain in PLAIN if plain in found and plain != name)):
        difference = found[name] - found[rival]
        interval = _interval(difference, draws)
        measures.append(DIFFERENCES[rival](of_known(np.mean, difference), at, rows=rows, interval=interval))
    means = {
        "filter": of_known(np.mean, found[name]),
        **{n: of_known(np.mean, found[n]) for n in (RANDOM, *PLAIN) if n in found},
        WHOLE: whole,
    }
    beside = [OUTCOME(value, label).control(label) for label, value in means.items()]
    return [measures[0], measures[1].row(f"{name}, best {share:.0%}", *beside), *measures[2:]]


def _interval(difference: Float64[np.ndarray, " items"], draws: np.ndarray | None) -> Interval:
    how = "percentile bootstrap over items, groups whole, the random selections held fixed"
    if draws is None:
        return Interval(None, None, how, "n_bootstrap is 0: no intervals")
    known = ~np.isnan(difference)
    size = draws[:, known].sum(axis=1)
    total = draws[:, known] @ difference[known]
    low, high = percentile_interval(np.divide(total, size, out=np.full(len(size), np.nan), where=size > 0))
    return Interval(low, high, how)


def _table(found: Outcomes, share: float) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"share": share, "item": np.arange(len(values)), "filter": name, "outcome": nullable(values)})
        for name, values in found.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _verdict(measures: Sequence[Measure], scores: Mapping[str, Any]) -> str | None:
    """Against chance first, then against what knows nothing of cross-modal weights."""
    said = []
    for name in scores:
        if name in PLAIN:
            continue
        mine = [m for m in measures if m.key.split("/")[1:2] == [name.replace(" ", "_")]]
        wins = []
        for rival, quantity in DIFFERENCES.items():
            ends = [m.interval for m in mine if m.key.endswith(f"/{quantity.key}") and m.interval]
            ends = [end for end in ends if end.low is not None and end.high is not None]
            if ends:
                better, worse = sum(end.low > 0 for end in ends), sum(end.high < 0 for end in ends)  # type: ignore[operator]
                wins.append(
                    f"{rival} {'patches ' if rival == RANDOM else ''}{better} times better, {worse} worse of {len(ends)}"
                )
        if wins:
            said.append(f"{name}: against {'; against '.join(wins)}")
    return f"{'. '.join(said)}." if said else None
