"""How far answers follow a latent: words against its pictures, against chance, how many change, and what to conclude."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_lens_meme.metrics.directions import unit_rows
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

Encoder = Callable[[Sequence[Any]], Float[np.ndarray, "n d"]]
NO_SCORER = "no scorer was given"
NO_WORDS = "no answer has a word"


def picture_means(images: Float[np.ndarray, "n d"], tops: Sequence[np.ndarray]) -> Float[np.ndarray, "latents d"]:
    """The direction of the mean un-normalised embedding of each latent's pictures, as sae-for-vlm has it."""
    return unit_rows(np.stack([images[top[top >= 0]].mean(axis=0) for top in tops]))


def word_scores(
    words: Sequence[str | None], encode_text: Encoder, means: Float[np.ndarray, "latents d"]
) -> Float[np.ndarray, "n latents"]:
    """Cosine of each picture's word with the pictures of each latent; NaN where there is no word."""
    found = np.full((len(words), len(means)), np.nan)
    distinct = sorted({word for word in words if word is not None})
    if distinct:
        cosines = dict(zip(distinct, unit_rows(encode_text(distinct)) @ means.T, strict=True))
        for row, word in enumerate(words):
            if word is not None:
                found[row] = cosines[word]
    return found


def arm_numbers(
    words: Sequence[str | None],
    plain: Sequence[str | None],
    cosines: Float[np.ndarray, "n latents"] | None,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Numbers of one arm over the pictures, each with its 95 % interval; the first latent of `cosines` is the steered one.

    The score is a mean over pictures with a word, chance that of the same words with the pictures of other latents.
    """
    weights = np.array(list(bootstrap_weights(np.zeros(len(words), np.int64), replicates, seed)), dtype=float)
    changed = np.array([one != other for one, other in zip(words, plain, strict=True)], dtype=float)
    found = {"n": len(words), "n_without_word": sum(word is None for word in words)}
    found |= _mean("changed", changed, weights)
    if cosines is None:
        return found | {"score": None, "chance": None, "over_chance": None, "reason": NO_SCORER}
    if np.isnan(cosines).all():
        return found | {"score": None, "chance": None, "over_chance": None, "reason": NO_WORDS}
    found |= _mean("score", cosines[:, 0], weights)
    if cosines.shape[1] < 2:
        return found | {
            "chance": None,
            "over_chance": None,
            "reason": "no other latent fires on the reference pictures",
        }
    chance = cosines[:, 1:].mean(axis=1)
    return found | _mean("chance", chance, weights) | _mean("over_chance", cosines[:, 0] - chance, weights)


def _mean(name: str, x: Float[np.ndarray, " n"], weights: Float[np.ndarray, "replicates n"]) -> dict[str, Any]:
    """The mean over pictures that have a value, and its interval."""
    known = ~np.isnan(x)
    totals = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = weights[:, known] @ x[known] / totals
    low, high = percentile_interval(replicates) if len(replicates) else (np.nan, np.nan)
    numbers = {name: float(x[known].mean()), f"{name}_low": low, f"{name}_high": high}
    return {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}


PLAIN, ATTACHED, STEERED = "plain", "SAE attached, nothing set", "steered"
RANDOM_LATENT, RANDOM_DIRECTION = "random latent", "random direction"
CONTROLS = (RANDOM_LATENT, RANDOM_DIRECTION)


def verdict_of(scores: pd.DataFrame) -> list[str]:
    """A sentence for each latent at the first strength that was asked for, and at how many of the others it holds.

    The strength at which it does most would be chosen on the pictures that measure it.
    """
    return [_sentence(int(latent), rows) for latent, rows in scores.groupby("latent", sort=False)]  # type: ignore[arg-type]


def _sentence(latent: int, rows: Any) -> str:
    steered = rows[rows.arm == STEERED]
    first = steered.iloc[0]
    controls = _controls(rows, first.strength)
    attached = rows[rows.arm == ATTACHED].iloc[0]
    others = "".join(f", {row.arm} {row.changed:.0%}" for row in controls.itertuples())
    said = f"Latent {latent} at {first.strength:g}: {first.changed:.0%} of {first.n:.0f} answers change"
    said += f" (SAE attached alone {attached.changed:.0%}{others})"
    if pd.isna(first.get("over_chance")):
        return f"{said}; {first.reason}, so nothing says whether they follow the latent."
    ends = f"[{first.over_chance_low:.2f}, {first.over_chance_high:.2f}]"
    said += f"; they match its pictures by {first.over_chance:.2f} {ends} over chance"
    beaten = [_beats(row, _controls(rows, row.strength)) for _, row in steered.iterrows()]
    if beaten[0] is None:
        return f"{said}; a control is missing, so nothing says whether this is the latent's doing."
    least = ", ".join(f"{row.arm} {_shown(row.over_chance)}" for row in controls.itertuples())
    said += f" ({least}): "
    said += "they follow this latent" if beaten[0] else "no more than a control's do, so it does not steer them"
    swept = f" ({sum(map(bool, beaten))} of {len(beaten)} strengths)" if len(beaten) > 1 else ""
    return f"{said}{swept}."


def _controls(rows: Any, strength: float) -> Any:
    return rows[rows.arm.isin(CONTROLS) & (rows.strength == strength)]


def _beats(steered: Any, controls: Any) -> bool | None:
    """Whether the interval lies above 0 and above those of both controls; None where one is missing."""
    highs = controls["over_chance_high"].astype(float)
    if len(controls) < len(CONTROLS) or highs.isna().any() or pd.isna(steered.over_chance_low):
        return None
    return bool(steered.over_chance_low > max(0.0, highs.max()))


def _shown(value: Any) -> str:
    return "undefined" if pd.isna(value) else f"{value:.2f}"
