"""A checkpoint on this machine of an architecture of open_clip: the same towers, or one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hooks_models import CONFIG, TEXTS, pictures
from open_clip import factory
from safetensors.torch import save_file

from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embed.options import EmbedOptions
from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import HookedMemeCLIP, load_towers

TINY: dict[str, Any] = {key: CONFIG[key] for key in ("embed_dim", "vision_cfg")} | {
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
}


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A small architecture that open_clip knows by name, and weights of it."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny-16", TINY)
    torch.manual_seed(3)
    model = open_clip.CLIP(**TINY)
    return {key: value.contiguous() for key, value in model.state_dict().items()}


def embedded(model: HookedMemeCLIP) -> torch.Tensor:
    pixels = torch.stack([model.preprocess(picture) for picture in pictures()])
    with torch.no_grad():
        return torch.cat(list(model.encode(pixels, model.tokenize(TEXTS)).values()))


@pytest.mark.parametrize("kind", ["w.safetensors", "w.pt", "lightning.ckpt"])
def test_a_checkpoint_of_ones_own_is_embedded_with(tmp_path: Path, state: dict[str, torch.Tensor], kind: str):
    if kind.endswith(".safetensors"):
        save_file(state, tmp_path / kind)
    else:
        torch.save({"state_dict": state} if "ckpt" in kind else state, tmp_path / kind)
    options = EmbedOptions(model="Tiny-16", weights=tmp_path / kind, device="cpu", workers=0)
    encoder = Encoder.load(options)
    assert encoder.facts["model"] == f"Tiny-16@{kind}", "no folder of this machine"
    clip = open_clip.CLIP(**TINY).eval()
    clip.load_state_dict(state)
    pixels = torch.stack([encoder.model.preprocess(picture) for picture in pictures()])
    with torch.no_grad():
        expected = torch.cat([clip.encode_image(pixels), clip.encode_text(encoder.model.tokenize(TEXTS))])
    torch.testing.assert_close(embedded(encoder.model), expected)


def test_the_name_leads_back_to_the_file_beside_it(tmp_path: Path, state: Any, monkeypatch: pytest.MonkeyPatch):
    save_file(state, tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    named = load_towers("Tiny-16@w.safetensors")
    assert named.weights_sha256 == load_towers(f"Tiny-16@{tmp_path / 'w.safetensors'}").weights_sha256


def test_the_tag_brings_the_activation_of_the_published_weights(state: Any, tmp_path: Path, monkeypatch: Any):
    from sae_lens_meme.hooks import towers

    save_file(state, tmp_path / "w.safetensors")
    monkeypatch.setattr(towers, "list_pretrained_tags_by_model", lambda _: ["openai"])
    monkeypatch.setattr(towers, "get_pretrained_cfg", lambda *_: {"quick_gelu": True, "mean": (0.5, 0.5, 0.5)})
    plain, tagged = (load_towers(f"{name}@{tmp_path / 'w.safetensors'}") for name in ("Tiny-16", "Tiny-16/openai"))
    assert "QuickGELU" in str(tagged.model)
    assert "QuickGELU" not in str(plain.model)


class Malicious:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("pwned",))


def test_what_cannot_be_loaded_ends_in_one_line(tmp_path: Path, state: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"there is no file 'gone.pt'; give a checkpoint of Tiny-16"):
        load_towers("Tiny-16@gone.pt")
    state.pop("ln_final.weight")
    save_file(state, "short.safetensors")
    with pytest.raises(
        ModelError, match=r"short.safetensors: cannot be loaded .*ln_final.weight.*; give a checkpoint of"
    ):
        load_towers("Tiny-16@short.safetensors")
    torch.save({"a": Malicious()}, "bad.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ModelError, match="cannot be read as tensors only"):
        load_towers("Tiny-16@bad.pt")
    assert not Path("pwned").exists()
    with pytest.raises(ModelError, match=r"'Tyni-16' is not known to open_clip; did you mean Tiny-16"):
        load_towers("Tyni-16@w.pt")
    with pytest.raises(ModelError, match=r"names no weights; write Tiny-16/TAG .*, or Tiny-16@FILE for a checkpoint"):
        load_towers("Tiny-16")
