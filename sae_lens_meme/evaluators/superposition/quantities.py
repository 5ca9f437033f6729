"""What the numbers of superposition are, and of which units."""

from __future__ import annotations

from sae_lens_meme.evaluators.context import SHUFFLED
from sae_lens_meme.evaluators.result import Quantity

SAE, NEURONS, RANDOM, PERMUTED = "sae", "neurons", "random", "permuted"
UNITS = {
    SAE: "latents that fire on the memes that select",
    NEURONS: "dimensions of the z-scored embedding, either sign a unit, each firing as often as some latent",
    RANDOM: "random directions of the z-scored embedding, each firing as often as some latent",
    SHUFFLED: "latents of an SAE that was trained on embeddings shuffled per dimension, firing as they do",
    PERMUTED: "the latents, with the targets of each meme given to another one of its source, groups whole; mean over draws",
}
HEADINGS = {NEURONS: "neurons", RANDOM: "random", SHUFFLED: "shuffled", PERMUTED: "permuted"}
OF_UNITS = (
    "bootstrap over the units, the memes as they are: units are not independent draws, so if anything it is too narrow"
)

_ANSWERS = (
    "a unit responds to a target if it fires more often where the target is true: exact one-sided test within source, q < alpha "
    "over all units and targets on train and validation memes, and p < alpha on test memes; every unit fires as often as a latent"
)
_NONE = "none of these units responds to any target"
N_UNITS = Quantity("n_units", "units")
ANSWERING = Quantity(
    "share_answering", f"share of the units that respond to a target at all; {_ANSWERS}", "there are no such units"
)
TARGETS = Quantity(
    "targets", f"targets that a unit responds to, mean over the units that respond to any; {_ANSWERS}", _NONE
)
ONE = Quantity(
    "share_one_target",
    f"of the units that respond to any target, the share that respond to exactly one; {_ANSWERS}",
    _NONE,
)
FACTORS = Quantity(
    "factors",
    f"labels and planted factors (values of one count once), mean over the units that respond to any; {_ANSWERS}",
    _NONE,
)
OF_ANSWERS = (TARGETS, FACTORS, ONE, ANSWERING)
N_TARGETS = Quantity(
    "n_targets", "targets: concepts on labels and, with an answer key, planted values that enough memes have"
)

_ROWS = "decoder rows of latents that fire, each dimension divided by its standard deviation over the train memes, of unit length"
SUM = Quantity(
    "sum_dimensionality",
    f"feature dimensionality 1 / sum over j of cos(i, j)^2 (Elhage et al. 2022), summed: at most the rank; {_ROWS}",
)
MEAN = Quantity("mean_dimensionality", f"the same, mean over the directions: 1 is a dimension for itself; {_ROWS}")
COSINE = Quantity("mean_abs_cosine", f"interference: mean |cosine| with the other directions; {_ROWS}")
NEAREST = Quantity("max_abs_cosine", f"|cosine| with the nearest other direction, mean over the directions; {_ROWS}")
OF_GEOMETRY = (SUM, MEAN, COSINE, NEAREST)
N_DIMENSIONS = Quantity("n_dimensions", "dimensions of the embedding that vary")
CLOSED_FORM = Quantity(
    "random_mean_abs_cosine_expected",
    "Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2)): mean |cosine| of random directions in as many dimensions",
)
NO_DECODER = "the SAE's decoder has no fixed rows, or fewer than two latents fire"

COLUMNS = {
    "units": "the set of units: " + "; ".join(f"{name}: {what}" for name, what in UNITS.items() if name != PERMUTED),
    "unit": "index of the latent, of the dimension (d_in + j for the other sign of dimension j), or of the random direction",
    "firing_rate": "share of train and validation memes that fire it",
    "n_selected": "targets with q < alpha on train and validation memes: optimistic",
    "n_targets": f"of these, targets with p < alpha on test memes: {_ANSWERS}",
    "n_factors": "labels and planted factors of these targets",
    "targets": "the names of these targets, at most 10",
    "dimensionality": "feature dimensionality of its direction among those of its set",
    "mean_abs_cosine": "mean |cosine| with the other directions of its set",
    "max_abs_cosine": "|cosine| with the nearest other direction of its set",
}
