"""Position tokens of open_clip's towers: SAELens' store, runner and evaluations on `hook_image_resid.{l}`, as on a HookedVLM."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hooks_models import TEXTS, pictures, tiny_towers, topk_sae
from sae_lens import (
    ActivationsStore,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.train import train

HOOK, POSITIONS, WORDS = "hook_image_resid.0", 5, 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedMemeCLIP:
    towers = tiny_towers(tmp_path_factory.mktemp("clip"))
    labels: dict[str, Any] = {"hate": [0, 1, 1, 0]}
    made = HookedMemeCLIP("clip", towers).attach_memes(pictures(), TEXTS, labels=labels)
    return made.set_head(30 * np.random.default_rng(0).standard_normal((2, 12)), np.zeros(2), "hate", [0, 1])


def tokens(model: HookedMemeCLIP, hook: str = HOOK, **options: Any) -> Tensor:
    return torch.tensor(model.token_dataset(None, hook=hook, **options)["input_ids"])


def blocks_run(model: HookedMemeCLIP, hook: str, rows: Tensor) -> tuple[int, int]:
    """How many blocks of the image and of the text tower one pass computes."""
    counts = []
    towers = (model.towers.model.visual.transformer, model.towers.model.transformer)
    handles = [
        block.register_forward_hook(lambda *_, side=side: counts.append(side))
        for side, tower in enumerate(towers)
        for block in tower.resblocks
    ]
    output, _ = model.run_with_cache(rows, names_filter=[hook], stop_at_layer=1)
    assert output is None
    for handle in handles:
        handle.remove()
    return counts.count(0), counts.count(1)


def test_tags_are_those_of_the_towers(model: HookedMemeCLIP):
    assert tokens(model, keep=["special"])[2].tolist() == [3, 0, 0, 0, 0]
    assert tokens(model, keep=["image"])[2].tolist() == [0, 3, 3, 3, 3]
    ids = model.tokenize(TEXTS)
    words = tokens(model, "hook_text_resid.1", keep=["text"])
    lengths = [int((row == row.max()).nonzero()[0]) - 1 for row in ids]  # start, words, end: the largest id
    assert [int((row > 0).sum()) for row in words] == [n for n in lengths if n], "the missing caption has words"
    assert words[0].tolist() == [0, *[1] * lengths[0], *[0] * (WORDS - 1 - lengths[0])]
    assert tokens(model, "hook_text_resid.1", keep=["special"])[1].tolist() == [2, 2, *[0] * (WORDS - 2)]


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("hook_image_resid.0", (1, 0)),
        ("hook_image_resid.1", (2, 0)),
        ("hook_image_embed", (2, 0)),
        ("hook_text_resid.1", (0, 2)),
        ("hook_text_embed", (0, 3)),
        ("hook_fused", (2, 3)),
    ],
)
def test_no_block_behind_the_wanted_hook_is_computed(model: HookedMemeCLIP, hook: str, expected: tuple[int, int]):
    rows = torch.arange(4)[:, None] if model.positions(hook) == 1 else tokens(model, hook)
    assert blocks_run(model, hook, rows) == expected
    _, whole = model.run_with_cache(rows)
    _, alone = model.run_with_cache(rows, names_filter=hook, stop_at_layer=1)
    torch.testing.assert_close(alone[hook], whole[hook], rtol=0, atol=0)


def test_position_tokens_and_row_numbers_are_the_same_memes(model: HookedMemeCLIP):
    rows, positions = torch.arange(4)[:, None], tokens(model)
    logits, losses = model(rows, return_type="both", loss_per_token=True)
    at_each, by_position = model(positions, return_type="both", loss_per_token=True)
    assert at_each.shape == (4, POSITIONS, 2)
    torch.testing.assert_close(at_each, logits.expand(-1, POSITIONS, -1), rtol=0, atol=0)
    torch.testing.assert_close(by_position, losses.expand(-1, POSITIONS), rtol=0, atol=0)
    assert model(positions, return_type="loss") == model(rows, return_type="loss")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", [HOOK, "hook_text_resid.1"])
def test_saelens_trains_and_evaluates_on_a_tower(model: HookedMemeCLIP, hook: str):
    kind = "image" if hook == HOOK else "text"
    rows = tokens(model, hook, keep=[kind])
    cfg = LanguageModelSAERunnerConfig(
        **{"sae": TopKTrainingSAEConfig(d_in=model.d(hook), d_sae=32, k=4), "hook_name": hook},
        **{"model_name": "tiny", "model_class_name": "HookedMemeCLIP", "context_size": rows.shape[1]},
        **{"exclude_special_tokens": [0], "is_dataset_tokenized": True, "streaming": False, "prepend_bos": False},
        **{"train_batch_size_tokens": 8, "training_tokens": 64, "store_batch_size_prompts": 2},
        **{"n_batches_in_buffer": 4, "device": "cpu", "verbose": False, "n_checkpoints": 0, "output_path": None},
        logger=LoggingConfig(log_to_wandb=False),
    )
    dataset = model.token_dataset(None, hook=hook, keep=[kind])
    sae = LanguageModelSAETrainingRunner(cfg, dataset, model).run()  # type: ignore[arg-type]
    sae.cfg.metadata.hook_name = hook

    n_batches, batch = len(rows) // 2, 2
    dataset = dataset.select(range(n_batches * batch))
    config = get_eval_everything_config(batch, n_batches, n_batches)
    store = ActivationsStore.from_config(model, cfg, dataset)
    groups, _ = run_evals(sae, store, model, ActivationScaler(), config, exclude_special_tokens=[0])
    numbers = {key: value for group in groups.values() for key, value in group.items()}
    assert all(math.isfinite(value) for value in numbers.values()), numbers

    kept = rows[: n_batches * batch]
    _, cache = model.run_with_cache(kept)
    x = cache[hook]
    decoded = torch.where((kept > 0)[..., None], sae.decode(sae.encode(x)), x)
    x, spliced_x = x[kept > 0], decoded[kept > 0]
    expected = 1 - (x - spliced_x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert numbers["explained_variance"] == pytest.approx(expected.item(), abs=1e-5)
    with torch.no_grad():
        replaced: Any = [(hook, lambda x, hook: decoded)]
        by_hand = model.run_with_hooks(kept, return_type="loss", loss_per_token=True, fwd_hooks=replaced)
    assert numbers["ce_loss_with_sae"] == pytest.approx(by_hand[kept > 0].mean().item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_recipe_trains_on_the_patches_of_a_tower(model: HookedMemeCLIP, tmp_path: Path):
    section = {
        **{"hook_name": HOOK, "keep": ["image"], "training_tokens": 64, "train_batch_size_tokens": 8},
        **{"store_batch_size_prompts": 2, "standardize": False, "sae": {"architecture": "topk", "d_sae": 32, "k": 4}},
    }
    sae: Any = train(section, out=tmp_path / "sae", model=model, embeddings=None, progress=False)  # type: ignore[arg-type]
    assert sae.cfg.metadata.model_class_name == "HookedMemeCLIP"
    positions = tokens(model, keep=["image"])
    with torch.no_grad():
        _, cache = model.run_with_cache(positions, names_filter=[HOOK])
        with model.saes(sae, exclude_special_tokens=[0]):
            _, spliced = model.run_with_cache(positions, names_filter=[f"{HOOK}.hook_sae_output"])
    assert (spliced[f"{HOOK}.hook_sae_output"] != cache[HOOK]).any(-1).eq(positions > 0).all()


def test_positions_that_are_not_those_of_the_tokens_are_refused(model: HookedMemeCLIP):
    with pytest.raises(ModelError, match=r"gives \(4, 5\) positions for tokens \(4, 1\): train on its position tokens"):
        model.run_with_cache(torch.arange(4)[:, None], names_filter=[HOOK], stop_at_layer=1)
    with pytest.raises(ModelError, match="hook_fused has one position, the meme"):
        model.token_dataset(None, hook="hook_fused")
    with pytest.raises(ModelError, match="keep='image' is of the positions of a hook inside a tower"):
        model.token_dataset(None, keep="image")
    with pytest.raises(ModelError, match="hook_fused has 1 positions and the tokens 5"):
        model.run_with_saes(tokens(model), saes=topk_sae(12), exclude_special_tokens=[0])
