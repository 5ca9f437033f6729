"""The instrumented models, imported as `sae_lens_meme.hooks`; names load on first use, so importing is free.

A new model is one file with one class under `@register`; `find` then knows it by name, and so does
`train.model_class_name` of a recipe.
"""

import lazy_loader

if __name__ == "hooks":
    raise ImportError("this folder is the package sae_lens_meme.hooks; write `from sae_lens_meme.hooks import ...`")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
