"""What each label's probe reads from the latents of one meme, and which latents carry its decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from sae_lens_meme.evaluators.classifiers import Probe
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.read.reading import Carrier, Decision

NEAR = 4
"""A random latent is one of this many other active ones whose activations are nearest."""


class Score(NamedTuple):
    """AUROC within source on held-out memes of a probe, with its 95 % interval, and of the same probe on permuted labels;
    None where unknown."""

    auroc: float | None
    permuted: float | None
    low: float | None = None
    high: float | None = None


def decide(probe: Probe, latents: Latents, train: np.ndarray, score: Score, options: ReadOptions) -> Decision:
    """Of the one row of `latents`.

    Args:
        train: the label's values that the probe was fitted to.
    """
    active, values = (part[0][latents.values[0] > 0] for part in (latents.indices, latents.values.astype(np.float64)))
    if not len(active):
        active, values = np.zeros(1, np.int64), np.zeros(1)
    narrow = replace(probe, coef=probe.coef[:, active])  # the others are 0
    full = narrow.predict_proba(values[None])[0]
    order = np.argsort(-full, kind="stable")
    top, second = int(order[0]), int(order[1])
    weights, bias = _margin(probe, top, second)
    norm = (np.linalg.norm(values) if probe.normalise else 1.0) or 1.0
    contributions = weights[active] * values / norm
    carriers = np.argsort(-contributions, kind="stable")[: options.n_carriers]
    carriers = carriers[contributions[carriers] > 0]

    taken = [carriers, *_alike(values, carriers, options.n_random, options.seed)]
    rows = np.tile(values, (len(taken), 1))
    for row, places in zip(rows, taken, strict=True):
        row[places] = 0
    without, *draws = narrow.predict_proba(rows)[:, top].tolist()
    return Decision(
        label=probe.task,
        decided=plain(probe.classes[top]),
        probability=float(full[top]),
        runner_up=plain(probe.classes[second]),
        prevalence=float(np.mean(train == probe.classes[top])),
        auroc=score.auroc,
        auroc_low=score.low,
        auroc_high=score.high,
        auroc_permuted=score.permuted,
        margin=float(contributions.sum() + bias),
        bias=float(bias),
        carriers=[Carrier(int(active[i]), float(contributions[i])) for i in carriers],
        without=without,
        without_random=np.percentile(draws, [2.5, 50, 97.5]).tolist() if draws else [],
        evidence=_evidence(score),
    )


def _margin(probe: Probe, top: int, second: int) -> tuple[Float64[np.ndarray, " d"], float]:
    """Weights and bias of the logit of a class above that of another."""
    if len(probe.coef) == 1:
        sign = 1.0 if top == 1 else -1.0
        return sign * probe.coef[0], sign * float(probe.intercept[0])
    return probe.coef[top] - probe.coef[second], float(probe.intercept[top] - probe.intercept[second])


def _alike(
    values: Float[np.ndarray, " active"], carriers: Int[np.ndarray, " carriers"], draws: int, seed: int
) -> list[Int[np.ndarray, " carriers"]]:
    """For each draw as many other active latents, each with an activation like that of one carrier; none where too few
    are active."""
    others = np.setdiff1d(np.arange(len(values)), carriers)
    if len(others) < len(carriers) or not len(carriers):
        return []
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        left = others
        drawn = []
        for carrier in carriers:
            near = nearest(values, left, carrier)
            drawn.append(int(near[rng.integers(len(near))]))
            left = left[left != drawn[-1]]
        found.append(np.array(drawn))
    return found


def nearest(
    values: Float[np.ndarray, " active"], among: Int[np.ndarray, " others"], latent: int
) -> Int[np.ndarray, " near"]:
    """Those of other active latents, at most `NEAR`, whose activations are nearest to that of one."""
    return among[np.argsort(np.abs(values[among] - values[latent]), kind="stable")[:NEAR]]


def plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _evidence(score: Score) -> str:
    if score.auroc is None:
        return "how good this probe is on held-out memes is known only with --evaluation"
    interval = "no interval" if score.low is None else f"{score.low:.2f} to {score.high:.2f}"
    beside = "" if score.permuted is None else f"; permuted labels {score.permuted:.2f}"
    measured = f"AUROC on held-out memes {score.auroc:.2f} ({interval}{beside})"
    least = score.auroc if score.low is None else score.low
    return f"no evidence: {measured}" if least <= max(0.5, score.permuted or 0) else measured
