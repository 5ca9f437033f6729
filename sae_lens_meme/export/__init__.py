"""`export`: the folder that Neuronpedia imports, its upload, and folders for the Hugging Face Hub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.export.corpus import export_corpus, push_corpus
    from sae_lens_meme.export.hub import export_hub, push_hub
    from sae_lens_meme.export.options import ExportOptions
    from sae_lens_meme.export.sae import mark_sae
    from sae_lens_meme.export.sending import upload, write_requests
    from sae_lens_meme.export.step import export

_HOME = {
    **{"ExportOptions": "options", "export": "step", "mark_sae": "sae"},
    **{"upload": "sending", "write_requests": "sending", "export_hub": "hub", "push_hub": "hub"},
    **{"export_corpus": "corpus", "push_corpus": "corpus"},
}
__all__ = [
    "ExportOptions",
    "export",
    "export_corpus",
    "export_hub",
    "mark_sae",
    "push_corpus",
    "push_hub",
    "upload",
    "write_requests",
]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
