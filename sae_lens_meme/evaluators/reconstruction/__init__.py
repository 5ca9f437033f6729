"""How much of the embeddings the SAE gives back."""

from sae_lens_meme.evaluators.reconstruction.evaluator import Reconstruction, density_histogram
from sae_lens_meme.evaluators.reconstruction.reconstructed import normalises_at_run_time, reconstructed

__all__ = ["Reconstruction", "density_histogram", "normalises_at_run_time", "reconstructed"]
