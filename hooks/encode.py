"""What open_clip computes on the way and does not return: the un-projected text feature, and the residual streams.

Both are read with temporary forward hooks; CLIP's own forward stays its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from open_clip import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor

from sae_lens_meme.errors import ModelError


def unprojected_text(clip: Any, tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch width"]:
    """The feature at the end token after `ln_final`, which `open_clip.CLIP.encode_text` goes on to project."""
    seen: list[Tensor] = []
    handle = clip.ln_final.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        clip.encode_text(tokens)
    finally:
        handle.remove()
    return text_global_pool(seen[-1], tokens, clip.text_pool_type, eos_token_id=clip.text_eos_id)


def require_unprojected_text(clip: Any, name: str) -> None:
    if not isinstance(clip, CLIP):
        raise ModelError(
            f"model {name!r}: fusion memeclip reads the text feature before CLIP's projection, which a "
            f"{type(clip).__name__} does not show; take an architecture such as ViT-L-14"
        )


def image_transformer(clip: Any) -> Any | None:
    """The image tower's transformer, or None where it is a ResNet or timm's."""
    transformer = getattr(clip.visual, "transformer", None)
    return transformer if hasattr(transformer, "resblocks") else None


def text_transformer(clip: Any) -> Any | None:
    transformer = getattr(getattr(clip, "text", clip), "transformer", None)
    return transformer if hasattr(transformer, "resblocks") else None


@contextmanager
def tapped(transformer: Any | None, tap: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Pass the residual stream after each block through `tap(layer, x)`, x always (batch, tokens, width)."""
    if transformer is None:
        yield
        return
    with ExitStack() as stack:
        for layer, block in enumerate(transformer.resblocks):
            hook = _batch_first_hook(layer, tap, transformer.batch_first)
            stack.callback(block.register_forward_hook(hook).remove)
        yield


def _batch_first_hook(layer: int, tap: Callable[[int, Tensor], Tensor], batch_first: bool) -> Callable[..., Tensor]:
    def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if batch_first:
            return tap(layer, output)
        return rearrange(
            tap(layer, rearrange(output, "token batch d -> batch token d")), "batch token d -> token batch d"
        )

    return hook
