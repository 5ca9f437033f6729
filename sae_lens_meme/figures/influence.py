"""What ablating a latent does, against a random direction of equal norm."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import CYCLE, RED, titled, wrapped

TITLE = "Influence of each latent, against random directions"


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """Ablation, and the strongest steering, where they were measured."""
    table = inputs.table("influence")
    steering = table.loc[table["kind"] == "steering", "multiplier"]
    return [
        *([{"kind": "ablation"}] if (table["kind"] == "ablation").any() else []),
        *([{"kind": "steering", "multiplier": float(steering.max())}] if len(steering) else []),
    ]


def draw(axes: Any, inputs: Inputs, *, kind: str = "ablation", multiplier: float | None = None) -> None:
    """A point per label and latent that fires: |mean change| of a class's probability, and that of random steps of the
    same norm, each the mean over classes: of a class that was chosen, the control would have to be chosen too.
    """
    table = inputs.table("influence")
    table = table[(table["kind"] == kind) & (table["route"] == "latent") & (table["head"] == "probe")]
    if multiplier is not None:
        table = table[table["multiplier"] == multiplier]
    if table.empty:
        raise NotDrawn(f"influence has no row of kind {kind!r}")
    if "delta_random" not in table:
        raise NotDrawn("influence was measured without random steps; evaluate with influence.n_random above 0")
    columns = ["delta_random", "delta_all"]
    fires = table[table["n_active"] > 0]
    if fires.empty:
        raise NotDrawn("no latent fires on the memes that influence was measured on")
    changes = fires[columns].abs().groupby([fires["task"], fires["latent"]], sort=False).mean()
    floor = max(1e-7, float(changes["delta_all"][changes["delta_all"] != 0].min()))
    for (task, rows), colour in zip(changes.groupby("task", sort=False), cycle(CYCLE), strict=False):
        axes.plot(
            *(rows[name].clip(lower=floor) for name in columns),
            ".", color=colour, ls="", ms=4, label=wrapped(task), rasterized=True,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.axline((floor, floor), (1, 1), color=RED, lw=1)
    above = np.mean(changes["delta_all"] > changes["delta_random"])
    what = kind if multiplier is None else f"{kind} ×{multiplier:g}"
    titled(
        axes,
        f"{what}: above the mean random step for {above:.0%} of the latent × label points (both means over classes)",
        "random step of equal norm",
        "change by the latent",
    )
    axes.legend(ncols=2, loc="lower right")
