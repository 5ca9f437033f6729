"""The compiled step on a CPU against the dense form, and what it must share with it: ties, NaN, threads."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train_sae import dense_topk, make_sae, step_input

from sae_lens_meme.train.cpu import Recycled, topk_step


def parameters(batch: int, d_in: int, d_sae: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = [(batch, d_in), (batch, d_in), (d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]
    return [torch.randn(shape, generator=draw) for shape in shapes]


def dense_step(arguments: list[torch.Tensor], k: int) -> torch.Tensor:
    x, target, W_enc, b_enc, W_dec, b_dec = arguments
    out = dense_topk(x, W_enc, b_enc, k) @ W_dec + b_dec
    return (out - target).square().mean()


def step(arguments: list[torch.Tensor], k: int) -> tuple[torch.Tensor, ...]:
    x, target, W_enc, b_enc, W_dec, b_dec = arguments
    return topk_step(x, target, W_enc, b_enc, W_dec, b_dec, k)


def require_equal_steps(arguments: list[torch.Tensor], k: int) -> None:
    """The loss and its gradients, against float64."""
    ours = [a.clone().requires_grad_(i != 1) for i, a in enumerate(arguments)]
    theirs = [a.double().requires_grad_(i != 1) for i, a in enumerate(arguments)]
    loss = step(ours, k)[0]
    expected = dense_step(theirs, k)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-7)
    (3 * loss).backward()
    (3 * expected).backward()
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if i != 1:
            assert mine.grad is not None
            atol = max(1e-5, 1e-6 * other.grad.abs().max().item())  # sums of large terms that cancel
            torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=atol)


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 9), d_in=st.integers(1, 40), d_sae=st.integers(1, 70), data=st.data())
def test_the_step_equals_the_dense_form(batch: int, d_in: int, d_sae: int, data: st.DataObject):
    k = data.draw(st.integers(1, d_sae))
    require_equal_steps(parameters(batch, d_in, d_sae, data.draw(st.integers(0, 99))), k)


@pytest.mark.parametrize(("d_sae", "k"), [(1024, 4), (1000, 3), (515, 64)])
def test_groups_of_latents_and_blocks_of_rows_change_nothing(d_sae: int, k: int):
    require_equal_steps(parameters(300, 20, d_sae, 1), k)


def test_what_is_kept_is_what_topk_keeps():
    x, target, W_enc, b_enc, W_dec, b_dec = parameters(40, 12, 512, 2)
    W_enc[:, 400:] = W_enc[:, :112]  # ties: either will do
    b_enc -= 6  # rows with fewer than k positive latents
    _, _, values, indices = topk_step(x, target, W_enc, b_enc, W_dec, b_dec, 8)
    expected = dense_topk(x, W_enc, b_enc, 8)
    torch.testing.assert_close(values.sort(descending=True)[0], expected.topk(8)[0], rtol=1e-5, atol=1e-5)
    hidden_pre = x @ W_enc + b_enc
    torch.testing.assert_close(hidden_pre.gather(1, indices)[values > 0], values[values > 0], rtol=1e-5, atol=1e-5)
    assert all(len(set(i[v > 0].tolist())) == int((v > 0).sum()) for i, v in zip(indices, values, strict=True))
    assert 0 < int((values > 0).sum()) < values.numel()


@pytest.mark.parametrize("bad", [float("nan"), -float("nan")])
def test_an_undefined_latent_makes_the_loss_undefined(bad: float):
    x, target, W_enc, b_enc, W_dec, b_dec = parameters(4, 6, 512, 3)
    b_enc[300] = bad
    assert topk_step(x, target, W_enc, b_enc, W_dec, b_dec, 4)[0].isnan()


def test_gradients_are_written_over_earlier_ones_that_nobody_holds():
    x, target, *weights = parameters(8, 6, 40, 5)
    weights = [w.requires_grad_() for w in weights]
    memory, places, kept = Recycled(), [], []
    for scale in (1.0, 2.0, 3.0):
        topk_step(scale * x, target, *weights, 4, memory)[0].backward()
        W_enc, _, W_dec, _ = (w.grad for w in weights)
        assert W_enc is not None
        assert W_dec is not None
        expected = [w.grad for w in weights]
        for w in weights:
            w.grad = None
        topk_step(scale * x, target, *weights, 4)[0].backward()
        assert all(torch.equal(w.grad, e) for w, e in zip(weights, expected, strict=True))
        places.append(W_dec.data_ptr())
        kept += [W_enc, W_enc.clone()]  # the gradients of W_enc are held, those of W_dec are not
        for w in weights:
            w.grad = None
        del W_enc, W_dec, expected
    assert len(set(places)) == 1
    assert all(torch.equal(held, same) for held, same in zip(kept[::2], kept[1::2], strict=True))
    assert copy.deepcopy(memory).empty(weights[2].shape).data_ptr() != places[0]


def test_accumulated_gradients_are_sums():
    x, target, *weights = parameters(8, 6, 40, 5)
    memory, sums = Recycled(), []
    for lent in (memory, None):
        weights = [w.detach().clone().requires_grad_() for w in weights]
        for scale in (1.0, 2.0):
            topk_step(scale * x, target, *weights, 4, lent)[0].backward()
        sums.append([w.grad for w in weights])
    assert all(torch.equal(one, other) for one, other in zip(*sums, strict=True))


def test_the_same_bytes_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    def exact(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (x.double() @ W.double() + b).float()

    monkeypatch.setattr("sae_lens_meme.train.cpu._product", exact)  # the library's may differ in the last bit
    found = []
    threads = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            weights = [a.requires_grad_(i > 1) for i, a in enumerate(parameters(37, 24, 320, 4))]
            loss, *kept = step(weights, 5)
            loss.backward()
            found.append([loss.detach(), *kept, *(w.grad for w in weights[2:])])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("fields", [{"dtype": "float64"}, {"normalize_activations": "layer_norm"}, {}])
def test_what_is_not_compiled_for_goes_through_torch(fields: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sae_lens_meme.train.sae.topk_step", lambda *_: 1 / 0)
    sae = make_sae(**fields)
    x = torch.randn(8, 16, dtype=sae.dtype)
    if fields:
        assert sae.training_forward_pass(step_input(x)).loss.isfinite()
        return
    with torch.autocast("cpu", torch.bfloat16):
        assert sae.training_forward_pass(step_input(x)).loss.isfinite()
    with pytest.raises(ZeroDivisionError):
        sae.training_forward_pass(step_input(x))
