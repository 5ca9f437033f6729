"""Tiny random models of transformers' real classes, one function each; and rows for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from sae_lens_meme.hooks.positions import PositionRows, captions, pictures, prompts

BOS, EOS, IMAGE_ID, BOI, EOI, PAD_ID, VOCABULARY = 1, 2, 40, 41, 42, 0, 64
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
PICTURE = {"image_size": 32, "patch_size": 8}  # 16 patches
TEXT = {
    **{"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD_ID},
}
N_PATCHES = 16


def _pixels(n: int = 4, *shape: int) -> torch.Tensor:
    return torch.randn(n, *(shape or (3, 32, 32)), generator=torch.Generator().manual_seed(0))


def _prompt_rows(n_images: int, n: int = 4, **columns: torch.Tensor) -> PositionRows:
    """Begin, the picture, four words; each row with one word fewer than the last, padded on the left."""
    words = torch.randint(3, 39, (n, 5), generator=torch.Generator().manual_seed(1))
    ids = torch.cat([torch.full((n, 1), BOS), torch.full((n, n_images), IMAGE_ID), words], dim=1)
    mask = torch.ones_like(ids)
    for row in range(1, n, 2):
        ids[row] = torch.cat([torch.tensor([PAD_ID]), ids[row, :-1]])
        mask[row, 0] = 0
    return prompts(ids, mask, IMAGE_ID, {BOS, EOS, PAD_ID}, **columns)


def llava(**changes: Any) -> tuple[Any, PositionRows]:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, **PICTURE),
        text_config=hf.LlamaConfig(**TEXT),
        **{"image_token_id": IMAGE_ID, "image_token_index": IMAGE_ID, **changes},
    )
    return hf.LlavaForConditionalGeneration(config), _prompt_rows(N_PATCHES, pixel_values=_pixels())


def llava_next() -> tuple[Any, PositionRows]:
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, **PICTURE),
        text_config=hf.LlamaConfig(**TEXT),
        image_token_id=IMAGE_ID,
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=[[32, 64]],
    )
    sizes = torch.tensor([[32, 64]] * 4)
    n = N_PATCHES + 4 * (8 + 1)  # the whole picture, and two tiles side by side whose rows end in a newline
    return hf.LlavaNextForConditionalGeneration(config), _prompt_rows(
        n, pixel_values=_pixels(4, 3, 3, 32, 32), image_sizes=sizes
    )


def onevision() -> tuple[Any, PositionRows]:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, **PICTURE, vision_use_head=False),
        text_config=hf.Qwen2Config(**TEXT),
        image_token_id=IMAGE_ID,
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=[[32, 64]],
    )
    n = N_PATCHES + 4 * (8 + 1)
    sizes = torch.tensor([[32, 64]] * 4)
    rows = _prompt_rows(n, pixel_values=_pixels(4, 3, 3, 32, 32), image_sizes=sizes)
    return hf.LlavaOnevisionForConditionalGeneration(config), rows


def paligemma() -> tuple[Any, PositionRows]:
    text = {**TEXT, "head_dim": 12, "num_key_value_heads": 1}
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, **PICTURE, vision_use_head=False),
        text_config=hf.GemmaConfig(**text),
        image_token_id=IMAGE_ID,
        image_token_index=IMAGE_ID,
        projection_dim=24,
    )
    rows = _prompt_rows(N_PATCHES, pixel_values=_pixels())
    rows.columns["token_type_ids"] = torch.zeros_like(rows.columns["input_ids"])
    return hf.PaliGemmaForConditionalGeneration(config), rows


def qwen2_vl() -> tuple[Any, PositionRows]:
    config = hf.Qwen2VLConfig(
        vision_config={"depth": 3, "embed_dim": 16, "num_heads": 2, "hidden_size": 24, "patch_size": 8, "mlp_ratio": 2},
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]},
        },
        **{"image_token_id": IMAGE_ID, "vision_start_token_id": BOI, "vision_end_token_id": EOI, "video_token_id": 43},
    )
    grid = torch.tensor([[1, 4, 4]] * 4)
    rows = _prompt_rows(4, pixel_values=_pixels(64, 3 * 2 * 8 * 8).reshape(4, 16, -1), image_grid_thw=grid)
    rows.columns["mm_token_type_ids"] = (rows.columns["input_ids"] == IMAGE_ID).long()
    return hf.Qwen2VLForConditionalGeneration(config), rows


def chameleon() -> tuple[Any, PositionRows]:
    names = {f"IMGIMG{chr(65 + i // 10)}{chr(65 + i % 10)}Z": 44 + i for i in range(16)}  # ids that no text has
    config = hf.ChameleonConfig(
        **TEXT,
        vocabulary_map={**names, "<image>": IMAGE_ID},
        vq_config={
            **{"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "resolution": 32, "base_channels": 32},
            **{"channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": []},
        },
    )
    return hf.ChameleonForConditionalGeneration(config), _prompt_rows(N_PATCHES, pixel_values=_pixels())


def janus() -> tuple[Any, PositionRows]:
    config = hf.JanusConfig(
        vision_config={**VISION, **PICTURE, "mlp_ratio": 2.0, "projection_dim": 24},
        text_config=hf.LlamaConfig(**TEXT),
        vq_config={
            **{"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32, "num_patches": 4},
            **{"channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": 24, "image_token_embed_dim": 24},
        },
        image_token_id=IMAGE_ID,
    )
    return hf.JanusForConditionalGeneration(config), _prompt_rows(N_PATCHES, pixel_values=_pixels())


def _captions(n: int = 4) -> list[list[int]]:
    return [[5 + row, 6, 7 + row, *([8] * (row % 2)), EOS] for row in range(n)]


def blip() -> tuple[Any, PositionRows]:
    config = hf.BlipConfig(
        vision_config={**VISION, **PICTURE},
        text_config={
            **TEXT,
            "encoder_hidden_size": 16,
            "is_decoder": True,
            "sep_token_id": EOS,
        },
    )
    rows = captions(_pixels(), _captions(), BOS, PAD_ID)
    return hf.BlipForConditionalGeneration(config), _renamed(rows)


def git() -> tuple[Any, PositionRows]:
    from sae_lens_meme.hooks.positions import with_pictures_before

    config = hf.GitConfig(vision_config={**VISION, **PICTURE}, **{**TEXT, "num_attention_heads": 2})
    rows = _renamed(captions(_pixels(), _captions(), BOS, PAD_ID))
    return hf.GitForCausalLM(config), PositionRows(rows.columns, with_pictures_before(rows.tags, 1, N_PATCHES))


def vit_gpt2() -> tuple[Any, PositionRows]:
    """Start, end and padding are one id, as in the published model."""
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**VISION, **PICTURE),
        hf.GPT2Config(
            **{"n_embd": 24, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": 64},
            **{"add_cross_attention": True, "is_decoder": True, "bos_token_id": EOS, "eos_token_id": EOS},
        ),
    )
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = EOS
    model = hf.VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=EOS, pad_token_id=EOS, eos_token_id=EOS, bos_token_id=EOS)
    return model, captions(_pixels(), _captions(), EOS, EOS)


def clip() -> tuple[Any, PositionRows]:
    text = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
    config = hf.CLIPConfig(vision_config={**VISION, **PICTURE}, text_config=text, projection_dim=12)
    rows = _prompt_rows(0, pixel_values=_pixels())
    return hf.CLIPModel(config), rows


def siglip() -> tuple[Any, PositionRows]:
    text = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
    config = hf.SiglipConfig(vision_config={**VISION, **PICTURE}, text_config={**text, "hidden_size": 16})
    return hf.SiglipModel(config), _prompt_rows(0, pixel_values=_pixels())


def clip_tower() -> tuple[Any, PositionRows]:
    return hf.CLIPVisionModel(hf.CLIPVisionConfig(**VISION, **PICTURE)), pictures(_pixels(), 1, N_PATCHES)


def siglip_tower() -> tuple[Any, PositionRows]:
    return hf.SiglipVisionModel(hf.SiglipVisionConfig(**VISION, **PICTURE)), pictures(_pixels(), 0, N_PATCHES)


def dinov2() -> tuple[Any, PositionRows]:
    return hf.Dinov2Model(hf.Dinov2Config(**VISION, **PICTURE)), pictures(_pixels(), 1, N_PATCHES)


def vit() -> tuple[Any, PositionRows]:
    return hf.ViTModel(hf.ViTConfig(**VISION, **PICTURE)), pictures(_pixels(), 1, N_PATCHES)


def made(maker: Any, seed: int = 0, **changes: Any) -> tuple[Any, PositionRows]:
    """A model in `eval` mode whose weights are wide enough that a change of one block is seen at the end."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, rows = maker(**changes)
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval(), rows


def _renamed(rows: PositionRows) -> PositionRows:
    """The names of models that are no encoder-decoders."""
    return PositionRows({name.removeprefix("decoder_"): x for name, x in rows.columns.items()}, rows.tags)


WRITING = (llava, llava_next, onevision, paligemma, qwen2_vl, chameleon, janus, blip, git, vit_gpt2)
OTHERS = (clip, siglip, clip_tower, siglip_tower, dinov2, vit)


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
WORDS = [*COLOURS, "what", "is", "the", "colour", "of", "this", "?", "a", "picture", "meme", "cat", "monday"]


def tokenizer() -> Any:
    """A word an id, in the vocabulary of the models above."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {"<pad>": PAD_ID, "<s>": BOS, "</s>": EOS, "<image>": IMAGE_ID, "<unk>": 3}
    ids |= {word: 4 + place for place, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        additional_special_tokens=["<image>"],
        extra_special_tokens={"image_token": "<image>"},
    )


def image_processor() -> Any:
    return hf.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)


def save(folder: Any, maker: Any = llava, model: Any = None) -> str:
    """A folder that `HookedVLM.from_pretrained` reads: model, and its processor."""
    (model or made(maker)[0]).save_pretrained(folder)
    words, one = tokenizer(), {"image_token": "<image>"}
    cls = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, **one}
    if maker is llava:
        hf.LlavaProcessor(image_processor(), words, **cls).save_pretrained(folder)
    elif maker is llava_next:
        tiles = hf.LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=[[32, 64]]
        )
        hf.LlavaNextProcessor(tiles, words, **cls).save_pretrained(folder)
    elif maker is chameleon:
        crop = {"height": 32, "width": 32}
        pictures = hf.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
        words.add_special_tokens({"additional_special_tokens": ["<image>", "<racm3:break>", "<eoss>"]})
        hf.ChameleonProcessor(pictures, words, image_seq_length=N_PATCHES, **one).save_pretrained(folder)
    else:
        image_processor().save_pretrained(folder)
        words.save_pretrained(folder)
    return str(folder)


def colour_pictures(n: int, seed: int = 0) -> tuple[list[Any], list[str]]:
    """Pictures of one colour with noise, and its name."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    names = [list(COLOURS)[i % len(COLOURS)] for i in range(n)]
    pixels = [np.clip(np.array(COLOURS[name]) + rng.normal(0, 20, (32, 32, 3)), 0, 255) for name in names]
    return [Image.fromarray(x.astype(np.uint8)) for x in pixels], names


QUESTION = "what is the colour of this ?"


def taught(folder: Any, pictures: list[Any], names: list[str], steps: int = 150) -> Any:
    """A LLaVA of two blocks that has learned to name the colour of these pictures, saved in a folder with its processor."""
    from sae_lens_meme.hooks import HookedVLM

    model, _ = made(llava)
    save(folder, model=model)
    processor = HookedVLM.from_pretrained(str(folder)).processor.both
    texts = [f"<image>{QUESTION} {name} </s>" for name in names]
    batch = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].clone()
    labels[:, :-2] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            chosen = torch.randint(0, len(names), (16,))
            loss = model(**{key: x[chosen] for key, x in batch.items()}, labels=labels[chosen]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.1
    model.eval().save_pretrained(folder)
    return model
