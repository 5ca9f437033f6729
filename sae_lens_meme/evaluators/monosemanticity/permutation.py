"""Monte Carlo permutation test: the activations of a meme are handed to a random meme of the same source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from sae_lens_meme.evaluators.monosemanticity.kernels import permuted_pair_sums
from sae_lens_meme.evaluators.monosemanticity.panel import Panel
from sae_lens_meme.evaluators.monosemanticity.units import Units
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg
from sae_lens_meme.metrics.permutation import permutation_within

BLOCK = 32  # draws at a time
TIE = 1e-5
"""Draws are float32: a draw this little below the observed score counts as reaching it."""
NULL_TESTS = 20
"""So many draws are tested as if they had been observed, for what the test finds where there is nothing."""


@dataclass(frozen=True, eq=False)
class Draws:
    """MS of the tested latents under one reference: observed, and in every draw."""

    observed: Float[np.ndarray, " tested"]
    permuted: Float32[np.ndarray, "draws tested"]

    @property
    def p(self) -> Float[np.ndarray, " tested"]:
        """One-sided: (1 + draws that reach the observed score) / (1 + draws)."""
        return (1 + (self.permuted >= self.observed - TIE).sum(axis=0)) / (1 + len(self.permuted))

    @property
    def p_best(self) -> float:
        """The best of the tested latents against the best of each draw: holds for the choice among all of them."""
        reached = self.permuted.max(axis=1) >= self.observed.max() - TIE
        return float((1 + reached.sum()) / (1 + len(self.permuted)))

    def share_significant(self, alpha: float) -> float:
        return float((self.q < alpha).mean())

    @property
    def q(self) -> Float[np.ndarray, " tested"]:
        """Benjamini-Hochberg over the tested latents."""
        return benjamini_hochberg(np.log(self.p))

    def null_share_significant(self, alpha: float) -> float:
        """The mean share over draws that are each tested against all draws."""
        shares = []
        for draw in self.permuted[:NULL_TESTS]:
            p = (self.permuted >= draw - TIE).mean(axis=0)
            shares.append((benjamini_hochberg(np.log(p)) < alpha).mean())
        return float(np.mean(shares))


def permutation_draws(
    units: Units,
    panel: Panel,
    observed: dict[str, np.ndarray],
    tested: Int[np.ndarray, " tested"],
    n_draws: int,
    seed: int,
    side: tuple[int, ...] | None = None,
) -> dict[str, Draws]:
    """Draws of each reference of the panel, the same permutations for all latents and references.

    A meme's permutation depends on the sorted ids of its source, not on the order of the rows. Memory: the unit
    vectors in float32, and 4 bytes a draw, tested latent and reference.

    Args:
        observed: MS of all latents, by reference.
        tested: latents with a score.
    """
    side = (0,) * len(panel.hooks) if side is None else side
    vectors, weights = panel.units(), units.values.astype(np.float32)
    pairs, diagonal = np.array(list(panel.pairs.values())), panel.diagonal.astype(np.float32)
    sums = np.empty((n_draws, len(pairs), len(tested)), np.float32)
    moves = _Moves(panel, seed)
    for start in range(0, n_draws, BLOCK):
        out = sums[start : start + BLOCK]
        to = moves.draw(len(out))
        permuted_pair_sums(tested, units.indptr, units.rows, weights, np.array(side), vectors, pairs, diagonal, to, out)
    found = {}
    for p, (name, (i, j)) in enumerate(panel.pairs.items()):
        permuted = sums[:, p] / units.pair_weight(side[i], side[j])[tested].astype(np.float32)
        found[name] = Draws(observed[name][tested], permuted)
    return found


class _Moves:
    """Random permutations of the memes within their source."""

    def __init__(self, panel: Panel, seed: int):
        self.panel, self.by_id = panel, np.argsort(panel.ids, kind="stable")
        self.generator = np.random.default_rng(seed)

    def draw(self, n_draws: int) -> Int[np.ndarray, "draws n"]:
        to = [permutation_within(self.panel.strata, self.generator, self.by_id) for _ in range(n_draws)]
        return np.array(to, dtype=np.int32).reshape(n_draws, len(self.panel))
