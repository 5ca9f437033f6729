"""What linear probes read from latents, embeddings and reconstructions."""

from sae_lens_meme.evaluators.probes.evaluator import Probes, permute_within

__all__ = ["Probes", "permute_within"]
