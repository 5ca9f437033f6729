"""What each number and each column of concept alignment is."""

from __future__ import annotations

from sae_lens_meme.evaluators.concept_alignment.counts import FAMILIES, N_ABOVE, N_F1
from sae_lens_meme.evaluators.evidence import tracking
from sae_lens_meme.evaluators.result import Quantity

TESTED = {
    "corrected": "exact one-sided test within source (or within source and caption length, as the option strata says), on all memes with a known label; where memes have groups, on one meme a group (5 / 3 of "
    "the median p of five draws where that leaves out more than a tenth of the memes)",
    "published": "InterVLM's procedure: one-sided Fisher test on all memes of all splits at once, where a missing label is a "
    "negative (and matches sentiment<=-1) and a latent that never fires is a test with p = 1",
}
"""The test of association of each protocol, and its rows."""
SCORED = {
    "corrected": "threshold chosen on validation memes (on train memes for a concept that is true of no validation meme), "
    "F1 and AUROC (within source) on test memes",
    "published": "InterVLM's procedure: threshold and scores on all memes of all splits at once, a missing label is a negative",
}
"""The rows of the scores of each protocol."""
JACKKNIFE = (
    "for this SAE (another training seed gives other counts, by more than this); delete-d jackknife: twice the spread over random four fifths of the memes (groups whole) of each source, laid around the count; a "
    "bootstrap would take a repeated meme for independent evidence"
)
F1_INTERVAL = (
    "bootstrap over test memes within source, groups whole; of an F1 of 0 or 1, which is 0 or 1 in every resample, Clopper and Pearson's "
    "bounds of tp / (tp + fp + fn), from which F1 follows (Lam, Gopal and Qian 2023)"
)
HELD_OUT = ("f1_test", "winners_curse")
NOT_HELD_OUT = "the published protocol holds no rows out"
"""Why these are None under it."""
NO_QUALITY = (
    "A count of pairs is no measure of quality: units that load on everything are associated with everything, so that "
    f"random directions get more pairs than a good SAE. {tracking('pairs', 'The count')}"
).strip()
_OF = {
    "global": "over all latents and concepts",
    "concept": "each concept its own family of tests (where nothing is associated, expect at least alpha false pairs for each concept; "
    "with global, alpha over all of them together)",
}

COUNTS = {
    quantity.key: quantity
    for quantity in (
        *(Quantity(f"n_significant_{f}", f"pairs with Benjamini-Hochberg q < alpha, {_OF[f]}") for f in FAMILIES),
        *(Quantity(f"n_latents_{f}", f"latents with at least one pair of q < alpha, {_OF[f]}") for f in FAMILIES),
        Quantity("n_latents", "latents, or units of a control"),
        Quantity(
            "n_pairs_tested",
            "latent x concept pairs tested: those whose margins allow more than one table (corrected), or all (published)",
        ),
        Quantity(
            N_F1,
            "pairs whose F1 is above InterVLM's threshold: on test memes (corrected), the best on all memes (published); a "
            "concept of prevalence above .22 reaches it by always firing",
        ),
        Quantity(
            N_ABOVE,
            "pairs whose F1 is above that of a latent that fires on every meme, same memes: on test memes (corrected), the "
            "best on all memes (published)",
            "no concept is true of any meme that is scored",
        ),
        *(Quantity(f"share_of_latents_{f}", f"n_latents_{f} / n_latents") for f in FAMILIES),
        *(
            Quantity(f"share_of_tests_{f}", f"n_significant_{f} / n_pairs_tested", "no pair can be tested")
            for f in FAMILIES
        ),
    )
}
"""Numbers of `counts.PairCounts`."""
N_CONCEPTS = Quantity("n_concepts", "concepts")
WITHOUT_TEST = {
    f: Quantity(
        f"n_significant_without_test_{f}",
        f"pairs with q < alpha on the memes that are not test memes, {_OF[f]}: those whose AUROCs on test memes are given, as "
        "memes that had a part in choosing a pair would flatter it",
    )
    for f in FAMILIES
}
_CHOSEN = "q < alpha (corrected: of the test without the test memes, so that they choose nothing)"
_NONE = "no pair is significant (corrected: without the test memes)"
MEDIAN_AUROC = {
    f: Quantity(
        f"median_auroc_significant_{f}",
        f"median AUROC of the pairs with {_CHOSEN}, {_OF[f]}: the effect beside the significance",
        f"{_NONE}, or none of them has a defined AUROC, as where there are no test memes",
    )
    for f in FAMILIES
}
AUROC_ABOVE_HALF = {
    f: Quantity(
        f"n_auroc_above_half_significant_{f}",
        f"of the pairs with {_CHOSEN}, {_OF[f]}, those whose interval of the AUROC lies above .5 (one that is not known does "
        "not)",
        "no pair has a defined AUROC, as where there are no test memes",
    )
    for f in FAMILIES
}
HOLDING_HALF = {
    f: Quantity(
        f"share_auroc_holding_half_significant_{f}",
        f"of the pairs with {_CHOSEN}, {_OF[f]}, and an interval of the AUROC, the share whose interval contains .5: on these "
        "memes they are indistinguishable from chance",
        f"{_NONE}, or none of them has an interval, as where there are no test memes",
    )
    for f in FAMILIES
}
SEEDS = {
    what: Quantity(
        f"n_significant_global_seeds_{what}",
        f"{said} of n_significant_global over SAEs of the same recipe and other training seeds",
        "there is no SAE of another seed",
    )
    for what, said in {"least": "smallest", "most": "largest"}.items()
}
LOST_TO_LENGTH = Quantity(
    "n_lost_to_length",
    "pairs that are significant within source and no longer within source and decile of caption length (of that source; from "
    "under 1,000 memes fewer classes, at least three; memes without a caption are one), q over all latents and concepts",
)
FOUND_BY_LENGTH = Quantity(
    "n_found_by_length", "pairs that are significant within source and caption length, and not within source alone"
)
ABOVE_ALWAYS_ON = Quantity(
    "n_concepts_above_always_on",
    "concepts whose best latent has a larger F1 than a latent that fires on every meme",
    "no concept's best latent has an F1",
)

BEST_LATENT = Quantity("best_latent", "the latent with the best F1 on the memes that choose its threshold")
BEST = {
    "f1_validation": Quantity(
        "best_f1_validation", "F1 of the best latent on the memes that chose latent and threshold: optimistic"
    ),
    "f1_test": Quantity("best_f1_test", "F1 of that latent on test memes; control: best_f1_always_on"),
    "winners_curse": Quantity(
        "best_winners_curse",
        "best_f1_validation - best_f1_test = best_winners_curse_selection + best_winners_curse_shift",
    ),
    "f1_always_on": Quantity("best_f1_always_on", "control: F1 of a latent that fires on every meme, same rows"),
    "auroc": Quantity("best_auroc", "AUROC of that latent's activation; a constant latent has .5"),
}
"""Scores of a concept's best latent, by column of the table."""
CURSE = {
    "selection": Quantity(
        "best_winners_curse_selection",
        "what choosing the best of many costs: mean of F1 on the memes that choose minus F1 on the others where the two kinds "
        "are redrawn 20 times, within source and groups whole, and latent and threshold are chosen each time",
    ),
    "shift": Quantity(
        "best_winners_curse_shift",
        "best_winners_curse - best_winners_curse_selection: the memes that choose and the test memes as they are differ by "
        "more (or less) than two random parts of them",
    ),
}
"""Parts of the winner's curse of a concept's best latent."""
SOURCE_ONLY = Quantity(
    "f1_source_only",
    "control: F1 on test memes of the best rule that reads nothing but the source (it fires on whole sources, chosen on the "
    "memes that choose the threshold); F1 pools the sources, so that a latent that knows only the source gets this",
)

COLUMNS = {
    "latent": "index of the latent",
    "concept": "name of the concept",
    "protocol": "corrected or published",
    "n": "memes that the test of association reads",
    "a": "of these, the latent fires and the concept is true",
    "b": "fires, false",
    "c": "silent, true",
    "d": "silent, false",
    "odds_ratio": "Mantel-Haenszel, common to the sources; null where b c = 0",
    "p": "corrected: exact one-sided test within source, of one meme per group; published: one-sided Fisher test, sources pooled",
    "q_concept": "Benjamini-Hochberg q, each concept its own family of tests",
    "q_global": "Benjamini-Hochberg q over all latents and concepts",
    "auroc": "of the activation, on test memes within source (corrected) or on all memes (published)",
    "threshold": "activation from which the latent counts as firing, with the best F1 on the memes of threshold_split",
    "f1_validation": "F1 on the memes that chose the threshold: optimistic",
    "f1_test": "F1 on test memes; control: f1_always_on",
    "precision_test": "precision on test memes",
    "recall_test": "recall on test memes",
    "f1_always_on": "control: F1 of a latent that fires on every meme",
    "log10_p": "base-10 logarithm of p, which may underflow",
    "odds_ratio_low": "low end of the 95 % interval of Robins, Breslow and Greenland, which takes each meme for its own group",
    "odds_ratio_high": "high end of that interval",
    "firing_rate_difference": "P(fires | true) - P(fires | false), within source",
    "auroc_low": "low end of its 95 % interval: DeLong's (corrected: over groups, Obuchowski's), or Newcombe's where `few` or the kinds are apart; null with fewer than two memes of a kind",
    "auroc_high": "high end of that interval",
    "few": "1: fewer than 20 true or fewer than 20 false memes (groups) measure the AUROC; DeLong's interval does not hold there",
    "f1_ceiling": "2 min(r, p) / (r + p): the largest F1 at the firing rate r of the threshold and the prevalence p",
    "winners_curse": "f1_validation - f1_test",
    "n_test": "test memes with a known label",
    "threshold_split": "the split that chose the threshold: validation, train where no validation meme is true, or all (published)",
}
