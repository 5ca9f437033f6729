"""One SAE against another: matching, its numbers, and the same for random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number, defined, nullable
from sae_lens_meme.evaluators.stability.firing import firing_agreement
from sae_lens_meme.evaluators.stability.matching import Directions, Matching, match, random_like
from sae_lens_meme.metrics.permutation import permutation_within


@dataclass(frozen=True, eq=False)
class Memes:
    """Within what memes are permuted, and an order of them that does not depend on how they lie."""

    strata: Int[np.ndarray, " n"]
    order: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """`firing` and `firing_permuted` are empty where no latents are given."""

    name: str
    matching: Matching
    n_alive: int
    """Latents of the other SAE that take part."""
    random: Matching
    firing: dict[str, np.ndarray]
    firing_permuted: dict[str, np.ndarray]

    def numbers(self, alive: np.ndarray, thresholds: Sequence[float]) -> dict[str, Number]:
        """`{name}/...`; shares are of the alive latents, means of those with a partner."""
        found: dict[str, Number] = {
            "n_latents_of_other": self.n_alive,
            "n_matched": int((self.matching.partner >= 0).sum()),
        }
        for suffix, matching in (("", self.matching), ("_random", self.random)):
            for t in thresholds:
                found[f"share_above_{t:g}{suffix}"] = share_above(matching.cosine, alive, t)
                found[f"share_nearest_above_{t:g}{suffix}"] = share_above(matching.nearest, alive, t)
            found[f"mean_cosine{suffix}"] = mean_of(matching.cosine)
            found[f"mean_nearest_cosine{suffix}"] = mean_of(matching.nearest)
        for suffix, firing in (("", self.firing), ("_permuted", self.firing_permuted)):
            found |= {f"mean_{key}{suffix}": mean_of(values) for key, values in firing.items()}
        return {f"{self.name}/{key}": value for key, value in found.items()}

    def columns(self) -> dict[str, Any]:
        """Columns of the table of latents."""
        matched = pd.array(np.where(self.matching.partner < 0, 0, self.matching.partner), dtype="Int64")
        matched[self.matching.partner < 0] = pd.NA
        found = {"matched": matched, "cosine": nullable(self.matching.cosine)}
        found |= {"nearest_cosine": nullable(self.matching.nearest)}
        found |= {key: nullable(values) for key, values in self.firing.items()}
        return {f"{self.name}/{key}": column for key, column in found.items()}


def compare(
    name: str,
    these: Directions,
    others: Directions,
    latents: tuple[Latents, Latents] | None,
    memes: Memes | None,
    seed: int,
) -> Comparison:
    """Match, and look at the memes that matched latents fire on."""
    rng = np.random.default_rng([seed, 1])  # not the stream that somebody has drawn weights from
    matching, random = match(these, others), match(these, random_like(others, rng))
    firing: dict[str, np.ndarray] = {}
    permuted: dict[str, np.ndarray] = {}
    if latents is not None:
        mine, theirs = latents
        everywhere = np.zeros(mine.n_samples, np.int64)
        memes = Memes(everywhere, np.arange(mine.n_samples)) if memes is None else memes
        firing = firing_agreement(mine, theirs, matching.partner)
        handed = theirs.rows(permutation_within(memes.strata, rng, memes.order))
        permuted = firing_agreement(mine, handed, matching.partner)
    return Comparison(name, matching, int(others.alive.sum()), random, firing, permuted)


def share_above(cosine: np.ndarray, alive: np.ndarray, threshold: float) -> Number:
    """Of the alive latents; one without a partner is not above. None where none is alive."""
    return float((cosine[alive] >= threshold).mean()) if alive.any() else None


def mean_of(values: np.ndarray) -> Number:
    known = values[~np.isnan(values)]
    return defined(known.mean()) if len(known) else None


def require_comparable(sae: Any, name: str, other: Any) -> None:
    """Raises DataError unless both SAEs read the same hook of the same width."""
    if sae.cfg.d_in != other.cfg.d_in:
        raise DataError(f"stability: {name} has d_in {other.cfg.d_in}, the SAE has d_in {sae.cfg.d_in}")
    hook, hook_of_other = sae.cfg.metadata.hook_name, other.cfg.metadata.hook_name
    if hook is not None and hook_of_other is not None and hook != hook_of_other:
        raise DataError(f"stability: {name} was trained on {hook_of_other}, the SAE on {hook}; their directions differ")


def require_threshold(thresholds: Sequence[float]) -> None:
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ConfigError(f"stability: threshold {threshold} is no cosine above 0 and at most 1")
