"""What each number and each column of the cross-concept analysis is."""

from __future__ import annotations

from sae_lens_meme.evaluators.result import Quantity

LATENTS = (
    "latents of a concept: those with q < alpha (exact one-sided test within source on all memes with a known label, one a "
    "group; Benjamini-Hochberg over all latents and concepts), as in concept_alignment"
)
BY_CHANCE = "control: by chance from the margins, latents of the one x latents of the other / latents tested for both"
EQUAL_RATE = "control: the same within ten bins of firing rate (fewer with less than 200 latents), summed (a latent that fires often is found for every concept)"
LABELS_ALONE = (
    "control: latents of one concept that pass for the other's after the other's labels change places among memes of the "
    "same source and the same value of the first, groups whole: margins and overlap of the labels stay. Mean over draws, "
    "the larger of the two ways round"
)
UNTESTED = "the two are concepts of one label, or the margins allow only one count"
NEVER_KNOWN = "no meme has both labels known, or one of them is constant on the memes that do"

N_PAIRS = Quantity("n_pairs", "pairs of concepts of different labels whose margins allow more than one count")
N_SHARING = Quantity(
    "n_pairs_sharing",
    f"of these, pairs that share more latents than the margins give by chance: hypergeometric q < alpha; {LATENTS}",
)
N_EQUAL_RATE = Quantity(
    "n_pairs_sharing_equal_rate", "the same with an exact test within bins of firing rate: q < alpha"
)
N_BEYOND = Quantity(
    "n_pairs_beyond_labels",
    "of those of n_pairs_sharing_equal_rate, pairs that share more latents than 95 % of the draws in which the labels overlap "
    "as they do and nothing else ties the latents to the second concept",
    "no draws were requested",
)
N_PERMUTED = Quantity(
    "n_pairs_sharing_permuted",
    "control: n_pairs_sharing where all labels of a meme are given to another one of its source, groups whole; mean over "
    "draws",
    "no draws were requested",
)
N_SERVING = Quantity("n_latents_serving_two", "latents that serve concepts of two or more labels")
N_SERVING_PERMUTED = Quantity(
    "n_latents_serving_two_permuted",
    "control: the same with all labels of a meme given to another one of its source; mean over draws",
    "no draws were requested",
)
N_LATENTS = Quantity("n_latents_serving_any", "latents that serve a concept")

SHARED = Quantity("shared", f"latents of both concepts; {LATENTS}")
EXPECTED = Quantity("expected", BY_CHANCE)
EXPECTED_RATE = Quantity("expected_equal_rate", EQUAL_RATE)
FROM_LABELS = Quantity("shared_permuted", LABELS_ALONE, "no draws were requested")
Q = Quantity("q", "Benjamini-Hochberg q over pairs of the hypergeometric upper tail", UNTESTED)
Q_RATE = Quantity("q_equal_rate", "the same of the exact test within bins of firing rate", UNTESTED)
PHI = Quantity("phi", "phi coefficient of the two labels themselves, over memes of which both are known", NEVER_KNOWN)

COLUMNS = {
    "concept": "one concept",
    "other": "another one",
    "same_label": "both are concepts of one label: in no count and in no family of tests",
    "n_tested": "latents that are tested for both",
    "n_concept": "of these, latents of the one",
    "n_other": "latents of the other",
    "shared": "latents of both",
    "expected": BY_CHANCE,
    "p": "upper tail of the hypergeometric distribution; null where the margins allow only one count",
    "q": "Benjamini-Hochberg q of p over pairs of different labels",
    "expected_equal_rate": EQUAL_RATE,
    "p_equal_rate": "exact one-sided test within bins of firing rate",
    "q_equal_rate": "Benjamini-Hochberg q of it over pairs of different labels",
    "shared_permuted": LABELS_ALONE,
    "shared_permuted_95": "95 % quantile over the draws, the larger of the two ways round",
    "beyond_labels": "q_equal_rate < alpha, and shared is above shared_permuted_95; null without draws",
    "n_known": "memes of which both labels are known",
    "n_both_true": "of these, memes of which both concepts are true",
    "phi": "phi coefficient of the labels over these memes; null where one of them is constant there",
    "phi_within_source": "the same within source",
    "latents": "the shared latents, most significant first (by the weaker of their two p), at most 20",
}
