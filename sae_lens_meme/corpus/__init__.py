"""From folders of memes to one Hugging Face `DatasetDict` on disk, one row per meme."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
