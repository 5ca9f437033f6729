"""Which hooks a `HookedMemeCLIP` has: those inside its towers, those of cached embeddings, those of what is fused."""

from __future__ import annotations

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import names
from sae_lens_meme.hooks.base import Hook
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.hooks.towers import Fusion, Towers, image_transformer, text_transformer

SIDES = (names.IMAGE_EMBED, names.TEXT_EMBED)


def tower_hooks(towers: Towers, fusion: Fusion) -> dict[str, Hook]:
    visual, text = towers.model.visual, getattr(towers.model, "text", towers.model)
    image_stream, text_stream = image_transformer(towers.model), text_transformer(towers.model)
    streams = ((names.IMAGE_RESID, image_stream, visual), (names.TEXT_RESID, text_stream, text))
    hooks = {
        f"{stem}.{layer}": Hook(transformer.width, len(tower.positional_embedding))
        for stem, transformer, tower in streams
        if transformer is not None
        for layer in range(len(transformer.resblocks))
    }
    d_text = text_stream.width if fusion == "memeclip" and text_stream is not None else towers.d_embed
    return hooks | {names.IMAGE_EMBED: Hook(towers.d_embed), names.TEXT_EMBED: Hook(d_text)}


def cached_hooks(widths: dict[str, int]) -> dict[str, Hook]:
    hooks = {hook: Hook(widths[hook]) for hook in names.EMBEDDING_HOOKS if hook in widths}
    if not hooks:
        raise ModelError(f"these embeddings have none of {', '.join(names.EMBEDDING_HOOKS)}; embed the memes again")
    return hooks


def fusion_hooks(fusion: Fusion, heads: MemeCLIPHeads | None, before: dict[str, Hook]) -> dict[str, Hook]:
    """What is computed of the embeddings `before`, in the order of the computation.

    Raises:
        ModelError: image and text, or embeddings and heads, have widths that do not go together.
    """
    pair = all(side in before for side in SIDES)
    if heads is not None:
        hooks = _memeclip_hooks(heads, before, pair)
    elif pair and fusion == "clip":
        hooks = _clip_hooks(before)
    else:  # as they are stored
        return {}
    if names.FUSED in before and before[names.FUSED] != hooks[names.FUSED]:
        raise ModelError(
            f"{names.FUSED} has width {before[names.FUSED].width} in the embeddings and {hooks[names.FUSED].width} in the model"
        )
    return hooks


def _clip_hooks(before: dict[str, Hook]) -> dict[str, Hook]:
    image, text = (before[side] for side in SIDES)
    if image != text:
        raise ModelError(
            f"image embeddings have width {image.width}, text embeddings {text.width}; "
            "fusion clip multiplies them, so take the projected embeddings of one model"
        )
    return dict.fromkeys((names.IMAGE_UNIT, names.TEXT_UNIT, names.FUSED), image)


def _memeclip_hooks(heads: MemeCLIPHeads, before: dict[str, Hook], pair: bool) -> dict[str, Hook]:
    if not pair and names.FUSED not in before:
        raise ModelError(f"there is nothing to fuse: give {' with '.join(SIDES)}, or {names.FUSED}")
    for hook, d_in in ((names.IMAGE_EMBED, heads.d_image), (names.TEXT_EMBED, heads.d_text)):
        if hook in before and before[hook].width != d_in:
            raise ModelError(
                f"the heads take {hook} of width {d_in}, here it has {before[hook].width}; take the CLIP they were trained on"
            )
    steps = (
        (names.IMAGE_PROJ, names.TEXT_PROJ, names.IMAGE_ADAPTED, names.TEXT_ADAPTED, names.IMAGE_UNIT, names.TEXT_UNIT)
        if pair
        else ()
    )
    return dict.fromkeys((*steps, names.FUSED, names.PRE_OUTPUT), Hook(heads.d_map)) | {
        names.LOGITS: Hook(heads.n_classes)
    }
