"""Agreement of more than two seeds: latents that every one of them finds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number, Result, nullable
from sae_lens_meme.evaluators.stability.compare import require_comparable, require_threshold
from sae_lens_meme.evaluators.stability.matching import Directions, Matching, directions_of, match, random_like

EXPLAIN = {
    "*": "decoder rows, matched one to one for each pair of SAEs (Hungarian algorithm); no rows are held out",
    "n_saes": "SAEs, all of other seeds",
    "*/n_alive": "latents that fire on some meme (if latents are given) and have a direction",
    "*share_in_all*": "alive latents whose partner in every other SAE has a cosine of at least the threshold",
    "*share_consistent*": "of these, the partners in the other SAEs are also each other's partners",
    "*_random": "control: every SAE replaced by Gaussian directions of its mean and covariance, of norm 1",
    "mean/*": "mean over the SAEs",
    "least_cosine": "the smallest cosine with a partner over the other SAEs",
    "in_all": "least_cosine is at least the threshold, and there is a partner everywhere",
    "consistent": "in_all, and the partners are each other's partners",
}


def seed_agreement(
    saes: Mapping[str, Any],
    *,
    latents: Mapping[str, Latents] | None = None,
    scale: Float[np.ndarray, " d_in"] | None = None,
    threshold: float = 0.7,
    seed: int = 0,
) -> Result:
    """The share of the latents of each SAE that all others have too; one row an SAE and latent.

    Args:
        saes: three or more, by name.
        latents: of the memes, by the same names; dead latents then take no part.
        scale: what each dimension of the decoder rows is divided by.

    Raises:
        ConfigError: fewer than three SAEs; `stability` compares two.
        DataError: they read other hooks or widths.
    """
    if len(saes) < 3:
        raise ConfigError(f"seed_agreement: {len(saes)} SAEs are given; give three or more, or use stability")
    require_threshold([threshold])
    first, rng = next(iter(saes)), np.random.default_rng([seed, 1])
    for name, sae in saes.items():
        require_comparable(saes[first], name, sae)
    directions = {name: directions_of(sae, (latents or {}).get(name), scale) for name, sae in saes.items()}
    random = {name: random_like(rows, rng) for name, rows in directions.items()}
    numbers: dict[str, Number] = {"n_saes": len(saes)}
    tables = []
    for suffix, dictionaries in (("", directions), ("_random", random)):
        pairs = _all_pairs(dictionaries)
        for name in saes:
            table = _of_one(name, dictionaries, pairs, threshold)
            alive = dictionaries[name].alive
            tables += [table] if not suffix else []
            numbers |= {} if suffix else {f"{name}/n_alive": int(alive.sum())}
            for share, column in (("share_in_all", "in_all"), ("share_consistent", "consistent")):
                held = table[column].fillna(False).to_numpy(dtype=bool)
                numbers[f"{name}/{share}{suffix}"] = float(held[alive].mean()) if alive.any() else None
        for share in ("share_in_all", "share_consistent"):
            values = [v for name in saes if (v := numbers[f"{name}/{share}{suffix}"]) is not None]
            numbers[f"mean/{share}{suffix}"] = float(np.mean(values)) if values else None
    reasons = {key: "no latent takes part" for key, value in numbers.items() if value is None}
    return Result("seed_agreement", numbers, reasons, pd.concat(tables, ignore_index=True), dict(EXPLAIN))


def _all_pairs(dictionaries: Mapping[str, Directions]) -> dict[tuple[str, str], Matching]:
    """Both ways; the matching itself is symmetric."""
    pairs = {}
    for a, b in combinations(dictionaries, 2):
        pairs[a, b] = forth = match(dictionaries[a], dictionaries[b])
        pairs[b, a] = _reversed(forth, len(dictionaries[b].rows))
    return pairs


def _reversed(matching: Matching, n: int) -> Matching:
    partner, cosine = np.full(n, -1), np.full(n, np.nan)
    mine = np.flatnonzero(matching.partner >= 0)
    partner[matching.partner[mine]], cosine[matching.partner[mine]] = mine, matching.cosine[mine]
    return Matching(partner, cosine, cosine)


def _of_one(
    name: str, dictionaries: Mapping[str, Directions], pairs: Mapping[tuple[str, str], Matching], threshold: float
) -> pd.DataFrame:
    others, alive = [other for other in dictionaries if other != name], dictionaries[name].alive
    cosines = np.stack([pairs[name, other].cosine for other in others])
    in_all: Any = (cosines >= threshold).all(axis=0)  # NaN is above nothing
    consistent = np.array(in_all)
    for a, b in combinations(others, 2):
        partner = pairs[name, a].partner
        consistent &= pairs[a, b].partner[np.maximum(partner, 0)] == pairs[name, b].partner
    columns: dict[str, Any] = {"sae": pd.array([name] * len(alive), dtype="string"), "latent": np.arange(len(alive))}
    columns["least_cosine"] = nullable(cosines.min(axis=0))
    columns |= {
        key: pd.arrays.BooleanArray(held, ~alive) for key, held in (("in_all", in_all), ("consistent", consistent))
    }
    return pd.DataFrame(columns)
