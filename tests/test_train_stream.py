"""Streamed training that is stopped or killed: going on gives the weights that were to come."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_vlms
import torch
from sae_lens import ActivationsStore
from test_train_resume import Killed, at_step, contents

from sae_lens_meme.errors import ConfigError, NonFiniteError
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.train import load_train_config, train
from sae_lens_meme.train.stream import MixedPositions

pytestmark = pytest.mark.filterwarnings("ignore")

HOOK, N_STEPS = "hook_decoder_resid.0", 40
SAES: dict[str, dict[str, Any]] = {
    "topk": {"k": 4},
    "standard": {"l1_coefficient": 0.1, "normalize_activations": "expected_average_only_in"},
}


@pytest.fixture(scope="module")
def model() -> HookedVLM:
    return HookedVLM(*tiny_vlms.made(tiny_vlms.llava))


def section(architecture: str = "topk", **changes: Any) -> dict[str, Any]:
    """Three rows at a time of four: a pass over them ends in an incomplete chunk."""
    return {
        **{"hook_name": HOOK, "keep": ["text", "image"], "training_tokens": N_STEPS * 8, "lr": 1e-2},
        **{"train_batch_size_tokens": 8, "store_batch_size_prompts": 3, "n_batches_in_buffer": 4, "n_checkpoints": 4},
        "standardize": False,
        "sae": {"architecture": architecture, "d_sae": 32, **SAES[architecture]},
        **changes,
    }


def run(model: HookedVLM, out: Path, config: dict[str, Any]) -> None:
    train(config, out=out, model=model, embeddings=None, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("mix", [0.5, 0.0, 1.0])
def test_batches_are_those_of_saelens(model: HookedVLM, mix: float):
    """SAELens' own generator is the reference; half of the batches come after the state was carried over."""
    config = section(activations_mixing_fraction=mix, train_batch_size_tokens=11)
    tokens = model.token_dataset(None, keep=["text", "image"])
    cfg = load_train_config(config).runner_config(model.d(HOOK), 100, HOOK, positions=len(tokens[0]["input_ids"]))

    def store() -> ActivationsStore:
        return ActivationsStore.from_config(model, cfg, model.token_dataset(None, keep=["text", "image"]))

    torch.manual_seed(0)
    expected = [batch.clone() for batch, _ in zip(store(), range(40), strict=False)]
    torch.manual_seed(0)
    first = MixedPositions(store())
    found = [next(first).clone() for _ in range(17)]
    first.take_back()
    second = MixedPositions(store())
    second.load_state_dict(first.state_dict())
    found[16:] = [next(second).clone() for _ in range(24)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("architecture", SAES)
def test_killed_and_started_again_is_byte_for_byte_the_same(
    model: HookedVLM, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = section(architecture)
    if architecture == "standard":  # SAELens estimates the mean norm on a thousand batches
        monkeypatch.setattr("sae_lens.training.activation_scaler.ActivationScaler._calculate_mean_norm", mean_of_ten)
    run(model, tmp_path / "straight", config)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def kill() -> None:
        raise Killed

    for number, action, error in ((9, stop, SystemExit), (6, kill, Killed), (17, kill, Killed), (1, stop, SystemExit)):
        with monkeypatch.context() as patch:
            at_step(patch, number, action)
            with pytest.raises(error):
                run(model, tmp_path / "resumed", config)
    assert list((tmp_path / "resumed" / "checkpoints").iterdir())
    run(model, tmp_path / "resumed", config)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "straight")
    assert not (tmp_path / "resumed" / "checkpoints").exists()


def mean_of_ten(scaler: Any, provider: Any, _: int) -> float:
    return torch.stack([next(provider).norm(dim=-1).mean() for _ in range(10)]).mean().item()


def test_a_stopped_run_goes_on_at_its_step(model: HookedVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        at_step(patch, 30, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(model, tmp_path / "sae", section())
    at_step(monkeypatch, 11, lambda: pytest.fail("more than ten steps were left"))
    run(model, tmp_path / "sae", section())


def test_a_non_finite_loss_leaves_the_weights_before_it(
    model: HookedVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = MixedPositions.__next__
    served: list[int] = []

    def poisoned(self: MixedPositions) -> torch.Tensor:
        served.append(0)
        return original(self) * (float("nan") if len(served) == 13 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(MixedPositions, "__next__", poisoned)
        with pytest.raises(NonFiniteError, match="at step 12; the weights before it are in the checkpoint"):
            run(model, tmp_path / "sae", section())
    run(model, tmp_path / "sae", section())
    run(model, tmp_path / "straight", section())
    assert contents(tmp_path / "sae") == contents(tmp_path / "straight")


def test_batches_drawn_ahead_are_refused(model: HookedVLM, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"train\.prefetch_llm_batches draws batches ahead"):
        run(model, tmp_path / "sae", section(prefetch_llm_batches=True))
