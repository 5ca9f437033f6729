"""Names for latents: words of the captions, or concepts."""

from sae_lens_meme.evaluators.naming.evaluator import Naming
from sae_lens_meme.evaluators.naming.kernels import WordOdds, word_log_odds

__all__ = ["Naming", "WordOdds", "word_log_odds"]
