"""SAEs that other projects trained, as stock SAELens SAEs: `import_sae(path, out)`, or `sae-lens-meme import`.

Each `..._loader` is a converter: `SAE.load_from_disk(path, converter=saev_loader)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.importers.abstopk import abstopk_loader
    from sae_lens_meme.importers.dictionary_learning import dictionary_learning_loader
    from sae_lens_meme.importers.intervlm import intervlm_loader
    from sae_lens_meme.importers.options import FORMATS, ImportOptions
    from sae_lens_meme.importers.patchsae import patchsae_loader
    from sae_lens_meme.importers.saelens_v import Calibration, calibrate, saelens_v_loader
    from sae_lens_meme.importers.saev import saev_loader
    from sae_lens_meme.importers.sparsify import sparsify_loader
    from sae_lens_meme.importers.step import import_sae
    from sae_lens_meme.importers.table import converter_of
    from sae_lens_meme.importers.vit_gpt2 import vit_gpt2_loader
    from sae_lens_meme.importers.vit_prisma import vit_prisma_loader

_HOME = {
    "Calibration": "saelens_v",
    "FORMATS": "options",
    "ImportOptions": "options",
    "abstopk_loader": "abstopk",
    "calibrate": "saelens_v",
    "converter_of": "table",
    "dictionary_learning_loader": "dictionary_learning",
    "import_sae": "step",
    "intervlm_loader": "intervlm",
    "patchsae_loader": "patchsae",
    "saelens_v_loader": "saelens_v",
    "saev_loader": "saev",
    "sparsify_loader": "sparsify",
    "vit_gpt2_loader": "vit_gpt2",
    "vit_prisma_loader": "vit_prisma",
}
__all__ = [
    "FORMATS",
    "Calibration",
    "ImportOptions",
    "abstopk_loader",
    "calibrate",
    "converter_of",
    "dictionary_learning_loader",
    "import_sae",
    "intervlm_loader",
    "patchsae_loader",
    "saelens_v_loader",
    "saev_loader",
    "sparsify_loader",
    "vit_gpt2_loader",
    "vit_prisma_loader",
]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
