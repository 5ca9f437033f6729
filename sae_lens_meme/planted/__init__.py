"""What is planted and therefore known: harmless drawn memes and a small encoder for them, or vectors in superposition."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
