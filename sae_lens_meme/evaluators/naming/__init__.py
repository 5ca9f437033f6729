"""What a latent may be called: words of the captions, concepts, or what someone else says of it."""

from sae_lens_meme.evaluators.naming.evaluator import Naming
from sae_lens_meme.evaluators.naming.external import Evidence, Meme, Namer
from sae_lens_meme.evaluators.naming.judge import Judge
from sae_lens_meme.evaluators.naming.log_odds import WordOdds, word_log_odds

__all__ = ["Evidence", "Judge", "Meme", "Namer", "Naming", "WordOdds", "word_log_odds"]
