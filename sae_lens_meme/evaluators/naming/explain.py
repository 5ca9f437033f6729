"""What each number and each column of naming is."""

from __future__ import annotations

from sae_lens_meme.evaluators.naming.memes import Memes
from sae_lens_meme.evaluators.naming.names import Settings


def explain(memes: Memes, settings: Settings) -> dict[str, str]:
    """Keys are fnmatch patterns; what comes later is more specific."""
    chosen = f"the {len(memes.selection)} rows that are not held out"
    measured = f"the {len(memes.held_out)} {memes.split} rows" if memes.split else "no rows (none are held out)"
    lines = {
        "*": f"what chooses a name reads {chosen} only; scores without _selection in their name are of {measured}; words on rows "
        "with a caption, concepts on rows with the label; a latent fires where its activation is above 0",
        "*/*": "control: permuted/*",
        "permuted/*": "control: the same choice and measurement with the latents of each meme handed to another meme of its "
        "source and split; on held-out rows about .5 (auroc) and 0 (counts, correlation)",
        **_of_numbers(settings),
        **_of_scores(),
        **_of_columns(),
    }
    return {pattern: line for patterns, line in lines.items() for pattern in patterns.split(", ")}


def _of_numbers(settings: Settings) -> dict[str, str]:
    return {
        "n_selection": "rows that choose names",
        "n_held_out": "rows that measure them",
        "*/n_statements": "words in the vocabulary (of the captions of the selection rows), or concepts",
        "word/n_selection, word/n_held_out": "of these, the ones with a caption",
        "concept/n_selection, concept/n_held_out": "all of them; those without the label are unknown",
        "*n_candidates": f"latents that fire on at least {settings.min_support} selection rows and have a best word (largest z "
        "of the log-odds with informative Dirichlet prior, within source) or concept (smallest exact p within source)",
        "*n_significant_selection": f"candidates with q_selection < {settings.alpha:g}",
        "*n_significant": f"candidates with q < {settings.alpha:g} on held-out rows",
        "*names/n_named": f"latents with a name: q_selection < {settings.alpha:g}; of a word and a concept the one with the larger "
        "correlation_selection",
        "*names/n_word": "latents named by a word",
        "*names/n_concept": "latents named by a concept",
        "*names/n_hold*": f"names with q < {settings.alpha:g} on held-out rows (Benjamini-Hochberg over the latents with a name)",
        "*names/n_hold_low, *names/n_hold_high": "95 % interval: delete-d jackknife (four fifths) over held-out memes, the names as they are",
        "*names/share_named": "n_named over the latents that fire on a selection row",
        "*names/share_hold": "n_hold over n_named",
        "word/mean_*, concept/mean_*, permuted/word/mean_*, permuted/concept/mean_*": "mean over candidates",
        "*names/mean_*": "mean over names",
        "external/*": "names given from outside for chosen latents, and a judge's scores of held-out captions against firing",
        "external/n_named": "latents with a name from outside",
        "external/n_judged": "latents with a name and held-out captions of both kinds",
        "external/n_judged_above_half": "of these, the interval of judge_auroc lies above .5",
    }


def _of_scores() -> dict[str, str]:
    """Scores of a word_, of a concept_, or a mean_ of them; those of a judge_ are something else."""
    return {
        "auroc, auroc_low, auroc_high, *[dtn]_auroc, *[dt]_auroc_low, *[dt]_auroc_high": "probability that the statement (the caption holds the word; the concept is true) ranks "
        "a meme that fires above one of its source that does not, ties half; DeLong interval (null with one meme of a kind)",
        "*auroc_activation*": "probability that a meme of which the statement is true has the larger activation than one of its "
        "source of which it is false, ties half; DeLong interval",
        "*f1, *precision, *recall": "of the statement as a predictor of firing, sources pooled; control: f1_always_on",
        "*f1_always_on": "control: F1 of saying of every meme that it fires",
        "*correlation": "Pearson's, of truth and firing, each centred within source",
        "*auroc_selection, *correlation_selection, *f1_selection, *_support_selection": "the same on the rows that chose: the best "
        "of many, so above chance for permuted latents too",
        "*q_selection": "exact one-sided p within source, times the number of statements it was chosen from and of kinds tried "
        "(word, concept), Benjamini-Hochberg over latents",
        "log10_p": "base-10 logarithm of p, which may underflow",
        "p, *_p": "exact one-sided test of association within source",
        "q": "Benjamini-Hochberg over the latents with a name",
        "*_q": "Benjamini-Hochberg over the latents with a candidate",
        "holds": "q < alpha; null where the held-out rows allow no test",
        "n, *_n": "memes with a caption, or the label",
        "support, *_support": "of these, the ones that fire",
        "n_true, *_n_true": "of these, the ones of which the statement is true",
        "*judge_auroc*": "AUROC within source of the judge's scores against firing, on a sample of held-out captions, half of them "
        "firing, source by source; DeLong interval",
        "*judge_auroc_wrong_name": "control: the same captions judged under the name of another latent",
    }


def _of_columns() -> dict[str, str]:
    return {
        "latent": "index of the latent",
        "name": "word, concept, or the name from outside; null where nothing is associated on the selection rows",
        "kind": "where the name comes from",
        "reason": "why there is no name",
        "fires_selection": "selection rows that fire the latent",
        "word": "the word with the largest z",
        "words": "the words with the largest z, best first",
        "word_z, word_log_odds": "informative Dirichlet prior, within source, sources combined by inverse variance",
        "concept": "the concept with the smallest exact p within source",
    }
