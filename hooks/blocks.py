"""Where the hooks of a transformers model go: its blocks are found by structure, as paths change between releases."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.names import DECODER_CROSS, DECODER_RESID, IMAGE_RESID, LOGITS, PROJECTED, TEXT_RESID

_LISTS = ("layers", "layer", "h", "blocks")
_PROJECTORS = ("multi_modal_projector", "enc_to_dec_proj", "aligner", "merger")
_CROSS_ATTENTIONS = ("crossattention", "encoder_attn")


def hooked_modules(model: Any) -> dict[str, nn.Module]:
    """The module whose output passes each hook, in the order of a forward pass.

    Raises:
        ModelError: the model has no blocks that a picture or its text passes.
    """
    image, text = image_encoder(model), text_side(model)
    stem = DECODER_RESID if model.can_generate() else TEXT_RESID  # CLIP's text tower writes nothing
    found = _numbered(IMAGE_RESID, blocks_of(image)) | _projector(model)
    for place, block in enumerate(blocks_of(text)):
        if (cross := _cross_attention(block)) is not None:
            found[f"{DECODER_CROSS}.{place}"] = cross
        found[f"{stem}.{place}"] = block
    if not found:
        raise ModelError(
            f"a {type(model).__name__} has no list of blocks named {', '.join(_LISTS)}; it cannot be hooked"
        )
    if model.can_generate() and (head := _head(model)) is not None:
        found[LOGITS] = head
    return found


def image_encoder(model: Any) -> Any | None:
    """The vision tower; the model itself where it is one, None where pictures are tokens (Chameleon)."""
    kind = model.config.model_type
    if kind == "vision-encoder-decoder":
        return model.encoder
    if kind == "git":
        return model.git.image_encoder
    found = model.get_encoder(modality="image")
    return None if found is model and text_side(model) is not None else found


def text_side(model: Any) -> Any | None:
    """The decoder, or CLIP's text tower; None in a vision tower."""
    kind = model.config.model_type
    if kind == "vision-encoder-decoder":
        return model.decoder
    if kind == "git":
        return model.git.encoder
    found = model.get_decoder()
    alone = type(found) is type(model) or not (model.can_generate() or hasattr(model.config, "text_config"))
    return None if alone else found


def blocks_of(module: nn.Module | None) -> list[nn.Module]:
    """The transformer blocks: the shallowest, then longest list of that name, nothing under a VQ model."""
    if module is None:
        return []
    lists = [
        (name.count("."), -len(found), found)
        for name, found in module.named_modules()
        if isinstance(found, nn.ModuleList) and name.rpartition(".")[2] in _LISTS and "vq" not in name
    ]
    return list(min(lists, key=lambda entry: entry[:2])[2]) if lists else []


def width_of(hook: str, module: Any) -> int:
    """The width of what comes out: that of a block's norms, else that of the last linear map."""
    if hook.startswith((IMAGE_RESID, TEXT_RESID, DECODER_RESID)):
        return next(
            inner.weight.shape[-1]
            for name, inner in module.named_modules()
            if "norm" in type(inner).__name__.lower()
            and name.rpartition(".")[2] not in ("q_norm", "k_norm")  # of heads
        )
    last = [inner for inner in module.modules() if hasattr(inner, "out_features") or hasattr(inner, "nf")][-1]
    return int(getattr(last, "out_features", None) or last.nf)  # GPT-2's Conv1D calls it nf


def feature_blocks(model: Any) -> list[int]:
    """The blocks of the vision tower that the text reads, where the model says so (LLaVA: the last but one)."""
    layers = getattr(model.config, "vision_feature_layer", None)
    if layers is None:
        return []
    states = len(blocks_of(image_encoder(model))) + 1  # the first hidden state is the embedding
    return [(layer % states) - 1 for layer in ([layers] if isinstance(layers, int) else layers)]


def require_read(hook: str, blocks: list[int]) -> None:
    """Refuse a block of the tower beyond those that the text reads: an edit there has no effect.

    Raises:
        ModelError: it is behind the last of them.
    """
    stem, _, block = hook.rpartition(".")
    if stem != IMAGE_RESID or not blocks:
        return
    if int(block) > max(blocks):
        raise ModelError(
            f"{hook}: this model's text reads block {max(blocks)} of the tower, so an edit in a later one has no effect; "
            f"use {IMAGE_RESID}.{max(blocks)} or an earlier one, or model.tower() to look at the tower alone"
        )
    if len(blocks) > 1:
        warnings.warn(f"{hook}: the text reads blocks {blocks}; only what passes this one is changed", stacklevel=5)


def _numbered(stem: str, blocks: list[nn.Module]) -> dict[str, nn.Module]:
    return {f"{stem}.{place}": block for place, block in enumerate(blocks)}


def _projector(model: Any) -> dict[str, nn.Module]:
    if model.config.model_type == "git":
        return {PROJECTED: model.git.visual_projection}
    named = [module for name, module in model.named_modules() if name.rpartition(".")[2] in _PROJECTORS]
    return {PROJECTED: named[0]} if named else {}


def _cross_attention(block: Any) -> nn.Module | None:
    """The module whose output is added to the stream; BERT's own one ends in a sum and a norm."""
    for name in _CROSS_ATTENTIONS:
        if (found := getattr(block, name, None)) is not None:
            return getattr(getattr(found, "output", None), "dense", found)
    return None


def _head(model: Any) -> nn.Module | None:
    holder = {"vision-encoder-decoder": "decoder", "blip": "text_decoder"}.get(model.config.model_type)
    return (getattr(model, holder) if holder else model).get_output_embeddings()
