"""What settings are compared by: recovery of planted values where these are known, else probes on one latent."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.contest.matched import Weights, correlation_of, one_to_one
from sae_lens_meme.evaluators.contest.probing import k_sparse
from sae_lens_meme.evaluators.contest.quantities import ESTIMATORS
from sae_lens_meme.evaluators.contest.targets import LABELS, PLANTED, Key, Rows, Targets, targets_of
from sae_lens_meme.evaluators.contest.units import Units
from sae_lens_meme.evaluators.rows import resampled

Draws = Float64[np.ndarray, " draws"]
"""Means over targets: of the memes as they are, then of each bootstrap sample."""


def without_test(memes: Embeddings) -> Embeddings:
    """The same memes, of which no test meme is in a split: what is measured on them is measured on validation memes."""
    return replace(memes, left_out=memes.left_out | frozenset(memes.rows("test").tolist()))


@dataclass(frozen=True, eq=False)
class Yardstick:
    """One number per SAE, on the held-out memes of these embeddings."""

    group: str
    targets: Targets
    rows: Rows
    weights: Weights

    @classmethod
    def of(cls, memes: Embeddings, key: Key | None, replicates: int) -> Yardstick:
        """Raises DataError where no label and no planted value can be scored."""
        rows, group = Rows.of(memes), LABELS if key is None else PLANTED
        targets, _ = targets_of(memes, rows, None, key)
        mine = targets.columns(group)
        if not len(mine):
            raise DataError("no planted value has enough true and false memes among the held-out ones")
        return cls(group, targets.only(mine), rows, resampled(memes, rows.test, replicates, seed=0))

    @property
    def name(self) -> str:
        return "MCC" if self.group == PLANTED else "AUROC"

    @property
    def targets_named(self) -> str:
        n = len(self.targets)
        return f"{n} planted value{'s'[: n != 1]}" if self.group == PLANTED else f"{n} label concept{'s'[: n != 1]}"

    @property
    def what(self) -> str:
        """Its definition."""
        quantity = ESTIMATORS["mcc" if self.group == PLANTED else "k_sparse"]
        return quantity.what if self.group == PLANTED else f"k = 1: {quantity.what}"

    def __call__(self, units: Units) -> Draws:
        if self.group == PLANTED:
            columns = one_to_one(units, self.targets, self.rows).columns(units)
            draws = correlation_of(columns, self.targets, self.rows, self.weights)
        else:
            draws = k_sparse(units, self.targets, self.rows, (1,), self.weights)[1]
        return np.nanmean(draws, axis=1)
