"""Whether a latent stands for one thing: monosemanticity, uniqueness, hierarchy."""

from sae_lens_meme.evaluators.monosemanticity.compute import Draws, Measurement, Scores, moves, permutation_draws, score
from sae_lens_meme.evaluators.monosemanticity.evaluator import Monosemanticity
from sae_lens_meme.evaluators.monosemanticity.hierarchy import hierarchy, matryoshka_widths
from sae_lens_meme.evaluators.monosemanticity.panel import CROSS_MODAL, Panel, PanelUnits
from sae_lens_meme.evaluators.monosemanticity.quantities import measures_of, measures_of_draws
from sae_lens_meme.evaluators.monosemanticity.uniqueness import top_sets, uniqueness

__all__ = [
    "CROSS_MODAL",
    "Draws",
    "Measurement",
    "Monosemanticity",
    "Panel",
    "PanelUnits",
    "Scores",
    "hierarchy",
    "matryoshka_widths",
    "measures_of",
    "measures_of_draws",
    "moves",
    "permutation_draws",
    "score",
    "top_sets",
    "uniqueness",
]
