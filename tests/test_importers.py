"""SAEs of other projects, against their own forward pass written out."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import anisotropic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sae_lens import SAE, TrainingSAE
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import save_file

from sae_lens_meme import embed_arrays, measure
from sae_lens_meme.errors import ConfigError, ModelError, StorageError
from sae_lens_meme.evaluators import evaluate, load_sae
from sae_lens_meme.evaluators.base import unscaled
from sae_lens_meme.importers import converter_of, dictionary_learning_loader, import_sae, intervlm_loader
from sae_lens_meme.train import load_train_config

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


def batch_topk(folder: Path, kind: str, threshold: float, dict_class: object = "given") -> dict[str, torch.Tensor]:
    """Files as dictionary_learning writes them for `kind`; returns the state."""
    state = linear_state()
    state |= {"b_dec": state.pop("decoder.bias"), "k": torch.tensor(5), "threshold": torch.tensor(threshold)}
    if kind == "MatryoshkaBatchTopKSAE":
        state["W_enc"], state["b_enc"] = state.pop("encoder.weight").T.contiguous(), state.pop("encoder.bias")
        state["W_dec"] = state.pop("decoder.weight").T.contiguous()
        state["group_sizes"] = torch.tensor([20, 40])
    torch.save(state, folder / "ae.pt")
    if dict_class:
        trainer = {"trainer": {"dict_class": kind if dict_class == "given" else dict_class, "k": 5}}
        (folder / "config.json").write_text(json.dumps(trainer))
    return state


@pytest.mark.parametrize("threshold", [0.3, 0.0, -1.0])  # -1: no step was long enough to set it
@pytest.mark.parametrize("kind", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_batchtopk_encodes_with_its_threshold(tmp_path: Path, kind: str, threshold: float):
    state = batch_topk(tmp_path, kind, threshold)
    sae = SAE.load_from_disk(tmp_path, converter=dictionary_learning_loader)
    assert sae.cfg.architecture() == "jumprelu"
    x = X * 20
    W_enc = state["W_enc"] if "W_enc" in state else state["encoder.weight"].T
    W_dec = state["W_dec"] if "W_dec" in state else state["decoder.weight"].T
    b_enc = state["b_enc"] if "b_enc" in state else state["encoder.bias"]
    hidden = torch.relu((x - state["b_dec"]) @ W_enc + b_enc)
    latents = hidden * (hidden > threshold)
    assert 0 < (latents > 0).double().mean() < 0.9
    torch.testing.assert_close(sae.encode(x), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x), latents @ W_dec + state["b_dec"], atol=1e-5, rtol=1e-5)


def test_topk_with_a_threshold_is_topk_where_its_class_is_named(tmp_path: Path):
    batch_topk(tmp_path, "AutoEncoderTopK", 0.3)
    sae = SAE.load_from_disk(tmp_path, converter=dictionary_learning_loader)
    assert (sae.cfg.architecture(), sae.cfg.k) == ("topk", 5)


def test_what_cannot_be_told_is_refused(tmp_path: Path):
    batch_topk(tmp_path, "BatchTopKSAE", 0.3, dict_class=None)
    for k in (None, 3):  # k alone does not tell that it is TopK
        with pytest.raises(ModelError, match=r"is AutoEncoderTopK or BatchTopKSAE.* config.json.* or pass kind="):
            dictionary_learning_loader(tmp_path, k=k)
    assert dictionary_learning_loader(tmp_path, kind="AutoEncoderTopK", k=3)[0]["architecture"] == "topk"
    assert dictionary_learning_loader(tmp_path, kind="BatchTopKSAE")[0]["architecture"] == "jumprelu"
    with pytest.raises(ModelError, match="kind is 'TopK', known here are AutoEncoder, "):
        dictionary_learning_loader(tmp_path, kind="TopK")
    batch_topk(tmp_path, "BatchTopKSAE", 0.3)
    with pytest.raises(ModelError, match="names 'BatchTopKSAE', kind is 'AutoEncoderTopK'; leave kind out"):
        dictionary_learning_loader(tmp_path, kind="AutoEncoderTopK")
    for unknown in ("CrossCoder", ["BatchTopKSAE"]):
        batch_topk(tmp_path, "BatchTopKSAE", 0.3, dict_class=unknown)
        with pytest.raises(ModelError, match=r"names .*, known here are AutoEncoder, .*AutoEncoderTopK, BatchTopKSAE"):
            dictionary_learning_loader(tmp_path)


@pytest.mark.parametrize("kind", ["intervlm", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "AutoEncoderTopK"])
def test_import_writes_a_stock_folder(tmp_path: Path, kind: str):
    (tmp_path / "given").mkdir()
    if kind == "intervlm":
        torch.save(linear_state() | {"k": 5}, tmp_path / "given" / "sae.pt")
        torch.save({"mean": X.mean(0), "std": X.std(0)}, tmp_path / "given" / "norm_stats.pt")
    else:
        batch_topk(tmp_path / "given", kind, 0.3)
    imported = import_sae(tmp_path / "given", tmp_path / "made" / "out", hook="hook_image_embed")
    loaded = SAE.load_from_disk(tmp_path / "made" / "out")
    assert loaded.cfg.metadata.hook_name == "hook_image_embed"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]
    torch.testing.assert_close(loaded(X), imported(X))
    again = import_sae(tmp_path / "given", tmp_path / "made" / "out", hook="hook_image_embed")
    torch.testing.assert_close(again(X), imported(X))
    with pytest.raises(StorageError, match="holds a different result"):
        import_sae(tmp_path / "given", tmp_path / "made" / "out", hook="hook_fused")


def changed(key: str, value: object) -> dict[str, object]:
    state: dict[str, object] = {**linear_state(), "k": torch.tensor(5)}
    state["b_dec"] = state.pop("decoder.bias")
    return state | {key: value}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed("b_dec", torch.zeros(7)), "the shapes of its tensors .* are not those of one autoencoder"),
        (changed("b_dec", torch.zeros(24, 1)), r"'b_dec' has shape \(24, 1\), 1 dimensions are expected"),
        (changed("encoder.bias", torch.full((60,), float("nan"))), "b_enc holds NaN"),
        (changed("k", torch.tensor(61)), "k is 61, there are 60 latents"),
        (changed("k", torch.tensor(0)), "k is 0, not a number of latents"),
        (changed("k", float("inf")), "k is inf, not a number"),
        (changed("encoder.weight", [1.0]), "has no tensor 'encoder.weight'"),
        (
            changed("encoder.weight", torch.ones(60, 24).long()),
            "'encoder.weight' is int64; the weights of an SAE are floats",
        ),
        ([1], "holds list, not a dictionary"),
    ],
)
def test_wrong_tensors_are_refused(tmp_path: Path, state: object, message: str):
    torch.save(state, tmp_path / "ae.pt")
    with pytest.raises(ModelError, match=message):
        dictionary_learning_loader(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"trainer": 3}', "\x00"])
def test_a_wrong_config_is_refused(tmp_path: Path, text: str):
    torch.save(changed("k", torch.tensor(5)), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"is not the config.json of a trainer"):
        dictionary_learning_loader(tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_a_file_holds_it_loads_or_is_refused(tmp_path: Path, data: st.DataObject):
    torch.save(changed("k", torch.tensor(5)), tmp_path / "ae.pt")
    good = (tmp_path / "ae.pt").read_bytes()
    at = data.draw(st.integers(0, len(good)))
    torn = data.draw(st.sampled_from([good[:at], good[:at] + data.draw(st.binary(max_size=40)) + good[at + 7 :]]))
    name = data.draw(st.sampled_from(["ae.pt", "ae.safetensors"]))
    (tmp_path / name).write_bytes(torn)
    with suppress(ModelError):
        dictionary_learning_loader(tmp_path / name)


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
    torch.save({"decoder.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"norm_stats\.pt: no such file"):
        intervlm_loader(tmp_path / "sae.pt")
    with pytest.raises(ModelError, match=r"is not an autoencoder of dictionary_learning .*decoder.weight"):
        dictionary_learning_loader(tmp_path / "other.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: holds no ae\.pt; give the file with the weights itself"):
        dictionary_learning_loader(tmp_path / "empty")
    torch.save(linear_state() | {"bias": torch.zeros(24)}, tmp_path / "ae.pt")
    with pytest.raises(ModelError, match=r"ae\.pt: is AutoEncoder, which has no k; leave k out"):
        dictionary_learning_loader(tmp_path / "ae.pt", k=3)
    torch.save({"mean": X.mean(0)}, tmp_path / "norm_stats.pt")
    with pytest.raises(ModelError, match=r"norm_stats.pt: has no tensor 'std' \(it has mean\)"):
        intervlm_loader(tmp_path / "sae.pt")


def sparsify(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Files as sparsify writes them for a TopK SAE."""
    folder.mkdir(exist_ok=True)
    state = {"encoder.weight": torch.randn(60, 24), "encoder.bias": torch.randn(60) / 10}
    state |= {"W_dec": F.normalize(torch.randn(60, 24), dim=-1), "b_dec": torch.randn(24) / 10}
    save_file(state, folder / "sae.safetensors")
    cfg = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": 60, "k": 5}
    (folder / "cfg.json").write_text(json.dumps({**cfg, "transcode": False, "d_in": 24, **changes}))
    return state


def test_sparsify(tmp_path: Path):
    state = sparsify(tmp_path / "given")
    sae = import_sae(tmp_path / "given", tmp_path / "out")
    latents = topk_relu(F.linear(X - state["b_dec"], state["encoder.weight"], state["encoder.bias"]), 5)
    torch.testing.assert_close(sae.encode(X), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), latents @ state["W_dec"] + state["b_dec"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("changes", "message"), [({"activation": "groupmax"}, "activation 'groupmax'"), ({"transcode": True}, "transcode True"), ({"k": None}, "says no k")])  # fmt: skip
def test_what_sparsify_does_otherwise_is_refused(tmp_path: Path, changes: dict, message: str):
    sparsify(tmp_path / "given", **changes)
    with pytest.raises(ModelError, match=message):
        import_sae(tmp_path / "given", tmp_path / "out")


FOREIGN = ("intervlm", "dictionary_learning", "sparsify")


def foreign(folder: Path, kind: str) -> Path:
    folder.mkdir()
    if kind == "intervlm":
        torch.save(linear_state() | {"k": 5}, folder / "sae.pt")
        torch.save({"mean": X.mean(0), "std": X.std(0)}, folder / "norm_stats.pt")
    elif kind == "sparsify":
        sparsify(folder)
    else:
        batch_topk(folder, "BatchTopKSAE", 0.3)
    return folder


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_files_tell_whose_sae_it_is(tmp_path: Path, kind: str):
    assert converter_of(foreign(tmp_path / "given", kind)) == kind
    import_sae(tmp_path / "given", tmp_path / "out")
    assert converter_of(tmp_path / "out") is None


@pytest.mark.parametrize("kind", FOREIGN)
def test_evaluate_reads_an_sae_of_another_project(tmp_path: Path, kind: str):
    given_, memes = foreign(tmp_path / "given", kind), embedded(tmp_path)
    imported = import_sae(given_, tmp_path / "imported")
    only = {"only": ["reconstruction"], "bootstrap": 0, "hook": "hook_fused"}
    report = evaluate(given_, memes, out=tmp_path / "evaluation", progress=False, **only)
    stock = evaluate(tmp_path / "imported", memes, out=tmp_path / "stock", progress=False, **only)
    assert report["results"]["reconstruction"] == stock["results"]["reconstruction"]
    kept = SAE.load_from_disk(tmp_path / "evaluation" / "sae")
    torch.testing.assert_close(kept(X), imported(X))
    again = evaluate(given_, memes, out=tmp_path / "evaluation", progress=False, **only)
    assert again == report
    other: Any = {**only, "seed": 1, "overwrite": True, "progress": False}
    evaluate(tmp_path / "imported", memes, out=tmp_path / "evaluation", **other)
    assert not (tmp_path / "evaluation" / "sae").exists()  # it was of the evaluation that was replaced
    found = measure(given_, memes, progress=False, **only)
    assert found.content["results"]["reconstruction"] == stock["results"]["reconstruction"]


def checkpoint(folder: Path, architecture: str, whitened: bool) -> tuple[TrainingSAE, ActivationScaler]:
    """As SAELens writes it in the middle of training: weights of scaled activations, the scale beside them."""
    norm = "covariance_whitening" if whitened else "expected_average_only_in"
    more = {"topk": {"k": 4}, "abstopk": {"k": 4}, "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [10, 40]}}.get(
        architecture, {}
    )
    section = {"architecture": architecture, "d_in": 24, "d_sae": 40, "normalize_activations": norm, **more}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = TrainingSAE.from_dict(section).eval()
        for weight in sae.parameters():
            weight.data.add_(torch.rand_like(weight) / 4)
    scaler = ActivationScaler()
    if whitened:
        scaler.estimate_whitening(24, iter([3 * X.float()]), 1)
    else:
        scaler.estimate_scaling_factor(24, iter([3 * X.float()]), 1)
    sae.cfg.metadata.hook_name = "hook_fused"
    sae.save_model(folder)
    scaler.save(str(folder / "activation_scaler.json"))
    return sae, scaler


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "gated", "standard", "matryoshka_batchtopk"])
@torch.no_grad()
def test_a_checkpoint_takes_raw_activations_when_its_scale_is_folded_in(tmp_path: Path, architecture, whitened: bool):
    trained, scaler = checkpoint(tmp_path / "given", architecture, whitened)
    assert converter_of(tmp_path / "given") == "saelens-checkpoint"
    sae = import_sae(tmp_path / "given", tmp_path / "out")
    assert sae.cfg.normalize_activations == "none"
    x, seen = X.float(), unscaled(trained, scaler)
    if architecture == "matryoshka_batchtopk":
        assert sae.cfg.metadata.matryoshka_widths == [10, 40]
        return
    torch.testing.assert_close(sae(x), seen.decode(seen.encode(x)), rtol=1e-3, atol=1e-5)
    assert torch.equal(sae.encode(x) > 0, seen.encode(x) > 0)


def test_a_checkpoint_is_never_read_as_a_finished_sae(tmp_path: Path):
    checkpoint(given_ := tmp_path / "given", "topk", False)
    only: dict[str, Any] = {"only": ["reconstruction"], "bootstrap": 0, "progress": False}
    found = evaluate(given_, embedded(tmp_path), out=tmp_path / "evaluation", **only)
    import_sae(given_, tmp_path / "out")
    stock = evaluate(tmp_path / "out", embedded(tmp_path), out=tmp_path / "stock", **only)
    assert found["results"]["reconstruction"] == stock["results"]["reconstruction"]
    with pytest.raises(
        StorageError, match=r"a checkpoint of a training on scaled activations.* import saelens-checkpoint"
    ):
        load_sae(given_)
    (given_ / "activation_scaler.json").unlink()
    for norm in ("expected_average_only_in", "covariance_whitening"):
        cfg = json.loads((given_ / "cfg.json").read_text()) | {"normalize_activations": norm}
        (given_ / "cfg.json").write_text(json.dumps(cfg))
        with pytest.raises(ModelError, match=f"'{norm}': its weights take scaled activations, .* give the final SAE"):
            load_sae(given_)
        with pytest.raises(ConfigError, match=f"'{norm}': its weights take scaled activations"):
            load_train_config({"from_pretrained_path": str(given_)})


@torch.no_grad()
def test_a_checkpoint_of_abstopk_is_folded_before_its_signs_are_split(tmp_path: Path):
    trained, scaler = checkpoint(tmp_path / "given", "abstopk", False)
    with pytest.raises(ModelError, match=r"is a checkpoint of a training on scaled activations; .*saelens-checkpoint"):
        import_sae(tmp_path / "given", tmp_path / "out")
    import_sae(tmp_path / "given", tmp_path / "folded", converter="saelens-checkpoint")
    sae, seen = import_sae(tmp_path / "folded", tmp_path / "out"), unscaled(trained, scaler)
    torch.testing.assert_close(sae(X.float()), seen.decode(seen.encode(X.float())), rtol=1e-3, atol=1e-5)


def test_the_scale_of_a_checkpoint_must_be_one(tmp_path: Path):
    checkpoint(given_ := tmp_path / "given", "topk", False)
    for wrong in ("1", 0, True, float("nan")):
        (given_ / "activation_scaler.json").write_text(json.dumps({"scaling_factor": wrong}))
        with pytest.raises(ModelError, match=r"scaling_factor is .*, it must be a number above 0"):
            import_sae(given_, tmp_path / "out", converter="saelens-checkpoint")
    (given_ / "activation_scaler.json").write_text('{"scaling_factor": null, "has_whitening": true}')
    with pytest.raises(ModelError, match=r"activation_whitening.safetensors: no such file"):
        import_sae(given_, tmp_path / "out")


def test_evaluate_takes_a_bare_file_and_a_named_converter(tmp_path: Path):
    folder, memes = foreign(tmp_path / "given", "dictionary_learning"), embedded(tmp_path)
    only = {"only": ["reconstruction"], "bootstrap": 0, "hook": "hook_fused", "progress": False}
    by_file = evaluate(folder / "ae.pt", memes, out=tmp_path / "one", **only)
    (folder / "ae.pt").rename(folder / "trained.pt")
    named = evaluate(folder / "trained.pt", memes, out=tmp_path / "two", converter="dictionary_learning", **only)
    assert named["results"]["reconstruction"] == by_file["results"]["reconstruction"]
    assert named["options"]["converter"] == "dictionary_learning"
    with pytest.raises(
        ConfigError, match=r"converter is 'pickle', it must be one of abstopk, dictionary_learning, intervlm"
    ):
        evaluate(folder / "trained.pt", memes, out=tmp_path / "three", converter="pickle", **only)
    with pytest.raises(StorageError, match=r"trained.pt: is not an SAE folder .* name the --converter"):
        evaluate(folder / "trained.pt", memes, out=tmp_path / "four", **only)
    with pytest.raises(ConfigError, match="names no hook; pass --hook"):
        evaluate(folder / "trained.pt", memes, out=tmp_path / "five", **{**only, "converter": "dictionary_learning", "hook": None})  # fmt: skip


def test_steps_that_want_a_stock_sae_name_the_command_that_makes_one(tmp_path: Path):
    folder = foreign(tmp_path / "given", "dictionary_learning")
    with pytest.raises(
        StorageError,
        match=r"is an SAE of dictionary_learning; `sae-lens-meme import dictionary_learning .*given --out SAE`",
    ):
        load_sae(folder)


def test_a_stock_sae_is_said_to_be_one(tmp_path: Path):
    import_sae(foreign(tmp_path / "given", "dictionary_learning"), tmp_path / "stock")
    with pytest.raises(ModelError, match="stock: is a stock SAE already; give it to evaluate --sae as it is, or"):
        import_sae(tmp_path / "stock", tmp_path / "again")
    with pytest.raises(ModelError, match=r"holds no ae\.pt"):
        import_sae(tmp_path / "stock", tmp_path / "again", converter="dictionary_learning")


def test_evaluate_runs_nothing_of_a_malicious_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "given").mkdir()
    torch.save({"encoder.weight": Malicious()}, tmp_path / "given" / "ae.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="cannot be read as tensors only"):
        evaluate(tmp_path / "given", embedded(tmp_path), out=tmp_path / "out", hook="hook_fused", progress=False)
    assert not (tmp_path / "pwned").exists()


def embedded(folder: Path) -> Path:
    np.save(folder / "x.npy", X.numpy())
    splits = ["train", "train", "validation", "test"]
    (folder / "rows.csv").write_text("id,split\n" + "".join(f"m{i},{splits[i % 4]}\n" for i in range(len(X))))
    embed_arrays(folder / "embeddings", table=folder / "rows.csv", fused_embeds=folder / "x.npy")
    return folder / "embeddings"
