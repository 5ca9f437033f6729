"""For every number of a cross-modal result: rows used, split, control."""

from __future__ import annotations

from collections.abc import Sequence

from sae_lens_meme.evaluators.classifiers import Task
from sae_lens_meme.evaluators.cross_modal.comparison import Settings


def explain(
    tasks: Sequence[Task], settings: Settings, top: int, min_support: int, delta: float, n_train: int
) -> dict[str, str]:
    """Patterns of keys and columns -> what they are."""
    return _of_weights(settings, top, min_support, delta, n_train) | _of_scores(settings) | _of_tasks(tasks, settings)


def _of_weights(settings: Settings, top: int, min_support: int, delta: float, n_train: int) -> dict[str, str]:
    resampled = f"{settings.n_bootstrap} resamples of the train memes within source (seed {settings.seed}), 95 %"
    return {
        "memes/*": "train memes; without_cosine: the image or the text embedding is a zero vector, so that they take no part",
        "latents/*": f"of all latents, by the train memes on which the activation exceeds {delta:g}: none (silent), fewer "
        f"than {min_support} (too_rare: no weight), or enough (with_weight)",
        "latent": "number of the latent in the SAE",
        "support": f"train memes on which the latent exceeds {delta:g}",
        "omega": f"mean of the {top} x {top} cosines of the texts and the images of the {top} train memes that activate the "
        f"latent most; null where it fires on fewer than {min_support}; control: chance",
        "paired": "the part of omega between a meme's own text and image: the CLIP score of the latent's memes",
        "unpaired": "the part of omega between the text of one meme and the image of another",
        "chance": "omega expected of as many random train memes of the same sources (closed form)",
        "omega_corrected": "(omega - chance) / (1 - chance)",
        **dict.fromkeys(
            ("low", "high"), f"percentile interval of omega, {resampled}; a meme drawn twice is not paired with itself"
        ),
        "omega/*": f"over the latents with a weight, on {n_train} train memes; control: chance, and *_permuted",
        "omega/*_permuted": "control: the embeddings of each meme are those of another train meme of its source",
        "omega/above_chance*": f"share of latents whose interval of omega ({resampled}) lies above chance; by chance alone as in "
        "above_chance_permuted",
        "cosine/*": f"mean cosine over {n_train} train memes: text and image of the same meme, of two memes, of two memes of one "
        "source (closed form); control: two_memes for same_meme",
    }


def _of_scores(settings: Settings) -> dict[str, str]:
    chosen = " of each source" if settings.within_source else ""
    return {
        "score/*": "Spearman correlation over the train memes, which also set the weights; sum: of omega over a meme's active "
        "latents, mean: over those with a weight. spearman_l0 near 1: the score counts active latents; spearman_clip near 1: it is "
        "the meme's own CLIP score",
        "stability/*": f"the best share{chosen} of the train memes, kept again when the weights are those of resampled train memes: "
        f"mean over {settings.n_bootstrap} resamples (seed {settings.seed}); control: *_random",
        "stability/*/kept_again*": "share of the kept memes",
        "stability/*/jaccard*": "kept in both over kept in either",
        "stability/*_random": "control: expected of two random selections of this size (exact)",
        **dict.fromkeys(("stability/*_low", "stability/*_high"), "95 % of the resamples"),
    }


def _of_tasks(tasks: Sequence[Task], settings: Settings) -> dict[str, str]:
    chosen = " of each source" if settings.within_source else ""
    lines = {
        f"{t.name}/*": f"logistic probe (C = 1, L2-normalised latents) fitted on known train memes, {len(t.train)}"
        + (f" thinned to {settings.max_rows}" if len(t.train) > settings.max_rows else "")
        + f", measured on {len(t.held_out)} known {t.split or 'held-out'} rows"
        for t in tasks
    }
    return lines | {
        "*/all/*": "fitted on all of them; null where the label is no task",
        "*/n_train": "known train memes to choose from",
        **dict.fromkeys(
            (f"{t.name}/keep_*" for t in tasks),
            f"fitted on this share{chosen} of them, the same number for each score; control: random",
        ),
        "*/keep_*/sum/*": "largest sum of omega over active latents (SAE-V)",
        "*/keep_*/mean/*": "largest mean of omega over active latents",
        "*/keep_*/clip/*": "largest cosine of the meme's own text and image",
        "*/keep_*/l0/*": "most active latents",
        "*/random/*": f"control: mean, lowest and highest of {settings.n_random} random selections (seed {settings.seed})",
        "*/auroc*": "all sources pooled, unless within_source; second of two classes, with more the mean of one class against the rest",
        "*/auroc_within_source*": "among memes of one source: knowing the source gives 0.5",
        "*_minus_random*": "difference to the mean of the random selections",
        **dict.fromkeys(
            ("*_minus_random_low", "*_minus_random_high"),
            f"95 % percentile bootstrap over held-out memes within source, {settings.n_bootstrap} resamples; it does not count "
            "which memes the random selections draw (see lowest, highest)",
        ),
    }
