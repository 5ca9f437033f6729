"""What the scores of a steering say, in a sentence a latent."""

from __future__ import annotations

from typing import Any

import pandas as pd

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
