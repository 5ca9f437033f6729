"""Data whose truth is known because it was planted: harmless drawn memes with a small encoder, or vectors in superposition."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
