"""What the numbers of confounder pairs are."""

from __future__ import annotations

from sae_lens_meme.evaluators.confounders.pairs import CAPTION, GIVEN, PICTURE
from sae_lens_meme.evaluators.result import Quantity, Section

SAE, NEURONS, RANDOM, PROBE, IMAGE_ONLY, TEXT_ONLY, FLIPPED = (
    "sae",
    "neurons",
    "random",
    "linear_probe",
    "image_only",
    "text_only",
    "permuted",
)
RIVALS = {
    NEURONS: ("neuron", "the raw dimension of the embedding chosen in the same way, dense"),
    RANDOM: ("random k", "one of as many random directions as there are latents, as many of them firing on each meme"),
    PROBE: ("probe", "a linear probe on the differences of the embedding within the pairs that choose (the ceiling)"),
    IMAGE_ONLY: (
        "image only",
        "a linear probe on the image embedding alone, fitted on pairs of every kind; .5 by construction where the picture "
        "is shared",
    ),
    TEXT_ONLY: (
        "text only",
        "a linear probe on the caption's embedding alone, fitted on pairs of every kind; .5 by construction where the "
        "caption is shared",
    ),
}
"""Heading of the column, and what it is."""
SHARED = {PICTURE: "same picture", CAPTION: "same caption", GIVEN: "given pairs"}

_SHARE = (
    "share of held-out pairs in which the unit is larger on the meme of which the concept is true, ties half; unit and sign "
    "chosen on the pairs of the train and of the validation memes by the mean signed difference over its root mean square"
)
ORDERED = Quantity("ordered", f"{_SHARE}; a latent of the SAE")
OF_RIVALS = {
    name: Quantity(
        f"ordered_{name}",
        f"control: share of the same pairs ordered rightly by {what}",
        f"these embeddings lack {'hook_image_embed' if name == IMAGE_ONLY else 'hook_text_embed'}",
    )
    for name, (_, what) in RIVALS.items()
}
OF_FLIPPED = Quantity(
    "ordered_permuted",
    "control: the same share where both memes of the pairs of a component change places at random before the latent is "
    "chosen; mean over draws (about .5)",
    "no draws were requested",
)
FLIPS_95 = Quantity(
    "flips_95",
    "control: 95 % quantile of the share when both memes of every pair of a component change places or none do (exact)",
)
P = Quantity("p", "one-sided p of the share under these flips (exact)")
Q = Quantity("q", "Benjamini-Hochberg q of p, all sets of pairs as one family")
MINUS_NEURONS = Quantity("sae_minus_neurons", "share of the latent minus share of the raw dimension, on the same pairs")
N_PAIRS = Quantity("n_pairs", "held-out pairs")
N_COMPONENTS = Quantity("n_components", "components of the held-out pairs: memes joined by pairs or of one group")
N_TIED = Quantity("n_tied", "held-out pairs in which the latent is the same on both memes, such as silent on both")
N_SELECTION = Quantity("n_selection_pairs", "pairs of train memes and of validation memes, which choose the units")
N_SETS = Quantity("n_sets", "sets of pairs, one for each concept and what the pairs share, with enough pairs")
N_ABOVE = Quantity("n_above_chance", "sets that one latent orders better than flips within pairs do (q below .05)")
MEAN = Quantity("mean_ordered", "mean over the sets of the share of held-out pairs ordered rightly by the latent")
OF_MEANS = {
    name: Quantity(f"mean_ordered_{name}", f"control: mean over the sets, of {what}", "it is undefined for every set")
    for name, (_, what) in RIVALS.items()
}

BOOTSTRAP = "bootstrap of the components of held-out pairs, for this latent"
WILSON = "Wilson's, with the components of held-out pairs as trials: they are fewer than 20, or all or none are ordered rightly"
NO_BOOTSTRAP = "no bootstrap samples were requested"

SECTION = Section(
    "Confounder pairs: one side the same, the label not",
    "Share of held-out pairs ordered rightly (ties half). neuron, random k: chosen in the same way; image only and text only "
    "are .5 by construction where that side is shared; flipped: pairs turned at random before the choice; flips 95%: what "
    "turning the held-out pairs reaches in 5 % of draws.",
    "share of held-out pairs ordered rightly",
)

COLUMNS = {
    "concept": "the concept of which one meme of each pair is true and one false",
    "shared": "picture, caption, or given (by a file)",
    "latent": "the latent chosen; null where none differs within a pair",
    "sign": "1: larger where the concept is true; -1: smaller",
    "n_selection_pairs": "pairs that chose it",
    "ordered_selection": "share of these ordered rightly: optimistic",
    "n_pairs": "held-out pairs",
    "n_components": "components of the held-out pairs",
    "n_tied": "held-out pairs in which the latent is the same on both memes",
    "ordered": "share of held-out pairs ordered rightly, ties half",
    "low": "low end of its 95 % interval",
    "high": "high end",
    "p": "one-sided p of flips within pairs",
    "q": "Benjamini-Hochberg over the rows of this table",
    "flips_95": "95 % quantile of the share under flips",
    "ordered_permuted": "control: pairs flipped before the choice, mean over draws",
    "neuron": "the raw dimension chosen",
    **{f"ordered_{name}": f"control: {what}" for name, (_, what) in RIVALS.items()},
}
