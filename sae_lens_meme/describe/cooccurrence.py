"""Which labels go together beyond what the sources and chance give."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from sae_lens_meme.describe.tables import DescriptionTable

DRAWS, SIGNIFICANT = 199, 0.05
_COLUMNS = ["labels", "memes with both", "groups", "V", "V permuted", "p", "q"]


def cooccurrence(memes: pd.DataFrame, labels: list[str], seed: int = 0) -> DescriptionTable:
    """Cramér's V of every two labels, on one meme of each group, beside V where one of them is permuted within sources."""
    rng = np.random.default_rng(seed)
    pairs = [_pair(memes, a, b, rng) for a, b in combinations(labels, 2)]
    rows = [row for row in pairs if row[1]]
    tested = [row for row in rows if row[5] is not None]
    for row, q in zip(tested, false_discovery_control([row[5] for row in tested]) if tested else [], strict=True):
        row[6] = float(q)
    beyond = [row for row in tested if row[6] <= SIGNIFICANT]
    strongest = max(beyond, key=lambda row: row[3] - row[4], default=None)
    never, constant = len(pairs) - len(rows), len(rows) - len(tested)
    conclusion = (
        f"{len(beyond)} of {len(tested)} pairs of labels go together within their sources (q <= {SIGNIFICANT})"
        + (f", most {strongest[0]}: a score for one is partly a score for the other" if strongest is not None else "")
        + (f"; of {constant} pairs one label has a single value where both are known" if constant else "")
        + (f"; {never} pairs are on no meme together" if never else "")
        + "."
    )
    return DescriptionTable("cooccurrence", "Labels that go together (Cramér's V)", _COLUMNS, rows, conclusion)


def _pair(memes: pd.DataFrame, a: str, b: str, rng: np.random.Generator) -> list[Any]:
    both: Any = memes[memes[a].notna() & memes[b].notna()]
    one = both.sort_values("id").drop_duplicates("group")  # copies are no independent evidence
    row: list[Any] = [f"{a}, {b}", len(both), len(one), None, None, None, None]
    if not len(one):
        return row
    x, y, source = (pd.factorize(one[name], sort=True)[0] for name in (a, b, "source"))
    if min(x.max(), y.max()) == 0:  # one value only
        return row
    observed = _v(x, y)
    places = [np.flatnonzero(source == code) for code in range(source.max() + 1)]
    permuted = np.empty(DRAWS)
    for draw in range(DRAWS):
        shuffled = y.copy()
        for mine in places:
            shuffled[mine] = y[rng.permutation(mine)]
        permuted[draw] = _v(x, shuffled)
    p = (1 + int((permuted >= observed).sum())) / (1 + DRAWS)
    return [*row[:3], observed, float(permuted.mean()), p, None]


def _v(x: np.ndarray, y: np.ndarray) -> float:
    """Cramér's V of two codes with at least two values each."""
    shape = x.max() + 1, y.max() + 1
    table = np.bincount(x * shape[1] + y, minlength=shape[0] * shape[1]).reshape(shape)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / len(x)
    chi2 = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / len(x) / (min(shape) - 1)))
