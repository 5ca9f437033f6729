"""The numbers of naming: how many latents have a name, how many names hold, and the same for permuted latents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.memes import Memes
from sae_lens_meme.evaluators.naming.names import KINDS, Candidates, Names
from sae_lens_meme.evaluators.naming.paired import PairCounter
from sae_lens_meme.evaluators.result import Number, defined
from sae_lens_meme.metrics.bootstrap import count_interval
from sae_lens_meme.metrics.fisher import stratified_greater
from sae_lens_meme.metrics.multiple_testing import rejected

MEANS = ("auroc", "auroc_activation", "f1", "f1_always_on", "precision", "recall", "correlation")


def all_numbers(names: Names, permuted: Names, memes: Memes, alpha: float) -> tuple[dict[str, Number], dict[str, str]]:
    """Numbers, and the reason of each that is None."""
    numbers: dict[str, Number] = {"n_selection": len(memes.selection), "n_held_out": len(memes.held_out)}
    reasons: dict[str, str] = {}
    for kind in KINDS:
        if kind in memes.families:
            family = memes.families[kind]
            numbers[f"{kind}/n_statements"] = len(family.names)
            numbers[f"{kind}/n_selection"] = len(family.selection.rows)
            numbers[f"{kind}/n_held_out"] = len(family.held_out.rows)
        else:
            numbers[f"{kind}/n_statements"], reasons[f"{kind}/n_statements"] = None, memes.reasons[kind]
    for prefix, found in (("", names), ("permuted/", permuted)):
        for kind, candidates in found.candidates.items():
            numbers |= {f"{prefix}{kind}/{key}": value for key, value in _of_candidates(candidates, alpha).items()}
        numbers |= {f"{prefix}names/{key}": value for key, value in _of_names(found, alpha).items()}
    return numbers, {key: _reason(key, memes) for key, value in numbers.items() if value is None} | reasons


def hold_interval(
    names: Names, latents: Latents, memes: Memes, alpha: float, replicates: int, seed: int
) -> dict[str, Number]:
    """`names/n_hold_low` and `_high`: delete-d jackknife (four fifths) over the held-out memes, the names as they are."""
    if replicates == 0 or memes.split is None or not (names.kind >= 0).any():
        return {}
    counters = [
        (names.kind == KINDS.index(kind), found.held_out_counter(latents), found.family.held_out.rows)
        for kind, found in names.candidates.items()
    ]

    def count(weights: np.ndarray) -> np.ndarray:
        of_meme = np.zeros(len(memes.sources), np.int64)
        of_meme[memes.held_out] = weights
        return np.array([rejected(_log_p(counters, of_meme), alpha).sum()])

    estimate = np.array([names.holds(alpha).sum()])
    low, high = count_interval(count, estimate, memes.sources[memes.held_out], replicates, seed)
    return {"names/n_hold_low": float(low[0]), "names/n_hold_high": float(high[0])}


def external_numbers(table: pd.DataFrame) -> tuple[dict[str, Number], dict[str, str]]:
    """How many latents have a name from outside, and how the judge finds the memes that fire by the names."""
    numbers: dict[str, Number] = {"external/n_named": int((table["kind"] == "external").sum())}
    if "judge_auroc" in table:
        numbers["external/n_judged"] = int(table["judge_auroc"].notna().sum())
        numbers["external/n_judged_above_half"] = int((table["judge_auroc_low"] > 0.5).sum())
        for name in ("judge_auroc", "judge_auroc_wrong_name"):
            numbers[f"external/mean_{name}"] = _mean(table[name].to_numpy(dtype=np.float64, na_value=np.nan))
    why = "no named latent has held-out captions of both kinds in a source, or all have one name"
    return numbers, {key: why for key, value in numbers.items() if value is None}


def _log_p(counters: list[tuple[np.ndarray, PairCounter, np.ndarray]], of_meme: np.ndarray) -> np.ndarray:
    log_p = np.full(len(counters[0][0]), np.nan)
    for mine, counter, rows in counters:
        log_p[mine] = stratified_greater(counter.count(of_meme[rows]))[0][mine]
    return log_p


def _of_candidates(found: Candidates, alpha: float) -> Mapping[str, Number]:
    return {
        "n_candidates": int((found.chosen >= 0).sum()),
        "n_significant_selection": int((found.q_selection < alpha).sum()),
        "n_significant": _count(found.q, alpha, found.chosen >= 0),
        "mean_auroc_selection": _mean(found.selection["auroc"]),
        **{f"mean_{score}": _mean(found.held_out[score]) for score in MEANS},
    }


def _of_names(names: Names, alpha: float) -> Mapping[str, Number]:
    alive, n_named = int((names.fires > 0).sum()), int((names.kind >= 0).sum())
    n_hold = _count(names.q, alpha, names.kind >= 0)
    return {
        "n_named": n_named,
        **{f"n_{kind}": int((names.kind == k).sum()) for k, kind in enumerate(KINDS)},
        "n_hold": n_hold,
        "share_named": n_named / alive if alive else None,
        "share_hold": n_hold / n_named if n_named and n_hold is not None else None,
        "mean_auroc_selection": _mean(names.selection["auroc"]),
        **{f"mean_{score}": _mean(names.held_out[score]) for score in MEANS},
    }


def _count(q: np.ndarray, alpha: float, tried: np.ndarray) -> int | None:
    """None where there was something to test and no test could be done."""
    return None if tried.any() and np.isnan(q).all() else int((q < alpha).sum())


def _reason(key: str, memes: Memes) -> str:
    if memes.split is None and not key.endswith("_selection"):
        return "there are no held-out rows (test or validation)"
    if "share_named" in key:
        return "no latent fires on a selection row"
    what = "name" if "names/" in key else "candidate"
    return (
        f"no latent has a {what}"
        if key.endswith("_selection")
        else f"of no {what} is this defined on the held-out rows"
    )


def _mean(values: np.ndarray) -> Number:
    values = values[~np.isnan(values)]
    return defined(values.mean()) if len(values) else None
