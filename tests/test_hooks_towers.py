"""The towers are open_clip's: same embeddings, same refusals, and interventions inside them take effect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from hooks_models import CONFIG, TEXTS, pictures, tiny_towers, write_encoder

from sae_lens_meme.errors import DataError, MissingHookError, ModelError
from sae_lens_meme.hooks import HookedMemeCLIP, Towers, load_local_towers, load_towers
from sae_lens_meme.hooks.names import EMBEDDING_HOOKS
from sae_lens_meme.hooks.towers import unprojected_text


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Towers:
    return tiny_towers(tmp_path_factory.mktemp("towers"))


@pytest.fixture
def model(towers: Towers) -> HookedMemeCLIP:
    model = HookedMemeCLIP("clip", towers)
    return model.attach_memes(pictures(), TEXTS, labels={"hate": [0, 1, None, 1]})


@pytest.fixture
def batch(towers: Towers) -> dict[str, torch.Tensor]:
    return {"pixels": torch.stack([towers.preprocess(p) for p in pictures()]), "tokens": towers.tokenize(TEXTS)}


ROWS = torch.arange(4)[:, None]


def embedded(model: HookedMemeCLIP, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    _, cache = model.run_with_cache(batch, return_type=None, names_filter=list(EMBEDDING_HOOKS))
    return {hook: cache[hook][:, 0] for hook in EMBEDDING_HOOKS}


@torch.no_grad()
def check_equals_open_clip(model: HookedMemeCLIP, batch: dict[str, torch.Tensor]) -> None:
    clip = model.towers.model
    image, text = clip.encode_image(batch["pixels"]), clip.encode_text(batch["tokens"])
    _, cache = model.run_with_cache(batch, return_type=None)
    torch.testing.assert_close(cache["hook_image_embed"][:, 0], image, rtol=0, atol=0)
    torch.testing.assert_close(cache["hook_text_embed"][:, 0], text, rtol=0, atol=0)
    fused = torch.nn.functional.normalize(image, dim=-1) * torch.nn.functional.normalize(text, dim=-1)
    torch.testing.assert_close(cache["hook_fused"][:, 0], fused, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(unprojected_text(clip, batch["tokens"]) @ clip.text_projection, text, rtol=0, atol=0)


def test_embeddings_equal_open_clip(model: HookedMemeCLIP, batch: dict[str, torch.Tensor]):
    check_equals_open_clip(model, batch)


@pytest.mark.slow
def test_embeddings_equal_open_clip_at_full_size():
    model = HookedMemeCLIP.from_pretrained("ViT-B-32/random", seed=3)
    batch = {
        "pixels": torch.stack([model.towers.preprocess(p) for p in pictures(2)]),
        "tokens": model.towers.tokenize(TEXTS[:2]),
    }
    check_equals_open_clip(model, batch)
    assert model.d("hook_fused") == 512
    assert "hook_text_resid.11" in model.hook_dict


@torch.no_grad()
def test_rows_and_pixels_give_the_same_and_encode_too(model: HookedMemeCLIP, batch: dict[str, torch.Tensor]):
    _, by_row = model.run_with_cache(ROWS[[2, 0]], names_filter="hook_fused")
    _, by_pixel = model.run_with_cache(batch, names_filter=["hook_fused"], stop_at_layer=None, prepend_bos=False)
    found = embedded(model, batch)
    torch.testing.assert_close(by_row["hook_fused"], by_pixel["hook_fused"][[2, 0]])
    torch.testing.assert_close(found["hook_fused"], by_pixel["hook_fused"][:, 0], rtol=0, atol=0)
    assert {name: x.shape for name, x in found.items()} == dict.fromkeys(EMBEDDING_HOOKS, (4, 12))
    for hook, x in model.encode(**batch).items():
        torch.testing.assert_close(x, found[hook], rtol=0, atol=0)


@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_residual_streams_are_the_blocks_outputs(tmp_path: Path, batch: dict[str, torch.Tensor], batch_first: bool):
    towers = tiny_towers(tmp_path)
    clip, model = towers.model, HookedMemeCLIP("clip", towers)
    for transformer in (clip.transformer, clip.visual.transformer):
        transformer.batch_first = batch_first
        for block in transformer.resblocks:
            block.attn.batch_first = batch_first
    _, cache = model.run_with_cache(batch, return_type=None)
    image = clip.visual.forward_intermediates(batch["pixels"], output_fmt="NLC", output_extra_tokens=True)
    for layer in range(2):
        patches = cache[f"hook_image_resid.{layer}"]
        torch.testing.assert_close(patches[:, 1:], image["image_intermediates"][layer])
        torch.testing.assert_close(patches[:, :1], image["image_intermediates_prefix"][layer])
    # By hand: the last text block, ln_final at the end token, the projection.
    end = batch["tokens"].argmax(-1)
    last = clip.ln_final(cache["hook_text_resid.2"])[torch.arange(4), end] @ clip.text_projection
    torch.testing.assert_close(last, cache["hook_text_embed"][:, 0])


@pytest.mark.parametrize(
    ("hook", "changed"), [("hook_image_resid.1", "hook_image_embed"), ("hook_text_resid.0", "hook_text_embed")]
)
@torch.no_grad()
def test_interventions_in_the_towers_reach_the_output(
    model: HookedMemeCLIP, batch: dict[str, torch.Tensor], hook: str, changed: str
):
    seen: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, hook: object) -> None:
        seen["x"] = x

    before = embedded(model, batch)
    model.run_with_hooks(batch, fwd_hooks=[(hook, lambda x, hook: 0 * x), (changed, keep)])
    # All memes look alike once the stream is zero.
    torch.testing.assert_close(seen["x"], seen["x"][:1].expand_as(seen["x"]))
    assert not torch.allclose(seen["x"][:, 0], before[changed])
    torch.testing.assert_close(embedded(model, batch)[changed], before[changed], rtol=0, atol=0)


def test_towers_are_left_as_found_after_an_exception(model: HookedMemeCLIP, batch: dict[str, torch.Tensor]):
    def fail(x: torch.Tensor, hook: object) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.run_with_hooks(batch, fwd_hooks=[("hook_image_resid.1", fail), ("hook_fused", fail)])
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_half_precision_towers_still_fuse_in_float32(tmp_path: Path, batch: dict[str, torch.Tensor]):
    exact = embedded(HookedMemeCLIP("clip", tiny_towers(tmp_path)), batch)
    model = HookedMemeCLIP("clip", tiny_towers(tmp_path)).to(torch.bfloat16)
    half = embedded(model, batch)
    image, text = half["hook_image_embed"], half["hook_text_embed"]
    fused = image / image.norm(dim=-1, keepdim=True) * (text / text.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(half["hook_fused"], fused)
    assert torch.cosine_similarity(image, exact["hook_image_embed"]).min() > 0.99


def test_missing_captions_and_aspect_depend_on_the_fusion(tmp_path: Path):
    clip, memeclip = tiny_towers(tmp_path / "a"), tiny_towers(tmp_path / "b", "memeclip")
    assert clip.tokenize([None]).tolist() == clip.tokenize([""]).tolist()
    assert memeclip.tokenize([None]).tolist() == clip.tokenize(["null"]).tolist()
    wide = pictures(1, (96, 32))[0]
    assert torch.equal(clip.preprocess(wide), clip.preprocess(wide.crop((32, 0, 64, 32))))
    assert torch.equal(memeclip.preprocess(wide), memeclip.preprocess(wide.resize((32, 32), 3)))


def test_weights_hash_names_the_weights(tmp_path: Path, towers: Towers):
    assert tiny_towers(tmp_path / "a").weights_sha256 == towers.weights_sha256
    assert tiny_towers(tmp_path / "b", seed=1).weights_sha256 != towers.weights_sha256


def test_random_weights_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch):
    small = {key: CONFIG[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny": small})
    state = torch.get_rng_state()
    first, again, other = load_towers("tiny/random"), load_towers("tiny/random"), load_towers("tiny/random", seed=1)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_tag_brings_its_activation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick_gelu: bool):
    """OpenAI's weights want QuickGELU, which open_clip's ViT-L-14 does not have: it only warns."""
    small = {key: CONFIG[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny": small})
    weights = str(write_encoder(tmp_path) / "weights.safetensors")
    tags = {"tiny": {"some": {"file": weights, "quick_gelu": quick_gelu}}}
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", tags)
    activation = load_towers("tiny/some").model.transformer.resblocks[0].mlp.gelu
    assert type(activation).__name__ == ("QuickGELU" if quick_gelu else "GELU")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ViT-L-14", r"names no weights; write ViT-L-14/TAG with one of openai.*random"),
        ("ViT-L/14", r"names no weights"),
        ("ViT-L-41/openai", r"not known to open_clip; did you mean .*ViT-"),
        ("ViT-L-14/opneai", r"has no weights 'opneai'; it has openai"),
        ("openai", r"not known to open_clip"),
    ],
)
def test_names_that_are_refused(name: str, match: str):
    with pytest.raises(ModelError, match=match):
        load_towers(name)


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\n(urllib3)")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", no_network)
    with pytest.raises(ModelError, match=r"'ViT-B-32/openai': cannot be loaded .*not known.*demo-encoder") as caught:
        load_towers("ViT-B-32/openai")
    assert "\n" not in str(caught.value)


def test_a_broken_encoder_folder_is_named(tmp_path: Path):
    folder = write_encoder(tmp_path / "enc")
    (folder / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="enc: cannot be loaded"):
        load_local_towers(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights.safetensors"):
        load_local_towers(folder)
    wider = write_encoder(tmp_path / "wider")
    (wider / "config.json").write_text(json.dumps(CONFIG | {"embed_dim": 13}))
    with pytest.raises(ModelError, match="size mismatch"):
        load_local_towers(wider)
    with pytest.raises(ModelError, match="context_length is 9, the model's 10"):
        load_local_towers(write_encoder(tmp_path / "short", tokenizer={"context_length": 9}))


def test_bad_input_is_named(model: HookedMemeCLIP):
    with pytest.raises(DataError, match="row 4 is not one of the 4 rows"):
        model(torch.tensor([[4]]))
    with pytest.raises(DataError, match=r"row -1 is not one"):
        model(torch.tensor([[-1]]))
    with pytest.raises(DataError, match=r"shape \(batch, 1\).*not \(2,\)"):
        model(torch.tensor([0, 1]))
    with pytest.raises(ModelError, match=r"no head.*fit_head"):
        model(ROWS, return_type="logits")
    with pytest.raises(ModelError, match="return_type 'logit' is not one of"):
        model(ROWS, return_type="logit")
    with pytest.raises(MissingHookError, match="'hook_logits' is not reached"):
        model.run_with_cache(ROWS, names_filter="hook_logits")
    assert model(ROWS) is None
    assert model(ROWS, return_type=None) is None
    for image, text, message in (
        ("a.png", None, "row 0: the picture is 'a.png'"),
        (pictures(1)[0], 3, "caption is 3;"),
    ):
        model.attach_memes([image], [text])  # type: ignore[list-item]
        with pytest.raises(DataError, match=message):
            model(ROWS[:1])
    with pytest.raises(DataError, match="4 images but no texts"):
        model.attach_memes(pictures(), None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="4 images but 3 texts"):
        model.attach_memes(pictures(), TEXTS[:3])
    model.attach_memes([None, *pictures(3)], TEXTS)  # type: ignore[list-item]
    with pytest.raises(DataError, match="row 0: has no picture"):
        model(ROWS)


def test_columns_of_pandas_are_rows_by_their_place_and_a_missing_caption_is_none(model: HookedMemeCLIP):
    expected = model.source.take(np.array([2, 0, 3, 1]))  # type: ignore[union-attr]
    table = pd.DataFrame({"picture": pictures(), "text": TEXTS}).iloc[[2, 0, 3, 1]]
    model.attach_memes(table["picture"], table["text"].fillna(np.nan))  # type: ignore[arg-type]
    found = model.source.take(np.arange(4))  # type: ignore[union-attr]
    assert torch.equal(found["pixels"], expected["pixels"])
    assert torch.equal(found["tokens"], expected["tokens"])


def test_a_model_without_towers_or_source_says_what_to_do(towers: Towers):
    with pytest.raises(ModelError, match="attach_memes"):
        HookedMemeCLIP("clip", towers)(ROWS)
    with pytest.raises(ModelError, match="have none of hook_image_embed"):
        HookedMemeCLIP("clip", widths={})
    with pytest.raises(ModelError, match="from_pretrained"):
        _ = HookedMemeCLIP("clip", widths={"hook_fused": 4}).towers
