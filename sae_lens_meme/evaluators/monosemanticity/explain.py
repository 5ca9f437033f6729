"""What every number of `Monosemanticity` is: rows used, split, control."""

from __future__ import annotations

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.monosemanticity.panel import CROSS_MODAL, Panel
from sae_lens_meme.evaluators.result import Number

UNNAMED = (None, "arrays")
"""What embeddings say of their model when nobody told them; "arrays" is the default of `embed_arrays`."""


def independent(embeddings: Embeddings, reference: Embeddings | None) -> tuple[Number, str | None]:
    """1 if the reference's encoder is another one than the SAE reads, 0 if it is the same; None, and why, if unknown."""
    if reference is None:
        return 0, None
    models = [part.facts.get("model") for part in (embeddings, reference)]
    if any(name in UNNAMED for name in models):
        return None, "the embeddings or the reference do not name their model"
    return int(models[0] != models[1]), None


def explain(
    panel: Panel,
    which: str,
    embeddings: Embeddings,
    reference: Embeddings | None,
    min_support: float,
    n_permutations: int,
) -> dict[str, str]:
    """Lines for every number and every column.

    Args:
        which: the rows of the panel in words.
    """
    n = len(panel)
    counted = f"latents with an effective support of at least {min_support:g} on these {n} memes"
    test = "no permutations asked for"
    if n_permutations:
        test = f"{n_permutations} permutations of the activations within source, so that no p is below 1/{n_permutations + 1}"
    interval = f"95 % interval of the mean for these latents, delete-one jackknife over the {n} memes"
    no_choice = "jackknife interval of this latent; it does not count the choice"
    return {
        "n": f"{which} that are measured",
        "n_zero_norm": "memes left out: a reference embedding is the zero vector",
        "reference_is_independent": _independence(embeddings, reference),
        **{f"{name}/*": _reference(name, embeddings, reference) for name in panel.pairs},
        CROSS_MODAL: "MS across sides needs image and text embeddings of one width among the reference hooks",
        "*/sae/*": f"latents of the SAE, min-max scaled over the {n} memes",
        "*/neurons/*": "control: raw dimensions of the embedding the SAE reads, both signs, standardised on train rows, as "
        "many active on each meme as the SAE has latents",
        "*/permuted/*": "control: the SAE's latents, the activations of each meme handed to a random meme of its source; "
        f"mean over {n_permutations} draws",
        "*chance": f"mean cosine of all pairs of the {n} memes: what a latent that fires at random has",
        "*/*/n_latents": counted,
        "*/n_unfiltered": "latents for which MS is defined",
        "*/mean": f"mean MS over {counted}",
        "*/mean_low": interval,
        "*/mean_high": interval,
        "*/median": f"median MS over {counted}",
        "*corrected": "(MS - chance) / (1 - chance), chance being the mean cosine of all pairs",
        "*corrected_within_source": "(MS - chance) / (1 - chance), chance being the expected MS when the activations are "
        "handed to random memes of the same source (closed form): what the source alone gives is gone",
        "*/share_significant": f"share with q < .05, Benjamini-Hochberg over {counted}; {test}"
        + (
            f"; no p is below 1/{n_permutations + 1}, so that a share under {20 / (n_permutations + 1):.0%} shows as 0"
            if n_permutations
            else ""
        ),
        "*/permuted/share_significant": "of draws that are tested as if observed: what the test finds where nothing is",
        "*/best": f"largest MS over {counted}: chosen and measured on the same memes, so that permuted/best (mean over "
        "draws of the best latent) and permuted/best_max (largest over draws) are its fair controls",
        "*/best_max": "the largest MS of any latent in any draw",
        "*/best_low": no_choice,
        "*/best_high": no_choice,
        "*/best_*support": "of the best latent",
        "*/best_latent": "which latent is best",
        "*/p_best": f"share of draws whose best latent reaches the best: it counts the choice among all latents; {test}",
        "*/[mb]e*_unfiltered": "over all latents for which MS is defined, as published: it rewards latents that hang on a few memes",
        **_columns(n, test),
    }


def _columns(n: int, test: str) -> dict[str, str]:
    interval = f"95 % interval: delete-one jackknife over the {n} memes, exact, the min-max scaling held fixed"
    return {
        "latent": "of the SAE; one row a latent and reference",
        "reference": "the hook whose embeddings say how alike two memes are, or cross_modal",
        "support": f"memes of {n} on which the latent fires",
        "effective_support": "(sum a)^2 / sum a^2 of the scaled activations: as many equally weighted memes",
        "ms": "mean cosine of two memes, pairs weighted by the product of their activations (Pach et al. 2025)",
        "low": interval,
        "high": interval,
        "chance_within_source": "expected MS when the activations are handed to random memes of the same source (closed form)",
        "p": f"one-sided, (1 + draws that reach MS) / (1 + draws); {test}; only latents with enough effective support",
        "q": "Benjamini-Hochberg over the latents that have a p",
        "reason": "why MS is null, or p",
        "nearest_latent": "the latent whose top set shares most memes with this one's (uniqueness)",
        "jaccard": "of the two top sets",
    }


def _independence(embeddings: Embeddings, reference: Embeddings | None) -> str:
    found, why = independent(embeddings, reference)
    if found is None:
        return f"{why}: whether the reference is independent of the SAE's input is not known"
    if found:
        assert reference is not None
        return f"the reference is {reference.facts['model']}, the SAE reads {embeddings.facts['model']}"
    return (
        "0: the reference is the encoder that the SAE reads, so MS is NOT independent evidence: the SAE was trained on the "
        "geometry that judges it; give reference= embeddings of the same memes by another encoder"
    )


def _reference(name: str, embeddings: Embeddings, reference: Embeddings | None) -> str:
    found, _ = independent(embeddings, reference)
    whose = "not known to be independent of the SAE"
    if found is not None:
        whose = "an encoder that the SAE does not read" if found else "the SAE's own encoder, NOT independent of it"
    what = "image side of one meme, text side of another" if name == CROSS_MODAL else f"embeddings at {name}"
    return f"reference: {what}, by {(reference or embeddings).facts.get('model', 'an unnamed model')} ({whose})"
