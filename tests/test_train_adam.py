"""The trainer's step with the matrices updated in a loop of ours, against SAELens' trainer with torch's own Adam."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from test_train_cpu import parameters
from test_train_sae import make_sae

from sae_lens_meme.train.adam import use_fused_adam
from sae_lens_meme.train.cpu import topk_step

X = torch.randn(30, 32, 16, generator=torch.Generator().manual_seed(1))


def make_trainer(fused: bool, **fields: Any) -> SAETrainer[Any, Any]:
    """Torch's fused Adam, or what `use_fused_adam` makes of it."""
    config = SAETrainerConfig(32 * 60, 32, lr=0.02, lr_end=0.002, lr_decay_steps=50, logger=LoggingConfig(False))
    trainer = SAETrainer(config, make_sae(**fields), iter(()))
    for group in trainer.optimizer.param_groups:
        group["fused"] = True
    if fused:
        use_fused_adam(trainer)
    return trainer


def state(trainer: SAETrainer[Any, Any]) -> dict[str, torch.Tensor]:
    moments = {
        f"{name}.{key}": value
        for name, parameter in trainer.sae.named_parameters()
        for key, value in trainer.optimizer.state[parameter].items()
    }
    return {**trainer.sae.state_dict(), **moments}


def require_same_numbers(one: SAETrainer[Any, Any], other: SAETrainer[Any, Any]) -> None:
    """To the bit where this was written; the compilers of torch and of numba owe us that nowhere."""
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=2e-5, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("scale", [1.0, 100.0])  # unclipped; every step clipped
@pytest.mark.parametrize("fields", [{}, {"aux_loss_coefficient": 0.5}, {"apply_b_dec_to_input": True}])
def test_steps_are_those_of_torch(fields: dict[str, Any], scale: float):
    ours, theirs = make_trainer(True, **fields), make_trainer(False, **fields)
    for trainer in (ours, theirs):
        trainer.n_forward_passes_since_fired[::3] = 1e6  # dead, for the auxiliary loss
    for x in X[:8]:
        losses = [trainer.step(scale * x).loss.item() for trainer in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    require_same_numbers(ours, theirs)


@pytest.mark.parametrize(("d_in", "d_sae"), [(16, 1), (1, 24), (1, 1), (16, 16)])
@pytest.mark.parametrize("init", ["xavier", "tied"])
def test_one_latent_or_one_dimension_or_a_square(d_in: int, d_sae: int, init: str):
    """A matrix with one row or one column lies in memory both ways."""
    ours, theirs = (make_trainer(fused, d_in=d_in, d_sae=d_sae, k=1, init=init) for fused in (True, False))
    for x in X[:8, :, :d_in]:
        for trainer in (ours, theirs):
            trainer.step(x)
    require_same_numbers(ours, theirs)
    assert ours.sae.W_enc.data_ptr() != ours.sae.W_dec.data_ptr()


def test_a_latent_that_never_fires_still_moves_as_its_moments_say():
    trainer = make_trainer(True)
    trainer.step(X[0])
    trainer.sae.b_enc.data[7] = -1e3
    before = trainer.sae.W_dec[7].detach().clone()
    trainer.step(X[1])
    assert not torch.equal(trainer.sae.W_dec[7], before)


def test_a_checkpoint_of_either_goes_on_with_the_other(tmp_path):
    """Of an older version, or of SAELens' own trainer, the moments of W_enc lie in memory row after row."""
    for begun, goes_on in ((False, True), (True, False)):
        whole, first, second = make_trainer(begun), make_trainer(begun), make_trainer(goes_on)
        for x in X[:6]:
            whole.step(x)
        for x in X[:3]:
            first.step(x)
        folder = tmp_path / str(begun)
        first.save_checkpoint("here", folder)
        second.load_trainer_state(folder / "here")
        second.sae.load_weights_from_checkpoint(folder / "here")
        for x in X[3:6]:
            second.step(x)
        require_same_numbers(whole, second)


def test_weights_are_saved_row_after_row(tmp_path):
    trainer = make_trainer(True)
    trainer.step(X[0])
    assert not trainer.sae.W_enc.is_contiguous()
    trainer.sae.save_inference_model(tmp_path)
    assert torch.equal(load_file(tmp_path / "sae_weights.safetensors")["W_enc"], trainer.sae.W_enc)
    assert all(value.is_contiguous() for value in trainer.sae.state_dict().values())


def weights_and_gradients(by_latent: bool) -> list[Any]:
    x, target, W_enc, *others = parameters(8, 6, 40, 5)
    weights = [w.requires_grad_() for w in (W_enc.T.contiguous().T if by_latent else W_enc, *others)]
    topk_step(x, target, *weights, 4)[0].backward()  # type: ignore[misc]
    return weights


@pytest.mark.parametrize("by_latent", [False, True])
def test_clipping_knows_the_norm_and_changes_it(by_latent: bool):
    weights = weights_and_gradients(by_latent)
    expected = [w.grad.clone() for w in weights]
    norm = torch.cat([g.flatten() for g in expected]).norm()
    torch.testing.assert_close(torch.nn.utils.clip_grad_norm_(weights, 1e6), norm)
    assert all(torch.equal(w.grad, g) for w, g in zip(weights, expected, strict=True))
    for limit in (norm / 2, norm / 4):  # the second must know that the first has changed them
        torch.nn.utils.clip_grad_norm_(weights, float(limit))
        for w, g in zip(weights, expected, strict=True):
            torch.testing.assert_close(w.grad.clone(), g * (limit / norm), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.mul_(3.0),
        lambda g: g.add_(1.0),
        lambda g: g.zero_(),
        lambda g: g[0].zero_(),
        lambda g: g.detach().mul_(3.0),
        lambda g: g.data.mul_(3.0),
        lambda g: torch._foreach_add_([g], 1.0),
        lambda g: torch._foreach_mul_([g], 3.0),
    ],
)
def test_a_gradient_that_was_changed_has_another_norm(change: Any):
    for w in weights_and_gradients(True):
        before = w.grad.clone()
        change(w.grad)
        change(before)
        torch.testing.assert_close(torch.linalg.vector_norm(w.grad), before.norm())
        torch.testing.assert_close(w.grad.norm(1), before.norm(1))
        assert torch.equal(copy.deepcopy(w.grad), before)
        assert (w.grad.numpy() == before.numpy()).all()
