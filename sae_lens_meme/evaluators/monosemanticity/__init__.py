"""Whether a latent stands for one thing: monosemanticity, uniqueness, hierarchy."""

from sae_lens_meme.evaluators.monosemanticity.evaluator import Monosemanticity, cross_modal_monosemanticity
from sae_lens_meme.evaluators.monosemanticity.hierarchy import hierarchy, matryoshka_widths
from sae_lens_meme.evaluators.monosemanticity.uniqueness import uniqueness

__all__ = ["Monosemanticity", "cross_modal_monosemanticity", "hierarchy", "matryoshka_widths", "uniqueness"]
