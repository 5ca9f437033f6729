"""What the numbers of the contest are, and who takes part."""

from __future__ import annotations

from sae_lens_meme.evaluators.context import SHUFFLED
from sae_lens_meme.evaluators.result import Quantity

SAE, PROBE, PERMUTED, RANDOM_LATENTS = "sae", "linear_probe", "permuted_labels", "random_latents"
HEADINGS = {
    "neurons": "neurons",
    "pca": "PCA",
    "ica": "ICA",
    "random": "rotation",
    "neurons_k": "neurons k",
    "pca_k": "PCA k",
    "ica_k": "ICA k",
    "random_k": "random k",
    SHUFFLED: "shuffled",
    PROBE: "probe",
    PERMUTED: "permuted",
    RANDOM_LATENTS: "random latents",
}
"""The columns of the printed table."""
NAMES = {
    SAE: "the SAE",
    "neurons": "dense neurons",
    "pca": "dense PCA",
    "ica": "dense ICA",
    "random": "a dense random rotation",
    "neurons_k": "neurons of equal sparsity",
    "pca_k": "PCA of equal sparsity",
    "ica_k": "ICA of equal sparsity",
    "random_k": "random directions of equal sparsity",
    SHUFFLED: "the SAE of shuffled data",
    PROBE: "a linear probe on the whole embedding (the ceiling)",
    PERMUTED: "the SAE with labels permuted within source",
    RANDOM_LATENTS: "as many latents of the SAE at random",
}
"""In sentences."""
PRINTED = ("neurons", "pca", "ica", "neurons_k", "random_k", SHUFFLED, PERMUTED, RANDOM_LATENTS, PROBE)
"""The columns of the printed table; PCA and ICA of equal sparsity and a random rotation are in the table of the contest."""

_TEST = "mean over targets, on test memes within source"
ESTIMATORS = {
    q.key: q
    for q in (
        Quantity("auroc", f"AUROC of the best single unit, chosen on train and validation memes; {_TEST}"),
        Quantity(
            "f1",
            "F1 on test memes of the same unit, its threshold the best on train and validation memes; mean over targets",
        ),
        Quantity(
            "k_sparse",
            "AUROC of a logistic regression on the k units with the largest absolute mean difference on train memes "
            f"(SAEBench), its penalty chosen on validation memes; {_TEST}",
        ),
        Quantity(
            "tpp",
            "targeted probe perturbation (SAEBench): the n units with the largest mean difference x (direction . probe) "
            "are set to zero; what the target's probe loses in balanced accuracy, minus what the others lose; mean over "
            "targets, on test memes",
            "there are fewer than two targets, or the units have no fixed directions",
        ),
        Quantity(
            "tpp_auroc",
            "the same in AUROC, which a shift of all logits does not change, units by |mean difference x (direction . "
            "probe)|; mean over targets, on test memes",
            "there are fewer than two targets, or the units have no fixed directions",
        ),
        Quantity(
            "scr",
            "spurious correlation removal (SAEBench): a probe is trained where 90 % of the targets agree with a tie (the "
            "source, or a value of another factor); n units that carry the tie are set to zero; (accuracy after - biased) "
            "/ (balanced - biased), mean over tasks, on test memes with the four cells of target and tie alike; tasks are those "
            "with balanced - biased of .05 or more on the same memes, and the interval takes that difference for exact, so "
            "that it is too short where a task's is small",
            "no target varies enough with a tie to bias a probe, or the units have no fixed directions",
        ),
        Quantity(
            "mcc",
            "mean correlation of planted values with the units matched one to one (Hungarian algorithm on |correlation| "
            "within source, on train and validation memes), on test memes within source",
        ),
        Quantity(
            "matched_f1",
            "F1 on test memes of the units matched one to one, their thresholds the best on train and validation memes; "
            "mean over planted values",
        ),
        Quantity(
            "split", "share of planted values of which a second unit in the probe adds more than .03 to the AUROC"
        ),
        Quantity(
            "absorbed",
            "planted special cases (an object in a scene, a phrasing of a topic): how often the unit of the general value "
            "is silent on test memes on which the case's own unit fires; mean over cases",
            "no case has a unit of its own that fires on test memes",
        ),
        Quantity(
            "absorbed_elsewhere",
            "how often the unit of the general value is silent on its other test memes; mean over the same cases",
            "no case has a unit of its own that fires on test memes",
        ),
        Quantity("own_latent", "share of the special cases whose best unit is not that of the general value"),
    )
}
COUNTS = {
    ("auroc", 0.9): Quantity("n_auroc_0.9", "targets whose best unit has a test AUROC of .9 or more"),
    ("matched_f1", 0.8): Quantity(
        "n_f1_0.8", "planted values whose unit matched one to one has a test F1 of .8 or more"
    ),
}
"""Targets with at least this score."""
WILCOXON = (
    "two-sided p of a Wilcoxon signed-rank test over the targets, of two that are opposite on every meme the first"
)
SEEDS = "standard deviation over SAEs of other training seeds and this one"
FEW_TARGETS = "fewer than 5 targets (opposite ones counted once) differ, of which no rank test can say anything"
BOOTSTRAP = "bootstrap of the test memes, those of one group drawn together, for this SAE and these targets"
NO_BOOTSTRAP = "it has no bootstrap samples"

COLUMNS = {
    "targets": "labels, planted (values of the picture's or the caption's factors) or cross_modal (of both together)",
    "estimator": "what is measured, see the keys of this evaluator",
    "k": "units of a probe, or units set to zero; null where there is no such number",
    "units": "the set of units: sae, or what stands in its place",
    "sparsity": "dense, or k: as many units fire on each meme as latents of the SAE",
    "target": "all, for the mean over targets, or one target; for scr a target and its tie",
    "n_targets": "targets of the mean",
    "value": "the estimate",
    "low": "low end of its 95 % interval (bootstrap of the test memes, groups drawn together)",
    "high": "high end",
    "sae_minus": "the SAE's value minus this one",
    "sae_minus_low": "low end of its 95 % interval (the same samples for both)",
    "sae_minus_high": "high end",
    "wilcoxon_p": "two-sided signed-rank test over the targets (of opposite ones the first), of the SAE against these units",
    "seeds_sd": "of the SAE: standard deviation of the value over SAEs of other training seeds and this one",
}
