"""The `embed` step: one row a meme, one column a hook, in the layout of SAELens' cached activations.

`embed_corpus` runs a model over a corpus; `embed_arrays` takes vectors that exist already.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.embed.from_arrays import embed_arrays
    from sae_lens_meme.embed.from_corpus import embed_corpus
    from sae_lens_meme.embed.options import ArrayOptions, EmbedOptions
    from sae_lens_meme.embed.save import save_embeddings
    from sae_lens_meme.embed.tokens import token_rows

_HOME = {
    "ArrayOptions": "options",
    "EmbedOptions": "options",
    "as_embeddings": "in_memory",
    "embed_arrays": "from_arrays",
    "embed_corpus": "from_corpus",
    "save_embeddings": "save",
    "token_rows": "tokens",
}
__all__ = [
    "ArrayOptions",
    "EmbedOptions",
    "as_embeddings",
    "embed_arrays",
    "embed_corpus",
    "save_embeddings",
    "token_rows",
]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
