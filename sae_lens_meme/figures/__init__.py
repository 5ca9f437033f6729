"""Figures for papers: PNG and SVG, safe for colour-blind readers. One file per figure.

A figure is a module with `TITLE`, `draw(axes, inputs, ...)` and, where it has several panels, `panels(inputs)`, which
gives the arguments of each.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
