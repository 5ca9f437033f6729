"""How the eight labels follow from the factors, and how often a label is wrong.

`hate` is here merely the name of a column: it says that a caption's mood and the faces' expression
clash. Nothing hateful is drawn or written anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_lens_meme.planted.factors import ADDRESSEES, EXPRESSIONS, LIGHTS, MOODS, PHRASINGS, SIGNS, Factors, choose

MOTIVATIONAL_TOPICS = ("computers", "reading", "gardening")

CAUSES: Mapping[str, Mapping[str, Any]] = {
    "hate": {"kind": "cross-modal", "factors": ["clash"]},
    "target": {"kind": "textual", "factors": ["addressee"]},
    "stance": {"kind": "visual", "factors": ["sign"]},
    "humor": {"kind": "textual", "factors": ["phrasing"]},
    "offensive": {"kind": "visual", "factors": ["bursts"]},
    "sentiment": {"kind": "cross-modal", "factors": ["mood", "expression", "light"]},
    "motivational": {"kind": "textual", "factors": ["topic"]},
    "sarcasm": {"kind": "cross-modal", "factors": ["distance"]},
}

SHARES: Mapping[str, Mapping[str, Mapping[int, float]]] = {
    "pridemm": {
        "hate": {0: 0.51, 1: 0.49},
        "target": {0: 0.311, 1: 0.100, 2: 0.469, 3: 0.120},
        "stance": {0: 0.288, 1: 0.377, 2: 0.335},
        "humor": {0: 0.324, 2: 0.676},
    },
    "hmc": {"hate": {0: 0.615, 1: 0.385}},
    "memotion": {
        "humor": {0: 0.236, 1: 0.351, 2: 0.320, 3: 0.093},
        "sarcasm": {0: 0.221, 1: 0.502, 2: 0.221, 3: 0.056},
        "offensive": {0: 0.388, 1: 0.371, 2: 0.210, 3: 0.031},
        "motivational": {0: 0.647, 1: 0.353},
        "sentiment": {-2: 0.022, -1: 0.069, 0: 0.315, 1: 0.447, 2: 0.147},
    },
}
"""The labels that each source has, with the shares of the real data set (target: among hate = 1)."""

NOISE: Mapping[str, float] = {
    "hate": 0.08,
    "target": 0.08,
    "stance": 0.06,
    "humor": 0.08,
    "offensive": 0.10,
    "sentiment": 0.10,
    "motivational": 0.06,
    "sarcasm": 0.10,
}
"""The probability that an annotator answers at random, with the source's shares (and so is sometimes right)."""


def true_labels(factors: Factors) -> dict[str, int | None]:
    """The eight labels without noise; `target` is None where there is no hate, as in PrideMM."""
    balance = MOODS.index(factors.mood) + EXPRESSIONS.index(factors.expression) - 1
    return {
        "hate": int(factors.clash),
        "target": ADDRESSEES.index(factors.addressee) if factors.clash else None,
        "stance": SIGNS.index(factors.sign),
        "humor": PHRASINGS.index(factors.phrasing),
        "offensive": factors.bursts,
        "sentiment": balance + LIGHTS.index(factors.light) - 1,
        "motivational": int(factors.topic in MOTIVATIONAL_TOPICS),
        "sarcasm": min(factors.distance, 3),
    }


@dataclass(frozen=True)
class Labelling:
    """What the eight labels of a world say."""

    causes: Mapping[str, Mapping[str, Any]]
    """Label -> kind and factors."""
    shares: Mapping[str, Mapping[str, Mapping[int, float]]]
    """Source -> label -> level -> share of what a guessing annotator answers."""
    truth: Callable[[Factors], dict[str, int | None]]


PLAIN_LABELS = Labelling(CAUSES, SHARES, true_labels)


def annotated_labels(
    factors: Factors, source: str, rng: np.random.Generator, labelling: Labelling = PLAIN_LABELS
) -> dict[str, int]:
    """The labels that `source` publishes for this meme, noise included; those it lacks are absent."""
    truth: dict[str, Any] = labelling.truth(factors) | {"target": ADDRESSEES.index(factors.addressee)}
    if source == "pridemm":
        truth["humor"] = 2 if truth["humor"] else 0  # the release knows only 0 and 1
    labels = {}
    for label, shares in labelling.shares[source].items():
        guess = choose(rng, list(shares), list(shares.values()))
        labels[label] = guess if rng.random() < NOISE[label] else truth[label]
    if labels.get("hate") != 1:
        labels.pop("target", None)
    return labels
