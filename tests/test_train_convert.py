"""SAEs of other projects, against their own forward pass written out."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import anisotropic
from sae_lens import SAE

from sae_lens_meme.errors import ModelError
from sae_lens_meme.train import dictionary_learning_loader, intervlm_loader

X = torch.from_numpy(anisotropic(100, 24, np.random.default_rng(0)))


def topk_relu(hidden_pre: torch.Tensor, k: int) -> torch.Tensor:
    kept = hidden_pre.topk(k, dim=-1)
    return torch.zeros_like(hidden_pre).scatter(-1, kept.indices, kept.values.relu())


def linear_state() -> dict[str, torch.Tensor]:
    encoder, decoder = torch.nn.Linear(24, 60), torch.nn.Linear(60, 24)
    named = {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()}
    return {f"{part}.{name}": value for part, state in named.items() for name, value in state.items()}


@pytest.mark.parametrize("wrapped", [False, True])
def test_intervlm(tmp_path, wrapped: bool):
    state, mean, std = linear_state(), X.mean(0), X.std(0)
    torch.save({"model_state_dict": state, "k": 6} if wrapped else state, tmp_path / "sae.pt")
    torch.save({"mean": mean, "std": std}, tmp_path / "norm_stats.pt")
    sae = SAE.load_from_disk(tmp_path, converter=intervlm_loader)
    assert sae.cfg.architecture() == "topk"
    if not wrapped:
        sae = SAE.load_from_disk(
            tmp_path, converter=lambda path, device, cfg_overrides: intervlm_loader(path, device, cfg_overrides, k=6)
        )
    z = (X - mean) / std
    latents = topk_relu(F.linear(z, state["encoder.weight"], state["encoder.bias"]), 6)
    expected = F.linear(latents, state["decoder.weight"], state["decoder.bias"]) * std + mean
    torch.testing.assert_close(sae.encode(X), latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(sae(X), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("k_in", ["file", "config"])
def test_dictionary_learning(tmp_path, k_in: str):
    state = linear_state()
    state["b_dec"] = state.pop("decoder.bias")
    torch.save(state | ({"k": torch.tensor(5)} if k_in == "file" else {}), tmp_path / "ae.pt")
    if k_in == "config":
        (tmp_path / "config.json").write_text(json.dumps({"trainer": {"k": 5}}))
    sae = SAE.load_from_disk(tmp_path, converter=dictionary_learning_loader)
    latents = topk_relu(F.linear(X - state["b_dec"], state["encoder.weight"], state["encoder.bias"]), 5)
    torch.testing.assert_close(sae.encode(X), latents, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        sae(X), F.linear(latents, state["decoder.weight"]) + state["b_dec"], atol=1e-6, rtol=1e-5
    )


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("loader", [intervlm_loader, dictionary_learning_loader])
def test_a_malicious_file_is_not_opened(tmp_path, monkeypatch, loader):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"encoder.weight": Malicious()}, "ae.pt")
    with pytest.raises(ModelError, match="cannot be read as tensors only"):
        loader(tmp_path / "ae.pt")
    assert not (tmp_path / "pwned").exists()


def test_what_is_missing_is_named(tmp_path):
    torch.save(linear_state(), tmp_path / "sae.pt")
    with pytest.raises(ModelError, match=r"norm_stats\.pt: no such file"):
        intervlm_loader(tmp_path)
    with pytest.raises(ModelError, match=r"is not a TopK autoencoder .*decoder.bias"):
        dictionary_learning_loader(tmp_path / "sae.pt")
    torch.save({"mean": X.mean(0)}, tmp_path / "norm_stats.pt")
    with pytest.raises(ModelError, match=r"norm_stats.pt: has no tensor 'std' \(it has mean\)"):
        intervlm_loader(tmp_path)
