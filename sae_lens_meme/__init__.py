"""Teaches SAELens to read memes: hooked MemeCLIP, a TopK recipe, a meme corpus, evaluators with controls.

The steps are `corpus`, `embed`, `train`, `attribute`, `evaluate`; each is a module of that name and a command.
Importing `sae_lens_meme.train` registers the architecture `meme_topk` with SAELens.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Embeddings": "sae_lens_meme.embeddings",
    "HookedMemeCLIP": "sae_lens_meme.hooks",
    "MemeError": "sae_lens_meme.errors",
    "as_embeddings": "sae_lens_meme.embed",
    "MemeReader": "sae_lens_meme.read",
    "build_corpus": "sae_lens_meme.corpus",
    "concept_alignment": "sae_lens_meme.evaluators.concept_alignment",
    "embed_arrays": "sae_lens_meme.embed",
    "embed_corpus": "sae_lens_meme.embed",
    "import_sae": "sae_lens_meme.importers",
    "load_corpus": "sae_lens_meme.corpus",
    "measure": "sae_lens_meme.evaluators.measure",
    "read_meme": "sae_lens_meme.read",
    "record_training_rows": "sae_lens_meme.provenance",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """torch and SAELens take seconds to import: nothing does so before it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
