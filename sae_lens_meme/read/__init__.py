"""What a model sees in one meme: `read_meme`, or a `MemeReader` for many."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
