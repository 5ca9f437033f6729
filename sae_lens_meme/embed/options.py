"""The options of `embed`: a model over a corpus, or vectors that exist already."""

from __future__ import annotations

from typing import Literal

from sae_lens_meme.engines import EngineOptions
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import Count, File, Options, Positive

HEADS = "heads.safetensors"
"""MemeCLIP's heads, kept beside the embeddings that were fused through them."""


class ViewOptions(Options):
    """What a model is shown of a meme."""

    section = "embed"

    resize: Literal["crop", "squash", "pad"] | None = None
    """How a picture becomes square: crop it to its centre, squash it, or pad it; default what the model was trained
    on (mostly crop, which cuts captions off tall memes; squash with memeclip)."""
    ocr: File | None = None
    """The result of `ocr`: the text it read serves as the caption of memes that have none."""


class EmbedOptions(ViewOptions, EngineOptions):
    """How a corpus is embedded."""

    section = "embed"

    model: str = "ViT-L-14/openai"
    """open_clip name, 'hf-hub:OWNER/NAME', 'local-dir:FOLDER', 'demo-encoder' or 'crowded-encoder'."""
    weights: File | None = None
    """Your own checkpoint for the open_clip architecture in --model: .safetensors, or .pt read as tensors only."""
    fusion: Literal["clip", "memeclip"] = "clip"
    """'clip' (unit image * unit projected text) or 'memeclip' (un-projected text through MemeCLIP's heads)."""
    heads: File | None = None
    """memeclip: a trained checkpoint; without one the heads are trained on --task."""
    task: str = "hate"
    """memeclip: the label that new heads are trained on; the epoch is picked on its validation rows."""
    device: str = "auto"
    """auto (CUDA, then MPS, then the CPU), cpu, cuda, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """auto is bfloat16 on CUDA and float32 elsewhere. On a CPU bfloat16 is about twice as fast (with AVX512-BF16), int8
    about four times (with AVX512-VNNI); how close int8 is to float32 is measured on a batch and printed."""
    batch_size: Positive = 64
    """Memes per forward pass; it changes the last bit of the numbers, so another value gives another result."""
    workers: Count | None = None
    """Decoding processes; default one per core, at most 8; with engine ray on a CPU none, as every core has a worker."""
    hook: str | None = None
    """Token rows instead: the activations of a transformers model (--model OWNER/NAME or a folder) at this hook, one row
    a position: hook_image_resid.N after block N of its tower, hook_decoder_resid.N of its decoder."""
    keep: list[str] | None = None
    """With --hook: a kind of position to keep as rows; repeatable: image (the default), text, special (CLS, BOS, start)."""
    tokens_per_item: Positive | None = None
    """With --hook: how many positions of each picture to draw at random (sae-for-vlm takes 2); default all."""
    seed: Count = 0
    """With --tokens-per-item: seed of that draw."""
    captions: Literal["corpus", "written"] = "corpus"
    """With --hook and a captioner: it reads the corpus' captions, or the ones it writes itself (greedy decoding)."""


class ArrayOptions(Options):
    """Vectors that exist already, and the table that describes them. A key follows a colon: `x.safetensors:key`."""

    section = "embed"

    image_embeds: File | None = None
    """Array: .npy, .safetensors[:key], .pt[:key], dataset:column."""
    text_embeds: File | None = None
    """Array of the same width as --image-embeds; hook_fused is computed from the two."""
    fused_embeds: File | None = None
    """Array of fused embeddings, if you have no others."""
    table: File
    """CSV, TSV, JSONL or Parquet with id and, if known, source, split, group, text and labels: row i describes vector i."""


def check_token_options(options: EmbedOptions) -> None:
    """Refuse what has no meaning with or without `--hook`.

    Raises:
        ConfigError: which, and why.
    """
    given = {name for name, field in EmbedOptions.model_fields.items() if getattr(options, name) != field.default}
    if options.hook is None:
        if of_tokens := given & {"keep", "tokens_per_item", "seed", "captions"}:
            raise ConfigError(
                f"embed.{min(of_tokens)} is an option of token rows; give --hook too, such as hook_image_resid.22"
            )
        return
    if options.model == EmbedOptions.model_fields["model"].default:
        raise ConfigError(
            "embed.hook reads a model of transformers; give --model, such as openai/clip-vit-large-patch14"
        )
    if options.fusion == "memeclip":
        raise ConfigError("embed.fusion memeclip has one vector per meme; with --hook leave it out")
    if wrong := given & {"weights", "heads", "task", "resize", "ocr"}:
        raise ConfigError(f"embed.{min(wrong)} has no effect with --hook; leave it out")
    if unknown := set(options.keep or ()) - {"image", "text", "special"}:
        raise ConfigError(f"embed.keep is {min(unknown)!r}; give image, text or special")
