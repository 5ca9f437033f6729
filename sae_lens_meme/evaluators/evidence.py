"""How closely each metric follows the truth where the truth is known; used in the notes of metrics that do not.

Measured by `python -m benchmarks.recovery` (its table: benchmarks/README.md); a test compares the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

N_DICTIONARIES, N_SEEDS = 43, 5
"""Dictionaries trained on the planted vectors of one seed, and seeds of which all are finished."""
RHO: Mapping[str, float] = {
    "pairs": 0.17,
    "labels_auroc": 0.54,
    "labels_k_sparse_1": 0.53,
    "planted_tpp_5": 0.9,
    "labels_tpp_5": 0.86,
    "l0": 0.27,
    "dead_share": -0.02,
}
"""Spearman's rank correlation with recovery of the planted factors (MCC of the contest), mean over seeds, by metric."""
GUIDE, WEAK_GUIDE = 0.6, 0.3
"""From these correlations on a metric needs no note, or is a weak guide rather than no guide."""


def tracking(metric: str, name: str) -> str:
    """A sentence about a metric that does not follow the truth; nothing about one that does."""
    rho = RHO[metric]
    if rho >= GUIDE:
        return ""
    guide = "a weak guide" if rho >= WEAK_GUIDE else "no guide"
    return (
        f"{name} is {guide} to what an SAE recovers: over {N_DICTIONARIES} dictionaries of planted vectors its rank "
        f"correlation with recovery of the true factors is {rho:.2f}."
    )
