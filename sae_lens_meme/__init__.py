"""Teaches SAELens to read memes: hooked MemeCLIP, a TopK recipe, a meme corpus, evaluators with controls.

The steps are `corpus`, `embed`, `train`, `attribute`, `evaluate`; each is a command, and a module of that name or `evaluators`.
Importing `sae_lens_meme.train` registers the architecture `meme_topk` with SAELens.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
