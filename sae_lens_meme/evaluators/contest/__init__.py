"""The headline: what an SAE recovers, against everything else, on equal terms."""

from sae_lens_meme.evaluators.contest.ablation import Biased, Tie, biased_probes, chosen, effects, scr, tpp
from sae_lens_meme.evaluators.contest.compute import absorption, resampled
from sae_lens_meme.evaluators.contest.evaluator import Contest
from sae_lens_meme.evaluators.contest.kernels import fit_few
from sae_lens_meme.evaluators.contest.matched import auroc_of, best_units, correlation_of, f1_of, one_to_one
from sae_lens_meme.evaluators.contest.probing import LinearProbes, k_sparse, mean_differences
from sae_lens_meme.evaluators.contest.targets import Rows, Targets, special_cases, targets_of
from sae_lens_meme.evaluators.contest.units import Units

__all__ = [
    "Biased",
    "Contest",
    "LinearProbes",
    "Rows",
    "Targets",
    "Tie",
    "Units",
    "absorption",
    "auroc_of",
    "best_units",
    "biased_probes",
    "chosen",
    "correlation_of",
    "effects",
    "f1_of",
    "fit_few",
    "k_sparse",
    "mean_differences",
    "one_to_one",
    "resampled",
    "scr",
    "special_cases",
    "targets_of",
    "tpp",
]
