"""The `embed` step: one row a meme, one column a hook, in the layout of SAELens' cached activations.

`embed_corpus` runs a model over a corpus; `embed_arrays` takes vectors that exist already.
"""

from sae_lens_meme.embed.from_arrays import embed_arrays
from sae_lens_meme.embed.from_corpus import embed_corpus

__all__ = ["embed_arrays", "embed_corpus"]
