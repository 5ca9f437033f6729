"""What each number and each column of naming is."""

from __future__ import annotations

from collections.abc import Iterable

from sae_lens_meme.evaluators.naming.compute import ACTIVATION, GOOD_AUROC, LEAST_AUROC, SCORES
from sae_lens_meme.evaluators.result import Quantity

WHOLE = ("n", "support", "n_true", "few")
HELD_OUT = tuple(score for score in (*SCORES, *ACTIVATION) if score != "log_p")
"""Columns of scores on the rows that measure, of a name, a word and a concept."""
SELECTION = ("support", "auroc", "correlation", "f1")
MEANS = ("auroc", "auroc_activation", "f1", "f1_always_on", "precision", "recall", "correlation")
"""Scores that are given as a mean over latents."""

_RANKS = (
    "probability that the statement (the caption holds the word; the concept is true) ranks a meme that fires above one of "
    "its source that does not, ties half"
)
_ACTIVATION = (
    "probability that a meme of which the statement is true has the larger activation than one of its source of which it is "
    "false, ties half"
)
_INTERVAL = (
    "95 % interval over groups of memes (DeLong's; Newcombe's where fewer than 20 memes are of a kind, or the kinds are apart; "
    "null with one meme of a kind)"
)
NO_NAME = "no name"
SCORE = {
    "n": "memes with a caption, or with the label",
    "support": "of these, the ones that fire",
    "n_true": "of these, the ones of which the statement is true",
    "auroc": _RANKS,
    "auroc_low": f"low end of its {_INTERVAL}",
    "auroc_high": f"high end of its {_INTERVAL}",
    "few": "1: fewer than 20 of the memes fire, or fewer than 20 do not",
    "correlation": "Pearson's correlation of truth and firing, each centred within source",
    "f1": "F1 of the statement as a predictor of firing, sources pooled; control: f1_always_on",
    "f1_always_on": "control: F1 of saying of every meme that it fires",
    "precision": "of the memes of which the statement is true, the share that fires",
    "recall": "of the memes that fire, the share of which the statement is true",
    "auroc_activation": _ACTIVATION,
    "auroc_activation_low": f"low end of its {_INTERVAL}",
    "auroc_activation_high": f"high end of its {_INTERVAL}",
    "p": "exact one-sided p of the association within source, of one meme per group",
}

N_SELECTION = Quantity("n_selection", "memes that choose names (words: those of them with a caption)")
N_HELD_OUT = Quantity("n_held_out", "memes that measure names (words: those of them with a caption)")
N_STATEMENTS = Quantity("n_statements", "words in the vocabulary (of the captions that choose), or concepts")
_TESTED = "with q < alpha, exact test within source"
CANDIDATES = {
    quantity.key: quantity
    for quantity in (
        Quantity(
            "n_candidates",
            "latents that fire on enough of the memes that choose (option min_support) and have a best word (largest z of the "
            "log-odds with informative Dirichlet prior, within source) or concept (smallest exact p within source)",
        ),
        Quantity(
            "n_significant_selection",
            f"candidates {_TESTED} times the number of words or concepts and of kinds tried, on the memes that choose",
        ),
        Quantity("n_significant", f"candidates {_TESTED} on held-out memes"),
        Quantity("mean_auroc_selection", f"mean over candidates, on the memes that choose: {_RANKS}; the best of many"),
        *(Quantity(f"mean_{score}", f"mean over candidates: {SCORE[score]}") for score in MEANS),
    )
}
NAMES = {
    quantity.key: quantity
    for quantity in (
        Quantity(
            "n_named",
            "latents with a name: a word or concept with q < alpha on the memes that choose, of both the one whose truth "
            "correlates more with firing",
        ),
        Quantity("n_word", "latents named by a word"),
        Quantity("n_concept", "latents named by a concept"),
        Quantity("n_hold", f"names {_TESTED}, Benjamini-Hochberg over the latents with a name, on held-out memes"),
        Quantity(
            "median_auroc_hold",
            f"median over the names that hold, on held-out memes: {_RANKS}",
        ),
        Quantity("least_auroc_hold", f"the smallest of the names that hold, on held-out memes: {_RANKS}"),
        Quantity("n_good", f"names that hold with an AUROC of firing of {GOOD_AUROC:g} or more on held-out memes"),
        Quantity(
            "n_printed",
            f"names with an AUROC of firing of {LEAST_AUROC:g} or more on held-out memes; the others are printed as "
            f"{NO_NAME!r} (the held-out memes chose these names no better than that: their mean is optimistic)",
        ),
        Quantity("share_named", "n_named over the latents that fire on a meme that chooses"),
        Quantity("share_hold", "n_hold over n_named"),
        Quantity("mean_auroc_selection", f"mean over names, on the memes that choose: {_RANKS}; the best of many"),
        *(Quantity(f"mean_{score}", f"mean over names: {SCORE[score]}") for score in MEANS),
    )
}
JACKKNIFE = "delete-d jackknife (four fifths) over held-out memes, groups whole, the names as they are"
PERMUTED = "control: the same choice and measurement with the latents of each meme given to another meme of its source and split"

_OWN = {
    "latent": "index of the latent",
    "name": "a word or a concept; null where nothing is associated on the memes that choose",
    "printed": f"the name as it is printed: {NO_NAME!r} where there is none or its AUROC of firing on held-out memes is below "
    f"{LEAST_AUROC:g}",
    "kind": "word or concept",
    "reason": "why there is no name",
    "fires_selection": "memes that choose and fire the latent",
    "log10_p": "base-10 logarithm of p, which may underflow",
    "q": "Benjamini-Hochberg q over the latents with a name",
    "holds": "q < alpha; null where the held-out memes allow no test",
    "word": "the word with the largest z",
    "words": "the words with the largest z, best first",
    "word_z": "z of the word's log-odds, informative Dirichlet prior, within source, sources combined by inverse variance",
    "word_log_odds": "its log-odds",
    "concept": "the concept with the smallest exact p within source",
}
_OF = {
    "q_selection": "p on the memes that choose, times the number of statements it was chosen from and of kinds tried; "
    "Benjamini-Hochberg q over latents",
    "q": "Benjamini-Hochberg q over the latents with a candidate, on held-out memes",
}


def columns_of(names: Iterable[str]) -> dict[str, str]:
    """What each of these columns is."""
    return {name: _column(name) for name in names}


def _column(name: str) -> str:
    if name in _OWN:
        return _OWN[name]
    kind, _, score = name.partition("_")
    owner, score = (f"the best {kind}", score) if kind in ("word", "concept") else ("the name", name)
    if score in _OF:
        return f"of {owner}: {_OF[score]}"
    if score.endswith("_selection"):
        return f"of {owner}, on the memes that choose (the best of many): {SCORE[score.removesuffix('_selection')]}"
    return f"of {owner}, on held-out memes: {SCORE[score]}"
