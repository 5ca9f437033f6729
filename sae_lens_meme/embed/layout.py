"""The columns of an embeddings data set, and the checks that every row passes before it is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Array2D, Features, Value
from jaxtyping import Float

from sae_lens_meme.embeddings import require_finite
from sae_lens_meme.errors import DataError
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED


def embedding_features(described: dict[str, Value], widths: dict[str, int]) -> Features:
    """The description columns, then one `Array2D((1, d), "float32")` column a hook.

    The shape is the one that SAELens' cached-activations reader asks for, with a context of one.
    """
    return Features({**described, **{hook: Array2D((1, d), "float32") for hook, d in widths.items()}})


def fuse(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "n d"], ids: Sequence[str]
) -> Float[np.ndarray, "n d"]:
    """`unit(image) * unit(text)` elementwise, computed in float64, returned as float32."""
    return (unit(image, IMAGE_EMBED, ids) * unit(text, TEXT_EMBED, ids)).astype(np.float32)


def unit(x: Float[np.ndarray, "n d"], hook: str, ids: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """Rows divided by their L2 norm, float64.

    Raises:
        DataError: a row is the zero vector.
    """
    x = np.asarray(x, dtype=np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    zero = np.flatnonzero(norm[:, 0] == 0)
    if zero.size:
        raise DataError(
            f"{hook}, row {zero[0]} (id {ids[zero[0]]!r}): the vector has norm 0 and cannot be normalised; remove the row"
        )
    return x / norm


__all__ = ["FUSED", "IMAGE_EMBED", "TEXT_EMBED", "embedding_features", "fuse", "require_finite", "unit"]
