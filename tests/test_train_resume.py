"""A run that is interrupted, broken or poisoned: what is left on disk and what comes of going on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.training.sae_trainer import SAETrainer
from test_train_data import embeddings_of

from sae_lens_meme.errors import NonFiniteError, StorageError
from sae_lens_meme.evaluators.run import train_control
from sae_lens_meme.train import train

pytestmark = pytest.mark.whole
EMBEDDINGS = embeddings_of(n=320, d=16)
N_TRAIN, BATCH = 280, 48


def section(architecture: str = "meme_topk", **more: object) -> dict:
    k = {} if architecture in ("jumprelu", "standard") else {"k": 4}
    widths = {"matryoshka_widths": [16, 40]} if "matryoshka" in architecture else {}
    return {
        "epochs": 4,
        "train_batch_size_tokens": BATCH,
        "feature_sampling_window_epochs": 1,
        "n_checkpoints": 3,
        "sae": {"architecture": architecture, "d_sae": 40, **k, **widths},
        **more,
    }


def run(out: Path, config: dict | None = None, **options: object):
    return train(config or section(), out=out, embeddings=EMBEDDINGS, progress=False, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action) -> None:
    """Call `action` before the step with this number."""
    original, count = SAETrainer.step, 0

    def step(self: SAETrainer, batch: torch.Tensor):
        nonlocal count
        count += 1
        if count == number:
            action()
        return original(self, batch)

    monkeypatch.setattr(SAETrainer, "step", step)


MULTI: dict[str, Any] = {"hook_names": {"one": "hook_fused", "two": "hook_fused"}}
CASES = [
    section(),
    section(
        sae={"architecture": "meme_topk", "d_sae": 40, "k": 4, "aux_loss_coefficient": 0.03}, dead_feature_window=2
    ),
    section("topk"),
    section("batchtopk"),
    section("matryoshka_batchtopk"),
    section("jumprelu", lr_scheduler_name="cosineannealing", lr_warm_up_steps=4),
    section("standard", standardize=False),
    section(early_stopping_epochs=1, lr=0.05),
    section(**MULTI),
    section(shuffle_buffer=64, standardize=True),
]


@pytest.mark.parametrize("config", CASES, ids=lambda c: f"{c['sae']['architecture']}-{len(c)}")
def test_interrupted_and_resumed_is_byte_for_byte_the_same(config: dict, tmp_path, monkeypatch):
    run(tmp_path / "straight", config)
    for number in (1, 7, 9):  # steps in each process, 17 of 24 in all
        with monkeypatch.context() as patch:
            at_step(patch, number, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(SystemExit, match="143"):
                run(tmp_path / "resumed", config)
            assert list((tmp_path / "resumed" / "checkpoints").iterdir())
    run(tmp_path / "resumed", config)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "straight")
    assert not (tmp_path / "resumed" / "checkpoints").exists()


def test_resuming_does_go_on_from_the_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 20, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "sae")
    steps = []
    at_step(monkeypatch, 1, lambda: None)
    original = SAETrainer.step
    monkeypatch.setattr(
        SAETrainer, "step", lambda self, batch: steps.append(self.n_training_steps) or original(self, batch)
    )
    run(tmp_path / "sae")
    assert steps == [20, 21, 22, 23]


def test_signal_handlers_and_random_state_are_left_as_found(tmp_path, monkeypatch):
    def mine(number, frame):
        raise AssertionError("not called")

    earlier = signal.signal(signal.SIGTERM, mine)
    state = torch.get_rng_state()
    try:
        run(tmp_path / "one")
        assert signal.getsignal(signal.SIGTERM) is mine
        at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            run(tmp_path / "two")
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert torch.equal(state, torch.get_rng_state())


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


def test_killed_at_every_rename_the_result_is_the_same(tmp_path, monkeypatch):
    config = section(epochs=1, n_checkpoints=2)
    run(tmp_path / "straight", config)
    replace, n_renames, out = os.replace, 0, tmp_path / "killed"
    for fatal in range(1, 40):
        count = 0

        def failing(source, target, fatal=fatal):
            nonlocal count
            count += 1
            if count == fatal:
                raise Killed
            return replace(source, target)

        shutil.rmtree(out, ignore_errors=True)
        monkeypatch.setattr(os, "replace", failing)
        try:
            run(out, config)
        except Killed:
            n_renames += 1
        monkeypatch.setattr(os, "replace", replace)
        run(out, config)
        assert contents(out) == contents(tmp_path / "straight"), f"killed at rename {fatal}"
        if count < fatal:
            break
    assert n_renames >= 10


def test_a_finished_run_is_only_loaded(tmp_path, monkeypatch):
    run(tmp_path / "sae")
    at_step(monkeypatch, 1, lambda: pytest.fail("trained again"))
    run(tmp_path / "sae")


def test_another_config_is_refused_and_overwrite_replaces_it(tmp_path):
    run(tmp_path / "sae")
    with pytest.raises(StorageError, match=r"holds a different result .*pass --overwrite"):
        run(tmp_path / "sae", section(seed=7))
    run(tmp_path / "sae", section(seed=7), overwrite=True)


def interrupt(out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave a checkpoint in `out` and return its folder."""
    with monkeypatch.context() as patch:
        at_step(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            run(out)
    (checkpoint,) = (out / "checkpoints").iterdir()
    return checkpoint


def test_a_torn_checkpoint_is_not_used(tmp_path, monkeypatch):
    run(tmp_path / "straight")
    checkpoint = interrupt(tmp_path / "sae", monkeypatch)
    state = checkpoint / "sae" / "trainer_state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    run(tmp_path / "sae")
    assert contents(tmp_path / "sae") == contents(tmp_path / "straight")


class Malicious:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_checkpoint_cannot_run_code(tmp_path, monkeypatch):
    from sae_lens_meme.storage import sha256_file, to_json

    checkpoint = interrupt(tmp_path / "sae", monkeypatch)
    state = checkpoint / "sae" / "trainer_state.pt"
    torch.save({"optimizer": Malicious(str(tmp_path / "pwned"))}, state)
    hashes = json.loads((checkpoint / "hashes.json").read_text())
    hashes["sae/trainer_state.pt"] = sha256_file(state)
    (checkpoint / "hashes.json").write_text(to_json(hashes))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(StorageError, match=r"trainer_state.pt: cannot be read as tensors only .*remove"):
        run(tmp_path / "sae")
    assert not (tmp_path / "pwned").exists()


def test_a_non_finite_loss_stops_training_with_good_weights(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from sae_lens_meme.train.data import EpochShuffle

    original = EpochShuffle.__next__

    def poisoned(self):
        batch = original(self)
        return batch * float("inf") if self.n_served == 8 * BATCH else batch

    monkeypatch.setattr(EpochShuffle, "__next__", poisoned)
    with pytest.raises(
        NonFiniteError, match=r"the training loss is nan at step 7; the weights before it are in the checkpoint"
    ):
        run(tmp_path / "sae")
    (checkpoint,) = (tmp_path / "sae" / "checkpoints").iterdir()
    assert checkpoint.name == f"{7 * BATCH:012d}"
    assert all(torch.isfinite(w).all() for w in load_file(checkpoint / "sae" / "sae_weights.safetensors").values())
    monkeypatch.setattr(EpochShuffle, "__next__", original)
    run(tmp_path / "sae")
    run(tmp_path / "straight")
    assert contents(tmp_path / "sae") == contents(tmp_path / "straight")


def test_nothing_on_disk_names_this_machine(tmp_path):
    run(tmp_path / "sae")
    for name, data in contents(tmp_path / "sae").items():
        assert str(tmp_path).encode() not in data, name


def trained_on(device: str, folder: Path) -> None:
    """As if the SAE of this folder had been trained there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["fingerprint"]["config"]["device"] = manifest["fingerprint"]["config"]["sae"]["device"] = device
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_finished_sae_is_loaded_wherever_it_was_trained_and_an_unfinished_one_goes_on_there(tmp_path):
    run(tmp_path, few := section(epochs=1, device="cpu"))
    trained_on("cuda", tmp_path)
    before = contents(tmp_path)
    run(tmp_path, few)
    assert contents(tmp_path) == before
    with pytest.raises(StorageError, match="holds a different result"):
        run(tmp_path, section(epochs=1, device="cpu", seed=7))
    (tmp_path / "_SUCCESS").unlink()
    with pytest.raises(
        StorageError, match=r"begun on 'cuda' and is not finished.*train\.device=cuda, pass --overwrite"
    ):
        run(tmp_path, few)
    run(tmp_path, few, overwrite=True)
    assert json.loads((tmp_path / "manifest.json").read_text())["fingerprint"]["config"]["device"] == "cpu"


def test_the_recipe_of_an_sae_of_another_device_is_trained_here(tmp_path):
    run(tmp_path / "sae", section(epochs=1))
    trained_on("xpu", tmp_path / "sae")
    train_control(tmp_path / "sae", EMBEDDINGS, tmp_path / "control")
    assert json.loads((tmp_path / "control" / "manifest.json").read_text())["fingerprint"]["config"]["device"] != "xpu"
