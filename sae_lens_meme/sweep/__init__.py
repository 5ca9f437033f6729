"""The `sweep` step: one SAE for every setting of a grid and every seed, compared on equal terms."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
