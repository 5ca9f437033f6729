"""SAEs that other projects trained, as stock SAELens SAEs: `import_sae(path, out)`, or `sae-lens-meme import`.

Each `..._loader` is a converter: `SAE.load_from_disk(path, converter=saev_loader)`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
