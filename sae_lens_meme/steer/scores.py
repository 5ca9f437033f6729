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
LEVEL = 0.05
FEWEST_PICTURES = 5
"""With a word; of fewer there is no interval and no p."""
FEWEST_OTHERS = 20
"""Other latents; among fewer no rank has p below `LEVEL`."""
_TIE = 1e-6


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

    The score is a mean over pictures with a word, chance that of the same words with the pictures of other latents. p is
    the rank of the score among theirs: an edit that turns all answers into one word leaves the interval no width, and how
    near that word is to one latent's pictures is luck.
    """
    weights = np.array(list(bootstrap_weights(np.zeros(len(words), np.int64), replicates, seed)), dtype=float)
    changed = np.array([one != other for one, other in zip(words, plain, strict=True)], dtype=float)
    found = {"n": len(words), "n_without_word": sum(word is None for word in words)}
    found |= _mean("changed", changed, weights)
    found |= {"score": None, "chance": None, "over_chance": None, "p": None, "n_others": 0}
    if cosines is None:
        return found | {"reason": NO_SCORER}
    said = cosines[~np.isnan(cosines).any(axis=1)]
    if not len(said):
        return found | {"reason": NO_WORDS}
    found |= _mean("score", cosines[:, 0], weights) | {"n_others": cosines.shape[1] - 1}
    if not found["n_others"]:
        return found | {"reason": "no other latent fires on the reference pictures"}
    chance = cosines[:, 1:].mean(axis=1)
    found |= _mean("chance", chance, weights) | _mean("over_chance", cosines[:, 0] - chance, weights)
    if len(said) < FEWEST_PICTURES:
        return found | {"reason": f"fewer than {FEWEST_PICTURES} pictures have a word"}
    score, *others = said.mean(axis=0)
    return found | {"p": (1 + int(np.sum(np.array(others) >= score - _TIE))) / (1 + len(others))}


def _mean(name: str, x: Float[np.ndarray, " n"], weights: Float[np.ndarray, "replicates n"]) -> dict[str, Any]:
    """The mean over pictures that have a value, and its interval; of few pictures none."""
    known = ~np.isnan(x)
    enough = known.sum() >= FEWEST_PICTURES and len(weights)
    totals = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = weights[:, known] @ x[known] / totals
    low, high = percentile_interval(replicates) if enough else (np.nan, np.nan)
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
    said = (
        f"Latent {latent} at {first.strength:g}: the first word of {first.changed:.0%} of {first.n:.0f} answers changes"
    )
    said += f" (SAE attached alone {attached.changed:.0%}{others})"
    if pd.isna(first.p):
        return f"{said}; {first.reason}, so nothing says whether they follow the latent."
    said += f"; they match its pictures by {_shown(first.over_chance)} [{_shown(first.over_chance_low)}, "
    said += f"{_shown(first.over_chance_high)}] over chance (p = {first.p:.2g} among {first.n_others} other latents"
    said += "".join(f", {row.arm} {_shown(row.over_chance)}" for row in controls.itertuples()) + ")"
    if first.n_others < FEWEST_OTHERS:
        return (
            f"{said}; fewer than {FEWEST_OTHERS} other latents cannot tell it from chance (--others, --references), "
            "so nothing says whether they follow the latent."
        )
    beaten = [_beats(row, _controls(rows, row.strength)) for _, row in steered.iterrows()]
    if beaten[0] is None:
        return f"{said}; a control is missing, so nothing says whether this is the latent's doing."
    said += ": "
    said += (
        "they follow this latent" if beaten[0] else "a control or other latents do as well, so it is not shown to steer"
    )
    swept = f" ({sum(map(bool, beaten))} of {len(beaten)} strengths)" if len(beaten) > 1 else ""
    return f"{said}{swept}."


def _controls(rows: Any, strength: float) -> Any:
    return rows[rows.arm.isin(CONTROLS) & (rows.strength == strength)]


def _beats(steered: Any, controls: Any) -> bool | None:
    """Whether the interval lies above 0 and those of both controls, and the rank is high; None where one is missing."""
    highs = controls["over_chance_high"].astype(float)
    if len(controls) < len(CONTROLS) or highs.isna().any() or pd.isna([steered.p, steered.over_chance_low]).any():
        return None
    return bool(steered.over_chance_low > max(0.0, highs.max()) and steered.p < LEVEL)


def _shown(value: Any) -> str:
    return "undefined" if pd.isna(value) else f"{value:.2f}"
