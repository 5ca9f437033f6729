"""What a linear probe reads from latents, embedding and reconstruction."""

from sae_lens_meme.evaluators.probes.compute import choose, permute_within, scores
from sae_lens_meme.evaluators.probes.evaluator import Probes

__all__ = ["Probes", "choose", "permute_within", "scores"]
