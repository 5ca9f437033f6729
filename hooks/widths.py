"""Which hooks a model has, and the width of the activations at each."""

from __future__ import annotations

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import names
from sae_lens_meme.hooks.encode import image_transformer, text_transformer
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.hooks.towers import Fusion, Towers


def hook_widths(
    fusion: Fusion, towers: Towers | None, heads: MemeCLIPHeads | None, cached: dict[str, int]
) -> dict[str, int]:
    """`{hook: width}` in the order of the computation.

    Raises:
        ModelError: image and text, or embeddings and heads, have widths that do not go together.
    """
    widths = _tower_widths(towers, fusion) if towers is not None else _cached_widths(cached)
    pair = names.IMAGE_EMBED in widths
    if heads is not None:
        widths |= _memeclip_widths(heads, widths)
    elif pair and fusion == "clip":
        if widths[names.IMAGE_EMBED] != widths[names.TEXT_EMBED]:
            raise ModelError(
                f"image embeddings have width {widths[names.IMAGE_EMBED]}, text embeddings {widths[names.TEXT_EMBED]}; "
                "fusion clip multiplies them, so take the projected embeddings of one model"
            )
        d = widths[names.IMAGE_EMBED]
        widths |= {names.IMAGE_UNIT: d, names.TEXT_UNIT: d, names.FUSED: d}
    elif names.FUSED not in widths:
        missing = "MemeCLIP's heads" if pair else f"{names.FUSED}, or {names.IMAGE_EMBED} with {names.TEXT_EMBED}"
        raise ModelError(f"there is nothing to fuse: these embeddings lack {missing}")
    if cached.get(names.FUSED, widths[names.FUSED]) != widths[names.FUSED]:
        raise ModelError(
            f"{names.FUSED} has width {cached[names.FUSED]} in the embeddings and {widths[names.FUSED]} in the model"
        )
    return widths


def _cached_widths(cached: dict[str, int]) -> dict[str, int]:
    """One of the two factors alone makes no fused vector, so it is no hook of the model."""
    pair = names.IMAGE_EMBED in cached and names.TEXT_EMBED in cached
    return {hook: cached[hook] for hook in names.EMBEDDING_HOOKS if hook in cached and (pair or hook == names.FUSED)}


def _tower_widths(towers: Towers, fusion: Fusion) -> dict[str, int]:
    image, text = image_transformer(towers.model), text_transformer(towers.model)
    streams = {names.IMAGE_RESID: image, names.TEXT_RESID: text}
    widths = {
        f"{stem}.{layer}": transformer.width
        for stem, transformer in streams.items()
        if transformer is not None
        for layer in range(len(transformer.resblocks))
    }
    d_text = text.width if fusion == "memeclip" and text is not None else towers.d_embed
    return widths | {names.IMAGE_EMBED: towers.d_embed, names.TEXT_EMBED: d_text}


def _memeclip_widths(heads: MemeCLIPHeads, before: dict[str, int]) -> dict[str, int]:
    for hook, d_in in ((names.IMAGE_EMBED, heads.d_image), (names.TEXT_EMBED, heads.d_text)):
        if before.get(hook, d_in) != d_in:
            raise ModelError(
                f"the heads take {hook} of width {d_in}, here it has {before[hook]}; take the CLIP they were trained on"
            )
    pair = (
        names.IMAGE_PROJ,
        names.TEXT_PROJ,
        names.IMAGE_ADAPTED,
        names.TEXT_ADAPTED,
        names.IMAGE_UNIT,
        names.TEXT_UNIT,
    )
    hooks = [*(pair if names.IMAGE_EMBED in before else ()), names.FUSED, names.PRE_OUTPUT]
    return dict.fromkeys(hooks, heads.d_map) | {names.LOGITS: heads.n_classes}
