"""The latent with the largest effect, chosen on other memes than it is measured on, with its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from sae_lens_meme.evaluators.influence.effects import Effects
from sae_lens_meme.evaluators.influence.routes import Route
from sae_lens_meme.evaluators.result import Number, defined

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.influence.evaluator import Influence


def largest_numbers(
    route: Route,
    effects: Effects,
    chosen: Float64[np.ndarray, "d_sae m outputs"],
    multipliers: Sequence[float],
    head: str,
) -> dict[str, Number]:
    """For each multiplier the effect of the latent and class that `chosen` has largest; None where no latent fires.

    Args:
        chosen: absolute mean changes on the rows that choose.
    """
    numbers: dict[str, Number] = {}
    where = f"{route.name}/{route.task}" if head == "probe" else f"{route.name}/{head}/{route.task}"
    for m, multiplier in enumerate(multipliers):
        group = f"ablation/{where}" if multiplier == 0 else f"steering/x{multiplier:g}/{where}"
        fires = effects.n_active.any() and chosen[:, m].any()
        found = _largest(effects, chosen[:, m], m)
        numbers |= {f"{group}/{key}": value if fires else None for key, value in found.items()}
        numbers[f"{group}/attached_no_change"] = effects.attached_no_change
    numbers[f"ablation/{where}/all_latents"] = float(np.abs(route.all_ablated()).max())
    return numbers


def _largest(effects: Effects, chosen: Float64[np.ndarray, "d_sae outputs"], m: int) -> dict[str, Number]:
    top, best = (int(place) for place in np.unravel_index(chosen.argmax(), chosen.shape))
    delta = float(effects.delta_all[top, m, best])
    numbers: dict[str, Number] = {"largest": abs(delta), "largest_signed": delta, "largest_latent": top}
    if effects.delta_all_interval is not None:
        ends = [end[top, m, best] for end in effects.delta_all_interval]
        low, high = sorted(np.abs(ends)) if ends[0] * ends[1] > 0 else (0.0, np.abs(ends).max())
        numbers |= {"largest_low": float(low), "largest_high": float(high)}
    if effects.delta_random is not None and effects.random_maximum is not None:
        numbers["largest_random"] = float(effects.delta_random[top, m, best])
        numbers["random_maximum"] = float(effects.random_maximum[m])
    numbers["largest_matched"] = defined(effects.delta_matched[top, m, best])
    return numbers


def explain(which: str, n: int, n_choosing: int, influence: Influence) -> dict[str, str]:
    intervals = f"percentile bootstrap over memes within source, {influence.n_bootstrap} resamples, 95 %"
    choice = f"of the latent and class that change most on {n_choosing} validation rows"
    if which.startswith(("validation", "all")):
        choice = "of the latent and class that change most: chosen and measured on the same rows"
    return {
        "*": f"effects are means over {n} {which}; probes are fitted on known train rows",
        "delta_all": f"mean over these {n} rows; intervals: {intervals if influence.n_bootstrap else 'not asked for'}",
        "delta_active": "mean over the rows where the latent fires; null where it fires on none",
        "delta_random": f"control: |mean change| for a step of equal norm on the same memes, mean over {influence.n_random} random directions",
        "published": "true for InterVLM's one number a latent and edit: the positive class of two, else the class of largest "
        "|delta_all|, probe on latents; their rows are the test rows",
        "delta_matched": "control: mean |delta_all| of the 20 other latents nearest in firing rate",
        "n_choosing": "rows that choose the latent of largest",
        "*/largest": f"|delta_all| {choice}; controls: largest_random and largest_matched of this latent, random_maximum",
        "*/random_maximum": "control: largest |mean change| over latents and classes by a random direction of equal norm, mean over "
        f"{influence.n_random} directions that all latents share; a maximum on the measured rows themselves, so it errs on the high side",
        **dict.fromkeys(
            ("*/largest_low", "*/largest_high"),
            f"the interval of delta_all of this latent and class ({intervals}); it does not count the choice",
        ),
        "*/largest_signed": "the same with its sign: what InterVLM publishes for this latent (`published` in the table)",
        "*/largest_latent": "which latent that is",
        "*/largest_random": "control: |mean change| for a step of equal norm on the same memes",
        "*/largest_matched": "control: mean |delta_all| of the 20 other latents nearest in firing rate",
        "*/attached_no_change": "control: largest change of any probability under multiplier 1, on the first 131,072 active pairs of meme and latent",
        "*/all_latents": "largest |mean change| over classes when every active latent is ablated (zeros are decoded)",
    }
