"""Steering: a latent of an SAE is set while a chat model or captioner answers, and its answers are compared with controls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
