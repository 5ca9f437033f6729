"""`meme_topk` against independent plain-torch forms of the recipe."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import anisotropic
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer
from test_train_data import embeddings_of

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.standardize import moments
from sae_lens_meme.train import MemeTopKTrainingSAE, MemeTopKTrainingSAEConfig, train
from sae_lens_meme.train.kernels import sparse_decode, topk_encode
from sae_lens_meme.train.runner import Standardizer
from sae_lens_meme.train.sae import register


def dense_topk(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> torch.Tensor:
    hidden_pre = x @ W_enc + b_enc
    kept = hidden_pre.topk(k, dim=-1)
    return torch.zeros_like(hidden_pre).scatter(-1, kept.indices, kept.values.relu())


def step_input(x: torch.Tensor, dead: torch.Tensor | None = None) -> TrainStepInput:
    return TrainStepInput(sae_in=x, coefficients={}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False)


@settings(deadline=None, max_examples=30)
@given(batch=st.integers(1, 12), d_in=st.integers(1, 9), d_sae=st.integers(1, 20), data=st.data())
def test_gradients_equal_the_dense_form(batch: int, d_in: int, d_sae: int, data: st.DataObject):
    k = data.draw(st.integers(1, d_sae))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    shapes = [(batch, d_in), (d_in, d_sae), (d_sae,), (d_sae, d_in), (batch, d_in)]
    *parameters, weight = (torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes)
    ours, naive = ([p.clone().requires_grad_() for p in parameters] for _ in range(2))
    values, indices, hidden_pre = topk_encode(ours[0], ours[1], ours[2], k)
    out = sparse_decode(values, indices, ours[3])
    expected = dense_topk(naive[0], naive[1], naive[2], k) @ naive[3]
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(hidden_pre, naive[0] @ naive[1] + naive[2])
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, other in zip(ours, naive, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-12)


def make_sae(**fields: object) -> MemeTopKTrainingSAE:
    torch.manual_seed(0)
    return MemeTopKTrainingSAE(MemeTopKTrainingSAEConfig(**{"d_in": 16, "d_sae": 64, "k": 5, **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
@pytest.mark.parametrize("batch", [32, 1500])  # dense and sparse latents for SAELens' statistics
def test_the_sparse_step_equals_saelens_dense_path(batch: int, apply_b_dec_to_input: bool):
    x = torch.randn(batch, 16)
    fields = {"aux_loss_coefficient": 0.5, "apply_b_dec_to_input": apply_b_dec_to_input}
    fast, slow = make_sae(**fields), make_sae(**fields)
    for sae in (fast, slow):
        sae.b_dec.data += torch.linspace(-1, 1, 16)
    dead = torch.arange(64) % 3 == 0
    slow.hook_sae_acts_pre.add_hook(lambda tensor, hook: tensor)  # hooks go through SAELens' own code
    outputs = [sae.training_forward_pass(step_input(x, dead)) for sae in (fast, slow)]
    torch.testing.assert_close(outputs[0].feature_acts.to_dense(), outputs[1].feature_acts)
    for name in ("mse_loss", "auxiliary_reconstruction_loss"):
        torch.testing.assert_close(outputs[0].losses[name], outputs[1].losses[name])
    for output in outputs:
        output.loss.backward()
    for mine, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_auxk_is_saelens_auxk_over_d_in():
    x, dead = torch.randn(40, 16), torch.rand(64) > 0.5
    ours = make_sae(aux_loss_coefficient=1.0)
    stock = TopKTrainingSAE(
        TopKTrainingSAEConfig(16, 64, k=5, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False)
    )
    stock.load_state_dict(ours.state_dict())
    mine = ours.training_forward_pass(step_input(x, dead)).losses
    other = stock.training_forward_pass(step_input(x, dead)).losses
    for name in mine:
        torch.testing.assert_close(mine[name] * 16, other[name])


def reference_losses(x: list[torch.Tensor], sae: MemeTopKTrainingSAE, lr: float) -> tuple[list[float], list[float]]:
    """InterVLM's loop as it is written down: no clipping, decoder columns divided by max(norm, 1) after a step."""
    encoder, decoder = torch.nn.Linear(sae.cfg.d_in, sae.cfg.d_sae), torch.nn.Linear(sae.cfg.d_sae, sae.cfg.d_in)
    with torch.no_grad():
        for own, theirs in (
            (encoder.weight, sae.W_enc.T),
            (encoder.bias, sae.b_enc),
            (decoder.weight, sae.W_dec.T),
            (decoder.bias, sae.b_dec),
        ):
            own.copy_(theirs)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses, norms = [], []
    for batch in x:
        latents = dense_topk(batch, encoder.weight.T, encoder.bias, sae.cfg.k)
        loss = F.mse_loss(decoder(latents), batch)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.stack([p.grad.norm() for p in parameters]).norm()))  # type: ignore[union-attr]
        optimizer.step()
        with torch.no_grad():
            decoder.weight.div_(decoder.weight.norm(dim=0, keepdim=True).clamp(min=1))
        losses.append(loss.item())
    return losses, norms


def make_trainer(sae: TopKTrainingSAE, batches: list[torch.Tensor]) -> SAETrainer:
    size = len(batches[0])
    cfg = SAETrainerConfig(size * len(batches), size, lr=1e-3, lr_end=1e-4, logger=LoggingConfig(log_to_wandb=False))
    return SAETrainer(cfg, sae, iter(batches))


@pytest.mark.parametrize("decoder_init_norm", [None, 1.0])  # from 1.0 the clamp bites at every step
def test_the_training_curve_in_saelens_equals_the_reference_loop(decoder_init_norm: float | None):
    x = anisotropic(40 * 64, 48, np.random.default_rng(0))
    z = torch.from_numpy((x - x.mean(0)) / x.std(0))
    batches = list(z.split(64))
    torch.manual_seed(3)
    sae = MemeTopKTrainingSAE(MemeTopKTrainingSAEConfig(d_in=48, d_sae=192, k=8, decoder_init_norm=decoder_init_norm))
    expected, norms = reference_losses(batches, sae, lr=1e-3)
    trainer = make_trainer(sae, batches)
    losses = [trainer.step(batch).loss.item() for batch in batches]
    np.testing.assert_allclose(losses[:20], expected[:20], rtol=1e-5)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert max(norms) < 1, "SAELens clips at 1: the mean loss must stay below it for the two to be the same"
    assert losses[-1] < 0.8 * losses[0]


def test_saelens_own_loss_would_be_clipped():
    """Why the recipe's loss is a mean: the sum over d_in has a gradient far above SAELens' clip."""
    z = torch.from_numpy(anisotropic(256, 768, np.random.default_rng(0)))
    z = (z - z.mean(0)) / z.std(0)
    torch.manual_seed(0)
    saes = [
        TopKTrainingSAE(TopKTrainingSAEConfig(768, 1024, k=64)),
        MemeTopKTrainingSAE(MemeTopKTrainingSAEConfig(768, 1024, k=64)),
    ]
    for sae in saes:
        sae.training_forward_pass(step_input(z)).loss.backward()
    summed, mean = (torch.nn.utils.clip_grad_norm_(sae.parameters(), 1e9) for sae in saes)
    assert summed > 10
    assert mean < 0.5


def test_the_folded_sae_equals_the_published_form():
    """z = ReLU(TopK(W_e x + b_e)), x^ = W_d z + b_d on z-scored input, un-scaled again."""
    x = anisotropic(200, 48, np.random.default_rng(0))
    mean, std = x.astype(np.float64).mean(0), x.astype(np.float64).std(0, ddof=1)
    sae = make_sae(d_in=48, d_sae=96)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sae.constrain_decoder()
    encoder_weight, encoder_bias = sae.W_enc.detach().T.clone(), sae.b_enc.detach().clone()
    decoder_weight, decoder_bias = sae.W_dec.detach().T.clone(), sae.b_dec.detach().clone()
    z = (torch.from_numpy(x) - torch.from_numpy(mean)) / torch.from_numpy(std)
    latents = dense_topk(z, encoder_weight.T.double(), encoder_bias.double(), 5)
    published = F.linear(latents, decoder_weight.double(), decoder_bias.double()) * torch.from_numpy(
        std
    ) + torch.from_numpy(mean)

    whitening = Standardizer.of(moments([x])).whitening
    assert whitening is not None
    sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    acts = sae.encode(torch.from_numpy(x))
    torch.testing.assert_close(acts.double(), latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(sae.decode(acts).double(), published, atol=1e-7, rtol=0)


@pytest.mark.parametrize("decoder_norm", ["clamp", "unit", "none"])
def test_decoder_norms_of_the_saved_weights(decoder_norm: str):
    sae = make_sae(decoder_norm=decoder_norm, init="tied")
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    sae.W_dec.data *= torch.linspace(0.5, 4, 64)[:, None]
    state = sae.state_dict()
    sae.process_state_dict_for_saving_inference(state)
    norms, before = state["W_dec"].norm(dim=-1), sae.W_dec.norm(dim=-1)
    expected = {"clamp": before.clamp(max=1), "unit": torch.ones(64), "none": before}[decoder_norm]
    torch.testing.assert_close(norms, expected)


def test_the_scaler_is_its_own_inverse_and_equals_saelens_matrix_form():
    from sae_lens.training.activation_scaler import ActivationScaler

    x = torch.from_numpy(anisotropic(50, 24, np.random.default_rng(0)))
    ours = Standardizer.of(moments([x.numpy()]))
    stock = ActivationScaler(whitening=ours.whitening)
    torch.testing.assert_close(ours(x), stock(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.unscale(ours(x)), x, atol=1e-8, rtol=0)


@pytest.mark.whole
def test_a_clean_process_loads_what_was_saved(tmp_path):
    embeddings = embeddings_of()
    sae = train(
        {"epochs": 2, "train_batch_size_tokens": 64, "sae": {"d_sae": 48, "k": 4}},
        out=tmp_path / "sae",
        embeddings=embeddings,
        progress=False,
    )
    x = embeddings.take("hook_fused", [1, 2, 3])
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy as np, torch; from sae_lens import SAE;"
        f"sae = SAE.load_from_disk({str(tmp_path / 'sae')!r});"
        f"np.save({str(tmp_path / 'y.npy')!r}, sae(torch.from_numpy(np.load({str(tmp_path / 'x.npy')!r}))).detach().numpy());"
        "assert not [m for m in sys.modules if m.startswith('sae_lens_meme')];"
        "assert sae.cfg.architecture() == 'topk' and sae.cfg.k == 4"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert not isinstance(sae, dict)
    assert np.array_equal(np.load(tmp_path / "y.npy"), sae(torch.from_numpy(x)).detach().numpy())


def test_registering_again_does_nothing():
    register()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 65}, "sae.k is 65, it must lie between 1 and sae.d_sae 64"),
        ({"k": 0}, "sae.k is 0"),
        ({"decoder_norm": "clam"}, "sae.decoder_norm is 'clam', it must be one of clamp, unit, none"),
        ({"init": "zero"}, "sae.init is 'zero'"),
    ],
)
def test_wrong_fields_are_refused(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        make_sae(**fields)


def test_a_tied_start_can_be_saved_and_is_not_shared(tmp_path: Path):
    sae = make_sae(init="tied")
    torch.testing.assert_close(sae.W_enc.data, sae.W_dec.data.T)
    sae.save_model(tmp_path)
    sae.W_dec.data.zero_()
    assert sae.W_enc.data.abs().sum() > 0
