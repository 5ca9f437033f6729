"""The text on pictures: `read_text` of one, `read_captions` of a corpus, with the box of every word."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
