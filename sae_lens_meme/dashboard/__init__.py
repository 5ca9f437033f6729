"""`report.html`: the run, every latent, every meme and every concept as one page that needs no network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
