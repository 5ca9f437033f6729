"""The latents of one SAE matched with those of other seeds, with the controls beside each number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number, Result, nullable
from sae_lens_meme.evaluators.stability.compare import (
    Comparison,
    Memes,
    compare,
    require_comparable,
    require_threshold,
)
from sae_lens_meme.evaluators.stability.explain import explain
from sae_lens_meme.evaluators.stability.matching import directions_of
from sae_lens_meme.evaluators.stability.significance import significance_numbers, significant_latents

THRESHOLDS = (0.5, 0.7, 0.9)
_GROUPS = {"mean", "least", "most", "significance"}


def stability(
    sae: Any,
    others: Mapping[str, Any],
    *,
    alignment: Result | pd.DataFrame | None = None,
    latents: Latents | None = None,
    other_latents: Mapping[str, Latents] | None = None,
    memes: Memes | None = None,
    controls: Collection[str] = (),
    scale: Float[np.ndarray, " d_in"] | None = None,
    threshold: float = 0.7,
    thresholds: Sequence[float] = THRESHOLDS,
    alpha: float = 0.05,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Result:
    """Match the latents of an SAE with those of SAEs of other seeds; one row a latent, numbers for each SAE and the mean.

    A latent is stable if the mean of its matched cosines with the other seeds is at least `threshold`.

    Args:
        others: by name. They may have other widths: of the wider SAE some latents have no partner.
        alignment: table of `ConceptAlignment` (corrected protocol) of `sae`; a latent is significant if some pair has
            q_global < alpha.
        latents, other_latents: of the same memes. With them dead latents take no part, and firing is compared.
        memes: within what memes are permuted for the control of firing (default: all).
        controls: names in `others` that are no other seed: measured alike, in no mean.
        scale: what each dimension of the decoder rows is divided by (default: nothing).
        n_bootstrap: resamples of the latents for the intervals of differences; 0 for none.

    Raises:
        ConfigError: there is no other SAE, or a threshold is no cosine.
        DataError: an SAE reads another hook or width, or latents or alignment are of something else.
    """
    require_others(others, controls, threshold, thresholds)
    thresholds = sorted({*thresholds, threshold})
    these, compared = directions_of(sae, latents, scale), []
    for name, other in others.items():
        require_comparable(sae, name, other)
        theirs = None if other_latents is None else other_latents.get(name)
        both = None if latents is None or theirs is None else _same_memes(name, latents, theirs)
        compared.append(compare(name, these, directions_of(other, theirs, scale), both, memes, seed))
    seeds = [one for one in compared if one.name not in controls]
    cosines = np.stack([one.matching.cosine for one in seeds], axis=1)
    matched = ~np.isnan(cosines)
    cosine = np.where(matched.any(1), np.where(matched, cosines, 0).sum(1) / np.maximum(matched.sum(1), 1), np.nan)
    stable = cosine >= threshold
    numbers: dict[str, Number] = {"n_latents": len(stable), "n_alive": int(these.alive.sum()), "n_others": len(seeds)}
    for one in compared:
        numbers |= one.numbers(these.alive, thresholds)
    numbers |= _over_seeds(numbers, seeds, these.alive, cosines, threshold)
    reasons = {key: "no latent takes part, or none has a partner" for key, v in numbers.items() if v is None}
    significant = np.full(len(stable), np.nan)
    rate = None if latents is None else np.diff(latents.csc().indptr) / max(latents.n_samples, 1)
    if alignment is not None:
        significant = np.where(these.alive, significant_latents(alignment, len(stable), alpha), np.nan)
        found, why = significance_numbers(significant, stable, cosine, rate, n_bootstrap, seed)
        numbers, reasons = numbers | found, reasons | why
    else:
        numbers["significance/odds_ratio"] = None
        reasons["significance/odds_ratio"] = "no table of concept alignment is given, and there are no labels"
    table = _table(these.alive, rate, compared, cosine, cosines >= threshold, stable, significant)
    return Result("stability", numbers, reasons, table, explain(latents, threshold, controls, scale is not None))


def _over_seeds(
    numbers: Mapping[str, Number], seeds: list[Comparison], alive: np.ndarray, cosines: np.ndarray, threshold: float
) -> dict[str, Number]:
    """Mean over the other seeds, their range, and the share of latents that all of them find."""
    out: dict[str, Number] = {}
    keys = [key.removeprefix(f"{seeds[0].name}/") for key in numbers if key.startswith(f"{seeds[0].name}/")]
    for key in (key for key in keys if not key.startswith("n_")):
        values = [numbers.get(f"{one.name}/{key}") for one in seeds]
        known = [value for value in values if value is not None]
        out[f"mean/{key}"] = float(np.mean(known)) if known else None
        if len(seeds) > 1 and key in ("mean_cosine", f"share_above_{threshold:g}"):
            out[f"least/{key}"], out[f"most/{key}"] = (min(known), max(known)) if known else (None, None)
    stable_in_all = (cosines[alive] >= threshold).all(axis=1)
    out["mean/share_in_all"] = float(stable_in_all.mean()) if alive.any() else None
    return out


def _table(
    alive: np.ndarray, rate: np.ndarray | None, compared: list[Comparison], cosine: np.ndarray, in_each: np.ndarray,
    stable: np.ndarray, significant: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    unknown = np.isnan(significant)
    columns = {
        "latent": np.arange(len(alive)),
        "alive": alive,
        "firing_rate": nullable(np.full(len(alive), np.nan) if rate is None else rate),
        "mean_cosine": nullable(cosine),
        "n_stable": pd.arrays.IntegerArray(in_each.sum(axis=1), ~alive),
        "stable": pd.arrays.BooleanArray(stable, ~alive),
        "significant": pd.arrays.BooleanArray(np.where(unknown, False, significant == 1), unknown),
    }
    for one in compared:
        columns |= one.columns()
    return pd.DataFrame(columns)


def _same_memes(name: str, mine: Latents, theirs: Latents) -> tuple[Latents, Latents]:
    if mine.n_samples != theirs.n_samples:
        raise DataError(
            f"stability: latents of {name} are of {theirs.n_samples} memes, those of the SAE of {mine.n_samples}"
        )
    return mine, theirs


def require_others(
    others: Mapping[str, Any], controls: Collection[str], threshold: float, thresholds: Sequence[float]
) -> None:
    """Raises ConfigError unless there is another seed, and thresholds are cosines."""
    if unknown := set(controls) - set(others):
        raise ConfigError(f"stability: control {min(unknown)!r} is none of {', '.join(others) or 'no SAEs'}")
    if taken := _GROUPS & set(others):
        raise ConfigError(f"stability: an SAE cannot be called {min(taken)!r}, which names a group of numbers")
    if not set(others) - set(controls):
        raise ConfigError("stability: there is no SAE of another seed; give others={name: SAE}")
    require_threshold((threshold, *thresholds))
