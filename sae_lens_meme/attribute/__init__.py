"""The `attribute` step: the memes of each latent, and which words and regions of them drive it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
