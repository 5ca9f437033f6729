"""The headline: what an SAE recovers, against everything else, on equal terms."""

from sae_lens_meme.evaluators.contest.evaluator import Contest

__all__ = ["Contest"]
