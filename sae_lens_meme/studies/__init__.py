"""Studies of a chat model on a folder of pictures: the Standard Question Set, and SAE-V's patch filter."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
