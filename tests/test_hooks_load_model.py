"""What an SAE's metadata names is loaded by SAELens' own `load_model`, and SAELens' own store runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sae_lens.llm_sae_training_runner
import sae_lens.load_model
import torch
from arrays import make_embeddings
from hooks_models import TEXTS, pictures, topk_sae
from sae_lens import SAE, ActivationsStore

from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import Hook, HookedMemeCLIP, HookedModel, register, save_memeclip_heads, unregister
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.train import train

SECTION = {"train_batch_size_tokens": 4, "epochs": 2, "sae": {"d_sae": 16, "k": 2}}


def load_for(sae: Any, **kwargs: Any) -> Any:
    """As SAELens' tutorials do it."""
    metadata = sae.cfg.metadata
    given = {**(metadata.model_from_pretrained_kwargs or {}), **kwargs}
    return sae_lens.load_model.load_model(metadata.model_class_name, metadata.model_name, "cpu", given)


def demo_embeddings(fusion: str) -> Embeddings:
    model = HookedMemeCLIP.from_pretrained("demo-encoder").attach_memes(pictures(8), 2 * TEXTS)
    _, cache = model.run_with_cache(torch.arange(8)[:, None], return_type=None)
    hooks = {hook: cache[hook][:, 0].detach().numpy() for hook in ("hook_image_embed", "hook_text_embed", "hook_fused")}
    return make_embeddings(hooks, model="demo-encoder", fusion=fusion)


def test_a_trained_sae_names_a_model_that_saelens_loads(tmp_path: Path):
    embeddings = demo_embeddings(fusion="clip")
    train(SECTION, out=tmp_path / "sae", embeddings=embeddings, progress=False)
    sae = SAE.load_from_disk(tmp_path / "sae")
    model = load_for(sae)
    assert isinstance(model, HookedMemeCLIP)
    model.attach_memes(pictures(8), 2 * TEXTS)
    store = ActivationsStore.from_sae(
        *(model, sae, model.token_dataset(None)), streaming=False, store_batch_size_prompts=8, total_tokens=8
    )
    fused = store.get_raw_llm_batch()[0]
    np.testing.assert_allclose(fused, embeddings.take("hook_fused", np.arange(8)), rtol=0, atol=1e-6)


def test_memeclip_asks_for_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    towers = Encoder.load(options("demo-encoder")).model
    heads = MemeCLIPHeads(towers.towers.d_embed, towers.towers.model.transformer.width, 2, 16)
    fused = make_embeddings({"hook_fused": np.random.default_rng(0).standard_normal((8, 16))}, model="demo-encoder", fusion="memeclip")  # fmt: skip
    with pytest.warns(UserWarning, match="model_from_pretrained_kwargs"):
        sae: Any = train(SECTION, out=tmp_path / "sae", embeddings=fused, progress=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"heads.safetensors: no such checkpoint; give the MemeCLIP .ckpt"):
        load_for(sae)
    save_memeclip_heads(MemeCLIPCheckpoint(heads, "hate", (0, 1)), tmp_path / "heads.safetensors")
    model = load_for(sae)
    assert (model.fusion, model.d("hook_fused")) == ("memeclip", sae.cfg.d_in)
    torch.testing.assert_close(model.heads.classifier.weight, heads.classifier.weight)
    assert load_for(sae, heads=str(tmp_path / "heads.safetensors")).task == "hate"


def test_heads_are_memeclips():
    with pytest.raises(ModelError, match=r"heads 'x.ckpt' belong to fusion memeclip"):
        HookedMemeCLIP.from_pretrained("demo-encoder", heads="x.ckpt")


def test_vectors_have_no_model(tmp_path: Path):
    vectors = make_embeddings({"hook_fused": np.random.default_rng(0).standard_normal((8, 6))}, model="arrays")
    sae: Any = train(SECTION, out=tmp_path / "sae", embeddings=vectors, progress=False)
    with pytest.raises(ModelError, match=r"'arrays': vectors were given, .* HookedMemeCLIP.from_embeddings"):
        load_for(sae)


def test_a_registered_model_is_loaded_by_its_name():
    @register
    class Small(HookedModel):
        def __init__(self, name: str):
            super().__init__()
            self.model_name = name
            self.declare({"hook_fused": Hook(4)})

        @classmethod
        def from_pretrained(cls, name: str) -> Small:
            return cls(name)

    try:
        sae = topk_sae(4)
        sae.cfg.metadata.model_class_name, sae.cfg.metadata.model_name = "Small", "any"
        assert load_for(sae).cfg.model_name == "any"
        assert sae_lens.llm_sae_training_runner.load_model is sae_lens.load_model.load_model
    finally:
        unregister("Small")
    with pytest.raises(ValueError, match="Unknown model class: Small"):
        load_for(sae)


def test_other_models_are_saelens_own(monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    own = sae_lens.load_model.HookedTransformer
    monkeypatch.setattr(own, "from_pretrained_no_processing", lambda **given: seen.append(given))
    sae_lens.load_model.load_model("HookedTransformer", "gpt2", "cpu", {"center_unembed": False})
    assert seen == [{"model_name": "gpt2", "device": "cpu", "center_unembed": False}]


def options(model: str) -> Any:
    from sae_lens_meme.embed.options import EmbedOptions

    return EmbedOptions(model=model, device="cpu", workers=0)
