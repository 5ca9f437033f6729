"""What each number and each column of the probes is."""

from __future__ import annotations

from sae_lens_meme.evaluators.result import Quantity

CHOSEN = "C chosen on validation memes"
_ZSCORED = f"z-scored on the known train rows of the task, {CHOSEN}"
SPACES = {
    "majority": "control: class frequencies of the train rows, whatever the meme",
    "latents": f"probe on L2-normalised latents, {CHOSEN}",
    "latents_permuted": "control: probe on L2-normalised latents, at the C of the true labels, whose train labels are permuted "
    "within source (groups whole), measured on the true labels. Above 0.5 is what knowing the source gives: latents show the "
    "source, and the classes differ in frequency between sources",
    "embedding": f"probe on the embedding, {_ZSCORED}",
    "reconstruction": f"probe on the reconstruction, {_ZSCORED}",
}
SCORES = (
    Quantity(
        "auroc",
        "AUROC of the second of two classes; with more, mean of one class against the rest over the classes that occur. All "
        "sources pooled, so that knowing the source counts; control: auroc_within_source",
    ),
    Quantity(
        "auroc_within_source",
        "AUROC among memes of one source, sources weighted by their (true, false) pairs: knowing the source gives 0.5",
    ),
    Quantity(
        "balanced_accuracy",
        "share of the memes of a class that are classified correctly, mean over the classes that occur",
    ),
    Quantity("accuracy", "share of the memes that are classified correctly"),
    Quantity("log_loss", "cross-entropy in nats, mean over memes"),
)
AUROC, WITHIN = SCORES[:2]
GRADIENT = Quantity(
    "gradient_norm",
    "L2 norm of the gradient of |w|^2/(2 C) + sum of losses where the fit stopped (converged: <= 1e-4)",
)
PENALTY = Quantity(
    "C",
    "inverse of the L2 penalty: of the options' grid the one with the best AUROC within source on the validation memes that "
    "know the label; 1 where there are none that do not also measure, or nothing to choose between",
)
BOOTSTRAP = "bootstrap over held-out memes within source, groups whole, the probes as they are"
PAIRED = f"{BOOTSTRAP}; both probes are scored on the same resamples"
NO_BOOTSTRAP = "no resamples are drawn, or they do not define it"
COLUMNS = {
    "task": "the label",
    "space": f"what the probe reads: {', '.join(SPACES)}",
    "split": "split of the rows that are measured; null where there are none",
    "n_train": "known train rows that the probe was fitted on",
    "n_held_out": "known rows that are measured",
    "n_classes": "classes among the train rows",
    **{q.key: q.what for q in (*SCORES, GRADIENT, PENALTY)},
}
BESIDE = {
    "permuted": ("latents_permuted", "auroc"),
    "within source": ("latents", "auroc_within_source"),
    "permuted, within source": ("latents_permuted", "auroc_within_source"),
    "embedding": ("embedding", "auroc"),
    "reconstruction": ("reconstruction", "auroc"),
}
"""The columns beside a row's AUROC of latents: space and score."""
RIVALS = ("embedding", "reconstruction")
"""Spaces that the latents are compared with on the same resamples."""
