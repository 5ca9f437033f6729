"""What each number of stability is."""

from __future__ import annotations

from collections.abc import Collection

from sae_lens_meme.evaluators.latents import Latents


def explain(latents: Latents | None, threshold: float, controls: Collection[str], scaled: bool) -> dict[str, str]:
    """Keys are fnmatch patterns; what comes later is more specific."""
    memes = "no memes: decoders only" if latents is None else f"all {latents.n_samples} memes of all splits"
    dead = "" if latents is None else "; latents that fire on none of the memes take no part"
    space = "each dimension divided by its scale first" if scaled else "in the space of the embeddings"
    shares = "share of the alive latents of this SAE (one without a partner is below)"
    return {
        "*": f"decoder rows {space}{dead}; nothing is fitted, so no rows are held out",
        "n_latents": "latents of this SAE",
        "n_alive": f"those that take part: they fire on some of {memes}, and have a decoder direction",
        "n_others": f"SAEs of other seeds; controls, in no mean: {', '.join(controls) or 'none'}",
        "*/n_latents_of_other": "latents of the other SAE that take part",
        "*/n_matched": "latents with a partner: all of the narrower SAE",
        "*cosine*": "cosine with the partner under the one-to-one matching of the largest sum (Hungarian algorithm)",
        "*share_above_*": f"cosine with the partner at least this; {shares}",
        "*nearest*": "the largest cosine with any latent of the other SAE, partner or not: an upper bound",
        "*_random": "control: the other SAE's directions replaced by Gaussian ones of the same mean and covariance, of norm 1",
        "*jaccard*": f"matched pairs on {memes}: memes that fire both over memes that fire one of them",
        "*correlation*": f"matched pairs on {memes}: Pearson's correlation of the activations",
        "*_permuted": "control: the other SAE's latents of each meme handed to another meme of its source",
        "mean/*": "mean over the other seeds",
        "least/*": "smallest over the other seeds",
        "most/*": "largest over the other seeds",
        "mean/share_in_all": f"cosine with the partner at least {threshold:g} in every other seed; {shares}",
        "mean_cosine": "mean over the other seeds in which the latent has a partner",
        "n_stable": f"other seeds in which the cosine with the partner is at least {threshold:g}",
        "*stable*": f"stable: mean cosine with the partners at least {threshold:g}",
        "significance/*": "latents with some concept at q_global < alpha (corrected protocol) against those tested without",
        "significance/odds_ratio*": "odds of being stable, significant over other: conditional maximum likelihood, exact interval",
        "significance/p": "Fisher's exact test, two-sided",
        "significance/*cosine_difference*": "mean of mean_cosine, significant minus other; bootstrap over latents",
        "significance/within_rate/*": "control for how often a latent fires: within quintiles of the firing rate",
        "significance/within_rate/odds_ratio*": "Mantel-Haenszel over the quintiles, interval of Robins, Breslow and Greenland",
        "significance/within_rate/p": "Cochran-Mantel-Haenszel test over the quintiles, two-sided",
        "significant": "some pair has q_global < alpha under the corrected protocol; null where none was tested",
        "firing_rate": f"share of {memes} that fire the latent",
        "*matched": "the partner in the other SAE",
    }
