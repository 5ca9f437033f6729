"""What ablating a latent does, against a random direction of equal norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import CYCLE, RED, titled

TITLE = "Influence of each latent, against random directions"


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """Ablation, and the strongest steering that was measured."""
    table = inputs.table("influence")
    steering = table.loc[table["kind"] == "steering", "multiplier"]
    return [
        {"kind": "ablation"},
        *([{"kind": "steering", "multiplier": float(steering.max())}] if len(steering) else []),
    ]


def draw(axes: Any, inputs: Inputs, *, kind: str = "ablation", multiplier: float | None = None) -> None:
    """A point per latent and label: mean change of the label's probability, and that of random steps of the same norm."""
    table = inputs.table("influence")
    table = table[(table["kind"] == kind) & table["published"].astype(bool) & (table["head"] == "probe")]
    if multiplier is not None:
        table = table[table["multiplier"] == multiplier]
    if table.empty:
        raise NotDrawn(f"influence has no row of kind {kind!r}")
    floor = max(float(table["delta_all"].abs()[table["delta_all"] != 0].min()), 1e-7)
    for (task, rows), colour in zip(table.groupby("task", sort=False), CYCLE * 4, strict=False):
        axes.plot(
            *(rows[name].abs().clip(lower=floor) for name in ("delta_random", "delta_all")),
            ".", color=colour, ls="", ms=4, label=str(task), rasterized=True,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.axline((floor, floor), (1, 1), color=RED, lw=1)
    above = np.mean(table["delta_all"].abs() > table["delta_random"].abs())
    what = kind if multiplier is None else f"{kind} ×{multiplier:g}"
    titled(
        axes,
        f"{what}: above the random step for {above:.0%} of the latents",
        "random step of equal norm",
        "change by the latent",
    )
    axes.legend(ncols=2, loc="lower right")
