"""Which memes an SAE was trained on: what ours says of itself, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from datasets import load_from_disk
from sae_lens import SAE, LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig
from tiny_sae import tiny_sae

from sae_lens_meme.errors import DataError, StorageError
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.provenance import training_rows_known
from sae_lens_meme.train import MemeTopKTrainingSAEConfig, train

X = anisotropic(300, 12, np.random.default_rng(0))
EMBEDDINGS = make_embeddings({"hook_fused": X})
SECTION = {"epochs": 2, "train_batch_size_tokens": 50, "sae": {"d_sae": 16, "k": 3}}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sae") / "ours"
    train(SECTION, out=folder, embeddings=EMBEDDINGS, progress=False)
    return folder


def test_ours_is_known_on_its_embeddings(ours: Path):
    assert training_rows_known(SAE.load_from_disk(ours), EMBEDDINGS) is None


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_stock_architectures_trained_by_us_are_known(tmp_path: Path, architecture: str):
    train(SECTION | {"sae": {"architecture": architecture, "d_sae": 128}}, out=tmp_path, embeddings=EMBEDDINGS, progress=False)  # fmt: skip
    assert training_rows_known(SAE.load_from_disk(tmp_path), EMBEDDINGS) is None


def test_the_same_memes_embedded_anew_are_known_in_any_order(ours: Path):
    order = np.random.default_rng(1).permutation(len(X))
    embeddings = make_embeddings({"hook_fused": X, "hook_image_embed": X})
    shuffled = type(EMBEDDINGS).from_dataset(embeddings.dataset.select(order))
    assert training_rows_known(SAE.load_from_disk(ours), shuffled) is None


def test_another_split_is_not_known(ours: Path):
    splits = ["test"] * 14 + ["validation"] * 3 + ["train"] * 3
    other = make_embeddings({"hook_fused": X}, splits=splits * 15)
    assert "other embeddings with other train memes" in str(training_rows_known(SAE.load_from_disk(ours), other))


def test_an_sae_that_says_nothing_is_not_known():
    assert "carries no record" in str(training_rows_known(tiny_sae(X), EMBEDDINGS))


def test_weights_that_were_trained_further_are_not_known(ours: Path):
    sae = SAE.load_from_disk(ours)
    with torch.no_grad():
        sae.b_dec += 1e-3
    assert "its weights are not the ones" in str(training_rows_known(sae, EMBEDDINGS))


def stock_run(activations: Path, out: Path) -> SAE:
    cfg = LanguageModelSAERunnerConfig(
        sae=MemeTopKTrainingSAEConfig(d_in=12, d_sae=16, k=3),
        hook_name="hook_fused",
        use_cached_activations=True,
        cached_activations_path=str(activations),
        is_dataset_tokenized=True,
        streaming=False,
        context_size=1,
        prepend_bos=False,
        train_batch_size_tokens=32,
        store_batch_size_prompts=16,
        n_batches_in_buffer=64,
        training_tokens=2000,
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=None,
        verbose=False,
        output_path=str(out),
    )
    model = HookedMemeCLIP.from_embeddings(EMBEDDINGS, fit_head=False)
    tokens = model.token_dataset("train", labelled=False)
    LanguageModelSAETrainingRunner(cfg, override_model=model, override_dataset=tokens).run()
    return SAE.load_from_disk(out)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_stock_runner_trains_on_the_exported_rows_and_is_not_known(tmp_path: Path):
    folder = EMBEDDINGS.export_cached(tmp_path / "train rows")
    exported = load_from_disk(folder)
    assert exported["id"] == EMBEDDINGS.ids[EMBEDDINGS.rows("train")].tolist()
    np.testing.assert_array_equal(np.array(exported["hook_fused"])[:, 0], X[EMBEDDINGS.rows("train")])
    assert "test memes may be among them" in str(training_rows_known(stock_run(folder, tmp_path / "sae"), EMBEDDINGS))


def test_exports_are_whole_and_replace_nothing(tmp_path: Path):
    EMBEDDINGS.export_cached(tmp_path / "rows", split="test")
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    with pytest.raises(StorageError, match="is there already"):
        EMBEDDINGS.export_cached(tmp_path / "rows")
    only_train = make_embeddings({"hook_fused": X}, splits=["train"] * 300)
    with pytest.raises(DataError, match="no rows of split 'test' to export"):
        only_train.export_cached(tmp_path / "none", split="test")
