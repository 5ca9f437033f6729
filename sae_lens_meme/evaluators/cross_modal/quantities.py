"""What every number and every column of the cross-modal evaluator is."""

from __future__ import annotations

from sae_lens_meme.evaluators.cross_modal.weights import Weights
from sae_lens_meme.evaluators.result import Quantity

_OVER = "over the latents with a weight, train memes"

OF_WEIGHTS = {
    quantity.key: quantity
    for quantity in (
        Quantity("memes/train", "train memes"),
        Quantity(
            "memes/without_cosine", "train memes whose image or text embedding is a zero vector: they take no part"
        ),
        Quantity("latents/silent", "latents that fire on no train meme"),
        Quantity("latents/too_rare", "latents that fire on too few train memes for a weight"),
        Quantity("latents/with_weight", "latents that fire on enough train memes for a weight"),
        Quantity("omega/median", f"median weight {_OVER}"),
        Quantity(
            "omega/median_permuted",
            f"control: median weight {_OVER}, the embeddings of each meme being those of another train meme of its source",
        ),
        Quantity(
            "omega/median_chance", f"control: median weight expected of random memes of the same sources, {_OVER}"
        ),
        Quantity("omega/median_corrected", f"median of (omega - chance) / (1 - chance), {_OVER}"),
        Quantity("omega/median_paired", f"median of the part of a weight between a meme's own text and image, {_OVER}"),
        Quantity(
            "omega/median_unpaired",
            f"median of the part between the text of one meme and the image of another, {_OVER}",
        ),
        Quantity(
            "omega/above_chance",
            f"share of latents whose 95 % interval lies above chance, {_OVER}; not corrected for multiplicity",
        ),
        Quantity("omega/above_chance_permuted", "control: the same share for permuted memes, that is, by chance alone"),
        Quantity(
            "omega/significant",
            f"share of latents above chance with q < .05: one-sided p from the bootstrap standard error, "
            f"Benjamini-Hochberg over the latents, {_OVER}",
        ),
        Quantity("omega/significant_permuted", "control: the same share for permuted memes"),
        Quantity("cosine/same_meme", "mean cosine of text and image of the same train meme; control: two_memes"),
        Quantity("cosine/two_memes", "control: mean cosine of the text of one train meme and the image of another"),
        Quantity("cosine/two_memes_within_source", "control: the same for two memes of one source"),
    )
}

TOKEN_WEIGHTS = {
    quantity.key: quantity
    for quantity in (
        Quantity("tokens/text", "train tokens that are text"),
        Quantity("tokens/image", "train tokens that are part of a picture"),
        Quantity("pictures/train", "pictures with such tokens"),
        Quantity("latents/silent", "latents that fire on none of these tokens"),
        Quantity(
            "latents/one_kind",
            "latents of which the 30 tokens that fire them most hold fewer than five of text or fewer than five of pictures",
        ),
        Quantity("latents/with_weight", "latents with five of each kind"),
        Quantity("omega/median", "median weight over the latents with one, train tokens"),
        Quantity(
            "omega/median_permuted",
            "control: mean over 20 permutations of the median weight where the activations of each picture and its text go together to "
            "another of its source",
        ),
        Quantity("omega/median_chance", "control: mean cosine of any text token and any image token of one source"),
        Quantity(
            "score/spearman_l0",
            "Spearman correlation over train pictures of the score (sum of the weights of latents active in a text token and "
            "an image token) with the number of these latents; near 1: the score counts latents",
            "the score or the number of latents is the same for all train pictures",
        ),
    )
}
TOKEN_COLUMNS = {
    "latent": "index of the latent",
    "text_tokens": "train tokens of text that fire it",
    "image_tokens": "train tokens of pictures that fire it",
    "omega": "of the 30 train tokens that fire it most, mean of the 5 x 5 cosines of the hidden states of the strongest text "
    "tokens and image tokens; null with fewer than five of either; control: omega/median_chance",
}

SPEARMAN = {
    "l0": Quantity(
        "spearman_l0",
        "Spearman correlation with L0 over the train memes, which also set the weights; near 1: the score counts active latents",
    ),
    "clip": Quantity(
        "spearman_clip",
        "Spearman correlation with the CLIP score over the train memes; near 1: the score is the meme's own CLIP score",
    ),
}

_AGAIN = "of the memes kept by the weights of all train memes and by those of resampled ones, mean over resamples"
AGAIN = {
    "kept_again": Quantity("kept_again", f"share {_AGAIN}", "n_bootstrap is 0: no resamples"),
    "kept_again_random": Quantity(
        "kept_again_random", "control: the same of two random selections of this size (exact)"
    ),
    "jaccard": Quantity("jaccard", f"kept in both over kept in either, {_AGAIN}", "n_bootstrap is 0: no resamples"),
    "jaccard_random": Quantity("jaccard_random", "control: the same of two random selections of this size (exact)"),
}

N_TRAIN = Quantity("n_train", "known train memes to choose from")
N_KEPT = Quantity("n_kept", "memes that each score keeps")
KEPT_BY = {
    "sum": "largest sum of omega over active latents (SAE-V)",
    "mean": "largest mean of omega over active latents",
    "clip": "largest cosine of the meme's own text and image",
    "l0": "most active latents",
}
SAME_AS_SUM = "the same memes as by the sum here: every meme has as many active latents with a weight"
BOTH_DRAWS = (
    "Student's t: variance of a bootstrap over held-out memes within source, groups whole, plus that of the training draw "
    "(the spread of the random selections, once for the kept memes and once for their mean)"
)
_POOLED = "AUROC, all sources pooled; second of two classes, with more the mean of one class against the rest"
_WITHIN = "AUROC among memes of one source: knowing the source gives 0.5"
AUROC = {
    "auroc": Quantity("auroc", _POOLED),
    "auroc_within_source": Quantity("auroc_within_source", _WITHIN),
}
RANDOM = {
    f"{key}{suffix}": Quantity(f"{key}{suffix}", f"control: {which} of the random selections; {what}")
    for key, what in (("auroc", _POOLED), ("auroc_within_source", _WITHIN))
    for suffix, which in (("", "mean"), ("_lowest", "lowest"), ("_highest", "highest"))
}
DIFFERENCE = {
    f"{key}_minus_random": Quantity(f"{key}_minus_random", f"difference to the mean of the random selections; {what}")
    for key, what in (("auroc", _POOLED), ("auroc_within_source", _WITHIN))
}


def columns(weights: Weights) -> dict[str, str]:
    """Of the table of weights."""
    ends = "95 % percentile interval of omega over resamples of the train memes within source, groups whole; a meme drawn twice is not paired with itself"
    return {
        "latent": "index of the latent",
        "support": f"train memes on which the latent exceeds {weights.delta:g}",
        "omega": f"mean of the {weights.top} x {weights.top} cosines of the texts and the images of the {weights.top} train "
        f"memes that activate the latent most; null where it fires on fewer than {weights.min_support}; control: chance",
        "low": ends,
        "high": ends,
        "chance": "omega expected of as many random train memes of the same sources (closed form)",
        "omega_corrected": "(omega - chance) / (1 - chance)",
        "paired": "the part of omega between a meme's own text and image: the CLIP score of the latent's memes",
        "unpaired": "the part of omega between the text of one meme and the image of another",
    }
