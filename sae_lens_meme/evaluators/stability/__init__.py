"""Which latents other training runs find again, and whether the significant latents are among them.

Latents are matched one to one on decoder cosines; random directions with the same mean and covariance are matched alike.
"""

from sae_lens_meme.evaluators.stability.agreement import seed_agreement
from sae_lens_meme.evaluators.stability.evaluator import Stability
from sae_lens_meme.evaluators.stability.matching import Matching, match
from sae_lens_meme.evaluators.stability.seeds import stability

__all__ = ["Matching", "Stability", "match", "seed_agreement", "stability"]
