"""MemeCLIP agrees with an independent forward, and its checkpoints are read without running them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import make_embeddings
from hooks_models import TEXTS, pictures, tiny_towers
from safetensors.torch import save_file
from torch import nn

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks import (
    HookedMemeCLIP,
    MemeCLIPHeads,
    read_memeclip_checkpoint,
    save_memeclip_heads,
    train_memeclip_head,
)
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint
from sae_lens_meme.hooks.memeclip import prompt_classifier
from sae_lens_meme.hooks.towers import unprojected_text

D_IMAGE, D_TEXT, D_MAP = 12, 24, 16


@pytest.fixture(autouse=True)
def one_thread():
    """On matrices this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_heads(n_classes: int = 3, seed: int = 0) -> MemeCLIPHeads:
    torch.manual_seed(seed)
    heads = MemeCLIPHeads(D_IMAGE, D_TEXT, n_classes, D_MAP)
    with torch.no_grad():
        for parameter in heads.parameters():  # large enough that every ReLU and every bias matters
            parameter.copy_(torch.randn_like(parameter))
    return heads.eval()


def plain_memeclip(w: dict[str, torch.Tensor], v: torch.Tensor, t: torch.Tensor) -> dict[str, torch.Tensor]:
    """The published forward from its description, on raw tensors."""
    out = {"hook_image_embed": v, "hook_text_embed": t}
    out["hook_image_proj"] = v @ w["image_map.proj.0.weight"].T + w["image_map.proj.0.bias"]
    out["hook_text_proj"] = t @ w["text_map.proj.0.weight"].T + w["text_map.proj.0.bias"]
    for side, key in (("image", "img"), ("text", "text")):
        p = out[f"hook_{side}_proj"]
        narrow = (p @ w[f"{key}_adapter.fc.0.weight"].T).clamp(min=0)
        out[f"hook_{side}_adapted"] = 0.2 * (narrow @ w[f"{key}_adapter.fc.2.weight"].T).clamp(min=0) + 0.8 * p
        a = out[f"hook_{side}_adapted"]
        out[f"hook_{side}_unit"] = a / a.pow(2).sum(-1, keepdim=True).sqrt()
    out["hook_fused"] = out["hook_image_unit"] * out["hook_text_unit"]
    out["hook_pre_output"] = (out["hook_fused"] @ w["pre_output.1.weight"].T + w["pre_output.1.bias"]).clamp(min=0)
    cosines = torch.empty(len(v), len(w["classifier.weight"]))
    for i, hidden in enumerate(out["hook_pre_output"]):
        for c, direction in enumerate(w["classifier.weight"]):
            cosines[i, c] = hidden @ direction / (hidden.norm() * direction.norm())
    out["hook_logits"] = 30 * cosines
    return out


@torch.no_grad()
def test_every_hook_equals_a_plain_forward(tmp_path: Path):
    towers, heads = tiny_towers(tmp_path, "memeclip"), make_heads()
    model = HookedMemeCLIP("memeclip", towers, heads)
    pixels = torch.stack([towers.preprocess(p) for p in pictures()])
    tokens = towers.tokenize(TEXTS)
    logits, cache = model.run_with_cache({"pixels": pixels, "tokens": tokens}, return_type="logits")
    image, text = towers.model.encode_image(pixels), unprojected_text(towers.model, tokens)
    torch.testing.assert_close(text @ towers.model.text_projection, towers.model.encode_text(tokens), rtol=0, atol=0)
    expected = plain_memeclip(heads.state_dict(), image, text)
    assert set(expected) == {name for name in cache if "resid" not in name}
    for name, value in expected.items():
        torch.testing.assert_close(cache[name][:, 0], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert model.d(name) == value.shape[-1]
    torch.testing.assert_close(logits, cache["hook_logits"])


def lightning_checkpoint(heads: MemeCLIPHeads, **extra: object) -> dict[str, object]:
    frozen = {"clip_model.logit_scale": torch.ones(()), "text_encoder.ln_final.weight": torch.ones(3)}
    return {"epoch": 3, "state_dict": {**frozen, **heads.state_dict(), **extra}, "callbacks": {"best": torch.ones(())}}


@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
def test_a_lightning_checkpoint_is_read_and_converted_once(tmp_path: Path, prefix: str):
    heads, path = make_heads(), tmp_path / "epoch=3.ckpt"
    checkpoint = lightning_checkpoint(heads)
    checkpoint["state_dict"] = {prefix + key: value for key, value in checkpoint["state_dict"].items()}  # type: ignore[union-attr]
    torch.save(checkpoint, path)
    read = read_memeclip_checkpoint(path)
    assert (tmp_path / "epoch=3.safetensors").exists()
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)  # the second reading does not touch the pickle
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for again in (read, read_memeclip_checkpoint(path), read_memeclip_checkpoint(tmp_path / "epoch=3.safetensors")):
        for key, value in heads.state_dict().items():
            assert torch.equal(again.heads.state_dict()[key], value)


@pytest.mark.slow
def test_the_same_heads_give_the_same_bytes(tmp_path: Path):
    code = (
        "import sys, torch; from sae_lens_meme.hooks.checkpoint import *; torch.manual_seed(0); "
        "save_memeclip_heads(MemeCLIPCheckpoint(MemeCLIPHeads(2, 3, 2, 4), 'hate', (0, 1)), sys.argv[1], a='b')"
    )
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_changed_checkpoint_is_read_again(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    torch.save(lightning_checkpoint(make_heads()), path)
    read_memeclip_checkpoint(path, tmp_path / "b.safetensors")
    torch.save(lightning_checkpoint(make_heads(seed=1)), path)
    again = read_memeclip_checkpoint(path, tmp_path / "b.safetensors")
    assert torch.equal(again.heads.classifier.weight, make_heads(seed=1).classifier.weight)
    assert not (tmp_path / "a.safetensors").exists()


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "bad.ckpt"
    torch.save(lightning_checkpoint(make_heads(), extra=Malicious(tmp_path / "ran")), path)
    with pytest.raises(ModelError, match=r"bad.ckpt: cannot be read as tensors only"):
        read_memeclip_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_checkpoints_that_do_not_fit_are_named(tmp_path: Path):
    state = make_heads().state_dict()

    def refuse(match: str, changed: object) -> None:
        torch.save(changed, tmp_path / "x.ckpt")
        with pytest.raises(ModelError, match=match):
            read_memeclip_checkpoint(tmp_path / "x.ckpt")

    refuse(r"x.ckpt: lacks pre_output.1.bias", {k: v for k, v in state.items() if k != "pre_output.1.bias"})
    refuse(r"lacks text_map.proj.0.weight", {k: v for k, v in state.items() if k != "text_map.proj.0.weight"})
    refuse(r"unexpected keys image_map.proj.3.weight", {**state, "image_map.proj.3.weight": torch.ones(2, 2)})
    refuse(
        r"img_adapter.fc.0.weight has shape \(5, 16\), expected \(4, 16\)",
        {**state, "img_adapter.fc.0.weight": torch.ones(5, 16)},
    )
    refuse(r"classifier.weight holds NaN", {**state, "classifier.weight": torch.full((3, 16), float("nan"))})
    refuse(
        r"classifier.weight has shape \(3,\), expected two dimensions", {**state, "classifier.weight": torch.ones(3)}
    )
    huge = {"classifier.weight": torch.ones(1, 2**21), "image_map.proj.0.weight": torch.ones(1, 2**21)}
    refuse(r"image_map.proj.0.weight has shape \(1, 2097152\), expected \(2097152, 2097152\)", {**state, **huge})
    refuse(r"no classifier.weight.*it has other", {"other": torch.ones(1), "classifier.weight": 3})
    refuse(r"holds a list", [1, 2])
    with pytest.raises(ModelError, match="no such checkpoint"):
        read_memeclip_checkpoint(tmp_path / "absent.ckpt")
    (tmp_path / "y.safetensors").write_bytes(b"?")
    with pytest.raises(ModelError, match=r"y.safetensors: is not a safetensors file"):
        read_memeclip_checkpoint(tmp_path / "y.safetensors")
    for about, match in (
        ('{"classes"  [0, 1]}', "says about its heads is not valid JSON"),
        ("[1]", r"says about its heads is \[1\], not a mapping"),
        ('{"classes": 3}', "names task None and classes 3, not a text and a list"),
    ):
        save_file(state, tmp_path / "z.safetensors", {"memeclip": about})
        with pytest.raises(ModelError, match=match):
            read_memeclip_checkpoint(tmp_path / "z.safetensors")


def test_heads_of_another_clip_are_refused(tmp_path: Path):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="take hook_image_embed of width 13, here it has 12"):
        HookedMemeCLIP("memeclip", tiny_towers(tmp_path, "memeclip"), MemeCLIPHeads(13, D_TEXT, 2, D_MAP))


@torch.no_grad()
def test_class_prompts_start_the_classifier(tmp_path: Path):
    towers, heads = tiny_towers(tmp_path, "memeclip"), make_heads(2)
    prompt_classifier(heads, towers.model, towers.tokenize, ["cat", "no_cat"])
    text = towers.model.encode_text(towers.tokenize(["a photo of a cat.", "a photo of a no cat."]))
    rows = [(t / t.norm()) @ towers.model.visual.proj.T for t in text]
    torch.testing.assert_close(heads.classifier.weight, torch.stack([r / r.norm() for r in rows]))
    with pytest.raises(ModelError, match="1 class names for 2 classes"):
        prompt_classifier(heads, towers.model, towers.tokenize, ["cat"])
    with pytest.raises(ModelError, match="image tower of width 20, this one has a projection from width 16"):
        prompt_classifier(MemeCLIPHeads(12, 24, 1, 20), towers.model, towers.tokenize, ["cat"])


def planted_pairs(n: int = 400, fusion: str = "memeclip") -> Embeddings:
    """A label that neither side shows alone: the sign of the product of their widest dimensions."""
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((n, D_IMAGE)), rng.standard_normal((n, D_TEXT))
    image[:, 0] *= 4
    text[:, 0] *= 4
    hate: list[int | None] = [int(a * b > 0) for a, b in zip(image[:, 0], text[:, 0], strict=True)]
    hate[::10] = [None] * len(hate[::10])
    hooks = {"hook_image_embed": image.astype(np.float32), "hook_text_embed": text.astype(np.float32)}
    made = make_embeddings(hooks, labels={"hate": hate})
    return Embeddings.from_dataset(made.dataset, fusion=fusion)


def test_training_picks_the_epoch_on_validation_and_repeats(tmp_path: Path):
    embeddings = planted_pairs()
    state = torch.get_rng_state()
    settings: Any = {"epochs": 8, "batch_size": 16, "d_map": 32, "learning_rate": 3e-3, "seed": 1}
    trained = train_memeclip_head(embeddings, "hate", **settings)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode():  # as notebooks that only look at models begin
        again = train_memeclip_head(embeddings, "hate", **settings)
    assert again.validation_losses == trained.validation_losses
    assert trained.epoch == int(np.argmin(trained.validation_losses))

    save_memeclip_heads(trained.checkpoint, tmp_path / "hate.safetensors")
    model = HookedMemeCLIP.from_embeddings(embeddings, heads=tmp_path / "hate.safetensors")
    assert (model.task, model.classes) == ("hate", [0, 1])
    rows = torch.tensor(model.token_dataset("validation")["input_ids"])
    with torch.no_grad():
        logits, loss = model(rows, return_type="both")
    assert loss.item() == pytest.approx(min(trained.validation_losses), abs=1e-6)  # the saved weights are that epoch's
    label = embeddings.label("hate").values[rows[:, 0].numpy()]
    assert (logits[:, 0].argmax(-1).numpy() == label).mean() > 0.85


def test_projected_text_is_not_fed_to_memeclip():
    with pytest.raises(ModelError, match="fusion 'clip'; MemeCLIP reads un-projected text"):
        train_memeclip_head(planted_pairs(fusion="clip"), "hate")


def test_training_needs_two_classes():
    rng = np.random.default_rng(0)
    hooks = {"hook_image_embed": rng.random((20, 4), np.float32), "hook_text_embed": rng.random((20, 4), np.float32)}
    made = make_embeddings(hooks, labels={"hate": [1] * 20, "none": [None] * 19 + [1]})
    embeddings = Embeddings.from_dataset(made.dataset, fusion="memeclip")
    with pytest.raises(DataError, match="only the class 1 in split train"):
        train_memeclip_head(embeddings, "hate")
    with pytest.raises(DataError, match="no labelled rows in split train"):
        train_memeclip_head(embeddings, "none")


def test_dropout_is_off_outside_training(tmp_path: Path):
    model = HookedMemeCLIP("memeclip", tiny_towers(tmp_path, "memeclip"), make_heads())
    assert not any(m.training for m in model.modules() if isinstance(m, nn.Dropout))


@torch.no_grad()
def test_from_memeclip_checkpoint_over_a_named_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sae_lens_meme.hooks.model as module

    monkeypatch.setattr(module, "load_towers", lambda name, fusion, seed=0: tiny_towers(tmp_path, fusion))
    heads = make_heads(2)
    save_memeclip_heads(MemeCLIPCheckpoint(heads, "hate", (0, 1)), tmp_path / "h.safetensors")
    model = HookedMemeCLIP.from_memeclip_checkpoint(tmp_path / "h.safetensors", "tiny")
    model.attach_memes(pictures(), TEXTS, labels={"hate": [0, 1, None, 1]})
    logits, loss = model(torch.tensor([[1], [3]]), return_type="both", loss_per_token=True)
    assert loss.shape == (2, 1)
    torch.testing.assert_close(loss[:, 0], -logits[:, 0].log_softmax(-1)[:, 1])
    with pytest.raises(DataError, match="row 2: has no hate label"):
        model(torch.tensor([[1], [2]]), return_type="loss")
    with pytest.raises(ModelError, match="3 classes for heads with 2 logits"):
        HookedMemeCLIP.from_memeclip_checkpoint(tmp_path / "h.safetensors", "tiny", classes=[0, 1, 2])


def test_from_pretrained_makes_new_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sae_lens_meme.hooks.model as module

    monkeypatch.setattr(module, "load_towers", lambda name, fusion, seed=0: tiny_towers(tmp_path, fusion))
    one = HookedMemeCLIP.from_pretrained("tiny", "memeclip", d_map=16, class_names=["no", "yes"], seed=4)
    two = HookedMemeCLIP.from_pretrained("tiny", "memeclip", d_map=16, class_names=["no", "yes"], seed=4)
    assert one.fingerprint == two.fingerprint
    assert one.d("hook_fused") == 16
    assert one.d("hook_text_embed") == 24
    assert HookedMemeCLIP.from_pretrained("tiny").d("hook_fused") == 12
