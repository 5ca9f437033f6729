"""What each number and each column of the audit is."""

from __future__ import annotations

from sae_lens_meme.evaluators.result import Quantity

PROBE = "probe on the embedding, test memes whose label and subgroup are known; background: known to be outside"
THRESHOLD = (
    "threshold with the best F1 on validation memes (train memes where no validation meme is true, or these measure)"
)
SAMPLES = "bootstrap of the test memes within source, groups whole; probe and threshold as they are"
NO_SAMPLES = "no resamples were requested, or they do not define it"

VALUES = {
    q.key: q
    for q in (
        Quantity("subgroup_auroc", f"AUROC within the subgroup; {PROBE}"),
        Quantity(
            "bpsn_auroc",
            "AUROC of background positives against subgroup negatives: low where harmless memes of the subgroup are taken for "
            f"the class (Borkan et al. 2019); {PROBE}",
        ),
        Quantity(
            "bnsp_auroc",
            "AUROC of subgroup positives against background negatives: low where memes of the class are missed in the subgroup; "
            f"{PROBE}",
        ),
        Quantity("fpr_subgroup", f"share of the subgroup's negatives that are flagged, {THRESHOLD}; {PROBE}"),
        Quantity("fpr_background", f"share of the background's negatives that are flagged, {THRESHOLD}; {PROBE}"),
        Quantity("fpr_gap", f"fpr_subgroup - fpr_background; control: fpr_gap_permuted; {PROBE}"),
    )
}
WITHIN = Quantity(
    "fpr_gap_within_source",
    "the gap among memes of one source, with Mantel and Haenszel's weights: what is left where the source is the same",
    "the subgroup is a source, or in no source there are negatives of both kinds",
)
PERMUTED = Quantity(
    "fpr_gap_permuted",
    "control: |gap| where membership changes places among memes of one source (of sources: among all), groups whole; mean "
    "over draws",
    "no draws were requested, or a draw leaves one side empty",
)
_ONCE = "two subgroups each of which is outside of the other are one comparison"
Q = Quantity(
    "q",
    f"Benjamini-Hochberg q over all pairs ({_ONCE}) of the two-sided exact test of the gap within source (of sources: without strata), "
    "of one meme per group",
    "there are too few negatives, or the margins allow only one table",
)
N_PAIRS = Quantity(
    "n_pairs", f"pairs of a class and a subgroup with enough negatives in and outside the subgroup; {_ONCE}"
)
N_LEFT_OUT = Quantity("n_pairs_left_out", "pairs with too few negatives to measure the gap")
N_GAPS = Quantity("n_pairs_with_gap", f"pairs whose gap in false positives has q < alpha: {Q.what}")
N_GAPS_PERMUTED = Quantity(
    "n_pairs_with_gap_permuted",
    "control: the same where membership changes places among memes of one source (of sources: among all), groups whole; mean "
    "over draws",
    "no draws were requested",
)
AUROC = Quantity("auroc", "AUROC of the probe on all its test memes, sources pooled", "the test memes are of one class")

_ABLATED = (
    "these latents are set to zero, the SAE's error kept, and the threshold moves so that as many of the memes that chose it are "
    "flagged as before; they carry most of the gap in mean logit on train and validation memes; measured on test memes"
)
_MATCHED = "control: as many other latents, each one of the 20 with the nearest firing rates"
NO_CARRIER = "no latent carries the gap on train and validation memes, or the SAE's decoder has no fixed rows"
NO_MATCHED = "no draws were requested, or too few other latents fire"
CLOSED = Quantity("closed", f"|gap| before minus |gap| after: {_ABLATED}; control: closed_matched", NO_CARRIER)
CLOSED_MATCHED = Quantity("closed_matched", f"{_MATCHED}; mean over draws", NO_MATCHED)
CLOSED_MATCHED_95 = Quantity("closed_matched_95", f"{_MATCHED}; 95 % quantile over draws", NO_MATCHED)
LOST = Quantity(
    "auroc_lost", f"AUROC of the probe before minus after: {_ABLATED}; control: auroc_lost_matched", NO_CARRIER
)
LOST_MATCHED = Quantity("auroc_lost_matched", f"{_MATCHED}; mean over draws", NO_MATCHED)
LOST_MATCHED_95 = Quantity("auroc_lost_matched_95", f"{_MATCHED}; 95 % quantile over draws", NO_MATCHED)
GAP_AFTER = Quantity("fpr_gap", f"gap in false positives after: {_ABLATED}", NO_CARRIER)

COUNTS = ("n_subgroup_positive", "n_subgroup_negative", "n_background_positive", "n_background_negative")
COLUMNS = {
    "question": "a class of a label: the probe flags memes of it",
    "subgroup": "the memes that are compared with the background",
    "column": "where the subgroup comes from: a label, source, or caption",
    "n_ablated": "latents set to zero: 0 for the audit itself; others for the subgroup with the largest gap on train and "
    "validation memes alone (`chosen`)",
    "chosen": "of the subgroups of this question it has the largest gap on train and validation memes",
    "split": "split of the rows that are measured",
    "n_subgroup_positive": "of these, memes of the class in the subgroup",
    "n_subgroup_negative": "others in the subgroup",
    "n_background_positive": "memes of the class that are known to be outside",
    "n_background_negative": "others that are known to be outside",
    **{key: q.what for key, q in VALUES.items()},
    **{
        f"{key}_{end}": f"{end} end of the 95 % interval of {key}: {SAMPLES}"
        for key in VALUES
        for end in ("low", "high")
    },
    WITHIN.key: WITHIN.what,
    PERMUTED.key: PERMUTED.what,
    "p": "two-sided exact test of the gap within source, of one meme per group",
    "q": Q.what,
    "selection_gap": "the gap on train and validation memes, which chose the subgroup and the latents: not a result",
    "auroc": f"{AUROC.what}; after the ablation where there is one",
    "latents": "the latents that carry the gap, the strongest first, at most 10: index and what it adds to the mean logit of "
    "the subgroup's negatives beyond that of the background's (train and validation memes); or those that are set to zero",
    "closed": CLOSED.what,
    "closed_low": f"low end of its 95 % interval: {SAMPLES}",
    "closed_high": "high end",
    **{q.key: q.what for q in (CLOSED_MATCHED, CLOSED_MATCHED_95, LOST, LOST_MATCHED, LOST_MATCHED_95)},
    "reason": "why numbers of this row are null",
}
