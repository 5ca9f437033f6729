"""The `embed` step: one row per meme, one column per hook, in the layout of SAELens' cached activations.

`embed_corpus` runs a model over a corpus; `embed_arrays` takes vectors that exist already.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
