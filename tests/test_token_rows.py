"""Many positions a meme: token rows on disk, streamed training, SAELens' store, runners and evaluations unpatched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import tiny_vlms
import torch
from hooks_models import write_encoder
from PIL import Image
from sae_lens import (
    SAE,
    ActivationsStore,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.training.activation_scaler import ActivationScaler
from typer.testing import CliRunner

from sae_lens_meme.cli import build_app
from sae_lens_meme.embed import embed_corpus, token_rows
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, MemeError, ModelError
from sae_lens_meme.hooks import HookedVLM, PositionRows
from sae_lens_meme.hooks.positions import tagged
from sae_lens_meme.metrics import LEAST_GAIN
from sae_lens_meme.pipeline import run
from sae_lens_meme.provenance import training_rows_known
from sae_lens_meme.steps import train_step
from sae_lens_meme.train import TokenSAETrainingRunner, train
from sae_lens_meme.train.runner import multi_config

pytestmark = pytest.mark.whole


def images(n: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((40, 32)) for _ in range(n)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 24 pictures with captions and a label, and three models that read them."""
    from sae_lens_meme.corpus import build_corpus

    base = tmp_path_factory.mktemp("tokens")
    given = base / "given"
    given.mkdir()
    lines = []
    for row, image in enumerate(images(24)):
        image.save(given / f"{row}.png")
        words = tiny_vlms.WORDS[row % 7 : row % 7 + 3 + row % 4]
        split = ("train", "train", "validation", "test")[row % 4]
        lines.append({"file_name": f"{row}.png", "text": " ".join(words), "split": split, "hate": row % 3 % 2})
    (given / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_corpus(base / "corpus", folder=given, progress=False)
    for maker in (tiny_vlms.llava, tiny_vlms.vit_gpt2, tiny_vlms.vit):
        tiny_vlms.save(base / maker.__name__, maker)
    return base


class TestTokenRows:
    def test_a_row_is_one_position_of_one_picture(self, folders: Path):
        model = HookedVLM.from_pretrained(str(folders / "llava"))
        texts = ["a red cat", "what is the colour of this ?", "monday"]
        found = token_rows(model, "hook_decoder_resid.0", images(3), texts, keep=["image", "text"])
        source: Any = model.source
        tags = source.tags
        _, cache = model.run_with_cache(source.take(np.arange(3)))
        where = tagged(tags, ("image", "text"))
        assert found.ids.tolist() == [f"{row}@{position}" for row, position in where.nonzero().tolist()]
        np.testing.assert_allclose(
            found.take("hook_decoder_resid.0", np.arange(len(found))),
            cache["hook_decoder_resid.0"][where].numpy(),
            atol=1e-5,
        )
        assert found.dataset["modality"].count("image") == 3 * 16
        assert found.label_names == ()
        assert np.unique(found.groups).size == 3

    def test_some_tokens_of_each_picture_are_drawn_by_the_picture_and_not_by_its_row(self, folders: Path):
        model = HookedVLM.from_pretrained(str(folders / "vit"))
        pictures = images(6)
        draw: Any = partial(token_rows, model, "hook_image_resid.1", tokens_per_item=2, batch_size=4)
        table = {"id": list("abcdef"), "group": ["x", "x", None, None, "y", None], "hate": [0, 1, 0, 1, 0, 1]}
        found = draw(pictures, table=table, seed=3)
        again = draw(pictures[::-1], table={k: v[::-1] for k, v in table.items()}, seed=3)
        assert sorted(found.ids) == sorted(again.ids)
        assert len(found) == 12
        assert found.dataset["position"][:2] != [0, 1]
        assert min(found.dataset["position"]) > 0, "CLS is kept"
        assert sorted(found.ids) != sorted(draw(pictures, table=table, seed=4).ids)
        assert found.groups.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert found.label_names == ("hate",)

    def test_the_tower_inside_a_chat_model_is_read_with_pictures_alone(self, folders: Path):
        """Also behind the block that the text reads; and the SAE fits the tower by the same name."""
        model = HookedVLM.from_pretrained(str(folders / "llava"))
        whole = token_rows(model, "hook_image_resid.2", images(2), keep=["special", "image"])
        tower = model.tower()
        tower.attach_memes(images(2), None)
        tokens = torch.tensor(tower.token_dataset(None)["input_ids"])
        _, cache = tower.run_with_cache(tokens, names_filter=["hook_image_resid.2"], stop_at_layer=3)
        stored = whole.take("hook_image_resid.2", np.arange(len(whole)))
        np.testing.assert_allclose(stored, cache["hook_image_resid.2"].flatten(0, 1).numpy(), atol=1e-5)
        assert whole.dataset["modality"][:2] == ["special", "image"]

    def test_the_model_keeps_its_rows_and_has_no_hooks_left_of_a_tower(self, folders: Path):
        model = HookedVLM.from_pretrained(str(folders / "llava")).attach_memes(images(2, seed=1), ["a cat", "monday"])
        model(model.source.take(np.arange(2)))  # type: ignore[union-attr]  # transformers sets hooks of its own then
        source, n_hooks = model.source, sum(len(module._forward_hooks) for module in model.hf.modules())
        for hook in ("hook_image_resid.1", "hook_decoder_resid.1"):
            token_rows(model, hook, images(3), ["a", "b", "c"], keep=["image", "text"])
            assert model.source is source
            assert sum(len(module._forward_hooks) for module in model.hf.modules()) == n_hooks

    def test_a_table_in_memory_describes_the_pictures(self, folders: Path):
        model, hook = HookedVLM.from_pretrained(str(folders / "vit")), "hook_image_resid.1"
        table = pd.DataFrame({"id": [7, 8], "hate": [1, 0]}, index=[5, 3])
        rows = token_rows(model, hook, images(2), table=table, tokens_per_item=1)  # type: ignore[arg-type]
        assert list(rows.dataset["item"]) == ["7", "8"]
        assert list(rows.dataset["hate"]) == [1, 0]
        refused: Any = (
            ({"table": {"id": ["a", "a"]}}, "id 'a' is that of two pictures"),
            ({"table": {"hate": [1]}}, "2 pictures but 1 hate"),
            ({"batch_size": 0}, "batch_size is 0, it must be 1 or more"),
            ({"tokens_per_item": -1}, "tokens_per_item is -1, it must be 1 or more"),
        )
        for given, match in refused:
            with pytest.raises(MemeError, match=match):
                token_rows(model, hook, images(2), **given)
        chat = HookedVLM.from_pretrained(str(folders / "llava"))
        with pytest.raises(DataError, match="row 1: the model's processor refuses it"):
            token_rows(chat, "hook_decoder_resid.1", images(2), ["a", "<image> and <image>"])

    def test_on_disk_rows_are_those_in_memory_and_a_killed_run_goes_on(
        self, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        import sae_lens_meme.embed.tokens as tokens

        monkeypatch.setattr(tokens, "SHARD_ITEMS", 10)
        options: Any = {"model": str(folders / "vit"), "hook": "hook_image_resid.1", "tokens_per_item": 3}
        options |= {"progress": False, "batch_size": 4}
        whole = embed_corpus(folders / "corpus", tmp_path / "whole", **options)
        read, calls = tokens._Reader._read, []

        def killed(self: Any, rows: Any, ids: Any) -> Any:
            calls.append(rows)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return read(self, rows, ids)

        monkeypatch.setattr(tokens._Reader, "_read", killed)
        with pytest.raises(KeyboardInterrupt):
            embed_corpus(folders / "corpus", tmp_path / "resumed", **options)
        calls.clear()
        resumed = embed_corpus(folders / "corpus", tmp_path / "resumed", **options)
        assert sum(map(len, calls)) == 14, "the first shard is read again"
        assert resumed.dataset.to_dict() == whole.dataset.to_dict()
        assert len(whole) == 24 * 3
        assert {"item", "position", "modality"}.isdisjoint(whole.label_names)
        assert len(set(zip(whole.dataset["item"], whole.splits, strict=True))) == 24, "a picture is in two splits"

    def test_one_command_writes_them(self, folders: Path, tmp_path: Path):
        arguments = ["embed", folders / "corpus", "--model", folders / "vit", "--hook", "hook_image_resid.1"]
        arguments += [
            "--keep",
            "image",
            "--keep",
            "special",
            "--tokens-per-item",
            4,
            "--seed",
            1,
            "--out",
            tmp_path / "out",
        ]
        ran = CliRunner().invoke(build_app(), list(map(str, arguments)))
        assert ran.exit_code == 0, ran.output
        assert "96 tokens, hook_image_resid.1 16" in ran.output
        assert set(Embeddings.load(tmp_path / "out").dataset["modality"]) == {"image", "special"}

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"hook": "hook_image_resid.1", "model": "ViT-L-14/openai"}, ConfigError, "reads a model of transformers"),
            ({"hook": "hook_image_resid.1", "keep": ["texts"]}, ConfigError, "embed.keep is 'texts'; give image, text"),
            ({"tokens_per_item": 2}, ConfigError, r"embed\.tokens_per_item is an option of token rows; give --hook"),
            ({"hook": "hook_image_resid.1", "fusion": "memeclip"}, ConfigError, "one vector per meme"),
            ({"hook": "hook_image_resid.1", "resize": "pad"}, ConfigError, r"embed\.resize has no effect with --hook"),
            ({"hook": "hook_image_resid.7"}, Exception, "'hook_image_resid.7' is not a hook of this model"),
            ({"hook": "hook_image_resid.1", "keep": ["text"]}, DataError, "no picture has a position of kind text"),
            ({"hook": "hook_image_resid.1", "model": "tests"}, ModelError, "is one of transformers, such as openai"),
        ],
    )
    def test_what_cannot_be_is_refused(self, folders: Path, tmp_path: Path, options: Any, error: Any, match: str):
        options = {"model": str(folders / "vit"), "progress": False, **options}
        if options["model"] == "tests":
            options["model"] = str(tmp_path)  # a folder, so that no network is asked
        with pytest.raises(error, match=match):
            embed_corpus(folders / "corpus", tmp_path / "out", **options)


def stock_config(model: HookedVLM, hook: str, **changes: Any) -> LanguageModelSAERunnerConfig[Any]:
    positions = model.source.tags.shape[1]  # type: ignore[union-attr]
    return LanguageModelSAERunnerConfig(
        **{"sae": TopKTrainingSAEConfig(d_in=model.d(hook), d_sae=32, k=4), "hook_name": hook, **changes},
        **{"model_name": "tiny", "model_class_name": "HookedVLM", "context_size": positions, "prepend_bos": False},
        **{"exclude_special_tokens": [0], "is_dataset_tokenized": True, "streaming": False},
        **{"train_batch_size_tokens": 8, "training_tokens": 64, "store_batch_size_prompts": 2},
        **{"n_batches_in_buffer": 4, "device": "cpu", "verbose": False, "n_checkpoints": 0, "output_path": None},
        logger=LoggingConfig(log_to_wandb=False),
    )


STREAMED: list[tuple[Callable[..., Any], str, str]] = [
    (tiny_vlms.llava, "hook_decoder_resid.0", "image"),
    (tiny_vlms.chameleon, "hook_decoder_resid.1", "text"),
    (tiny_vlms.vit_gpt2, "hook_decoder_resid.1", "text"),
    (tiny_vlms.git, "hook_decoder_resid.0", "image"),
    (tiny_vlms.vit, "hook_image_resid.1", "special"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("maker", "hook", "keep"), STREAMED, ids=[m.__name__ for m, *_ in STREAMED])
def test_saelens_trains_and_evaluates_on_kept_positions_alone(maker: Callable[..., Any], hook: str, keep: str):
    model = HookedVLM(*tiny_vlms.made(maker))
    source: Any = model.source
    cfg = stock_config(model, hook)
    runner = LanguageModelSAETrainingRunner(cfg, model.token_dataset(None, keep=keep), model)
    sae = runner.run()
    assert runner.activations_store.n_dataset_processed > 0

    _, cache = model.run_with_cache(source.take(np.arange(4)), names_filter=[hook])
    kept = cache[hook][tagged(source.tags, keep)]
    store = ActivationsStore.from_config(model, cfg, model.token_dataset(None, keep=keep))
    for _ in range(20):
        batch = store.next_batch().reshape(-1, kept.shape[-1])
        assert torch.cdist(batch, kept, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max() < 1e-4, (
            "an excluded position is trained on"
        )

    config = get_eval_everything_config(2, 2, 2)
    config.compute_ce_loss = config.compute_kl = model.writes
    store = ActivationsStore.from_config(model, cfg, model.token_dataset(None, keep=keep))
    sae.cfg.metadata.hook_name = hook
    groups, _ = run_evals(sae, store, model, ActivationScaler(), config, exclude_special_tokens=[0])
    numbers = {key: value for group in groups.values() for key, value in group.items()}
    assert all(math.isfinite(value) for value in numbers.values()), numbers
    assert ("ce_loss_score" in numbers) == model.writes

    tokens = torch.tensor(model.token_dataset(None, keep=keep)["input_ids"])
    seen: list[torch.Tensor] = []
    inside: Any = [(f"{hook}.hook_sae_output", lambda x, hook: seen.append(x.clone()))]
    with torch.no_grad(), model.saes(sae, exclude_special_tokens=[0]), model.hooks(fwd_hooks=inside):
        model(tokens)
    changed = (seen[0] != cache[hook]).any(dim=-1)
    assert changed.eq(tokens > 0).all(), "the SAE is spliced in at other positions than the kept ones"


@pytest.mark.filterwarnings("ignore")
def test_saelens_trains_at_several_hooks_in_one_pass():
    model = HookedVLM(*tiny_vlms.made(tiny_vlms.llava))
    hooks = {"early": "hook_decoder_resid.0", "late": "hook_decoder_resid.1"}
    cfg = multi_config({name: stock_config(model, hook) for name, hook in hooks.items()}, hooks)
    saes = MultiSAETrainingRunner(cfg, model.token_dataset(None, keep="text"), model).run()
    assert {name: sae.cfg.metadata.hook_name for name, sae in saes.items()} == hooks


@pytest.mark.filterwarnings("ignore")
class TestStreaming:
    """`train --corpus` with a model whose positions are many."""

    SECTION = {  # noqa: RUF012
        **{"hook_name": "hook_decoder_resid.0", "keep": ["text", "image"], "training_tokens": 256},
        **{"train_batch_size_tokens": 32, "store_batch_size_prompts": 4, "n_checkpoints": 0, "lr": 1e-3},
        "sae": {"architecture": "topk", "d_sae": 32, "k": 4},
    }

    def test_one_command_trains_an_sae_that_any_saelens_loads(self, folders: Path, tmp_path: Path):
        train_step(self.SECTION, out=tmp_path / "sae", corpus=folders / "corpus", model=str(folders / "llava"))
        sae = SAE.load_from_disk(tmp_path / "sae")
        assert sae.cfg.metadata.hook_name == "hook_decoder_resid.0"
        assert sae.cfg.metadata.model_class_name == "HookedVLM"
        facts = json.loads((tmp_path / "sae" / "manifest.json").read_text())["facts"]
        assert facts["held_out_split"] == "validation"
        assert facts["validation_n"] > 6 * 16
        assert facts["training_tokens"] == 256
        assert 0 < facts["validation_l0"] <= 4
        gain = facts["validation_ce_loss_with_ablation"] - facts["validation_ce_loss_without_sae"]
        assert gain < LEAST_GAIN, "zeros do no harm to random weights"
        assert facts["validation_ce_loss_score"] is None
        assert "below 0.01 no share is defined" in facts["validation_ce_loss_reason"]
        assert str(tmp_path) not in (tmp_path / "sae" / "runner_cfg.json").read_text()
        before = (tmp_path / "sae" / "sae_weights.safetensors").stat().st_mtime_ns
        train_step(self.SECTION, out=tmp_path / "sae", corpus=folders / "corpus", model=str(folders / "llava"))
        assert (tmp_path / "sae" / "sae_weights.safetensors").stat().st_mtime_ns == before

    def test_positions_that_predict_nothing_leave_the_sae_and_a_reason(self, tmp_path: Path):
        """The start token alone, after which the picture comes: there is no loss for SAELens to divide by."""
        bare, rows = tiny_vlms.made(tiny_vlms.llava)
        rows = PositionRows(rows.columns, rows.tags, ["train", "train", "validation", "test"])
        section = self.SECTION | {"keep": ["special"], "training_tokens": 8, "train_batch_size_tokens": 2}
        train(section, model=HookedVLM(bare, rows), embeddings=tmp_path, out=tmp_path / "sae", progress=False)
        facts = json.loads((tmp_path / "sae" / "manifest.json").read_text())["facts"]
        assert facts["validation_n"] == 1
        assert facts["validation_ce_loss_score"] is None
        assert "cost the model 0 nats" in facts["validation_ce_loss_reason"]

    def test_what_needs_epochs_is_refused(self, folders: Path, tmp_path: Path):
        model = HookedVLM.from_pretrained(str(folders / "llava"))
        model.attach_memes(images(4), ["a cat"] * 4)
        given: Any = {"out": tmp_path / "sae", "model": model, "embeddings": None}
        with pytest.raises(ConfigError, match=r"train\.standardize needs rows that can be read twice"):
            train({**self.SECTION, "standardize": True}, **given)
        with pytest.raises(ConfigError, match=r"needs keep, such as keep: \[text, image\]"):
            train({key: value for key, value in self.SECTION.items() if key != "keep"}, **given)
        rows = Embeddings.from_dataset(datasets.Dataset.from_dict({"split": ["train"] * 4}))
        with pytest.raises(ConfigError, match=r"train\.keep is for a HookedVLM"):
            train(self.SECTION, out=tmp_path / "sae", embeddings=rows)

    def test_what_the_text_gets_of_a_picture_is_not_streamed(self, folders: Path, tmp_path: Path):
        section: Any = self.SECTION | {"hook_name": "hook_projected"}
        with pytest.raises(
            ModelError, match=r"hook_projected: its positions .* token rows, embed --hook hook_projected"
        ):
            train_step(section, out=tmp_path / "sae", corpus=folders / "corpus", model=str(folders / "llava"))

    def test_the_tower_of_a_chat_model_is_trained_on_alone(self, folders: Path):
        model = HookedVLM.from_pretrained(str(folders / "llava"))
        model.attach_memes(images(4), ["a cat"] * 4)
        section = {**self.SECTION, "hook_name": "hook_image_resid.1", "keep": ["image"]}
        sae: Any = train(section, model=model, embeddings=None)  # type: ignore[arg-type]
        assert sae.cfg.d_in == 16

    def test_a_runner_of_ones_own_config(self):
        model = HookedVLM(*tiny_vlms.made(tiny_vlms.llava))
        cfg = stock_config(
            model,
            "hook_decoder_resid.1",
            sae=StandardTrainingSAEConfig(d_in=24, d_sae=32, l1_coefficient=1),
        )
        sae = TokenSAETrainingRunner(cfg, model, keep="text").run()
        assert sae.W_dec.shape == (32, 24)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "only",
    [["reconstruction", "stock_evals"], pytest.param(None, marks=pytest.mark.slow, id="all evaluators")],
)
def test_a_recipe_of_token_rows_runs_from_pictures_to_a_report(folders: Path, tmp_path: Path, only: list[str] | None):
    hook = "hook_image_resid.1"
    recipe = {
        "corpus": {"folder": str(folders / "given")},
        "embed": {"model": str(folders / "vit"), "hook": hook, "keep": ["image"], "tokens_per_item": 6},
        "train": {"hook_name": hook, "epochs": 4, "train_batch_size_tokens": 16, "sae": {"d_sae": 12, "k": 3}},
        "evaluate": {"bootstrap": 5, **({"only": only} if only else {})},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    run(tmp_path / "recipe.yaml", out=tmp_path / "out")
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    evaluation = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())
    assert "no classifier reads hook_image_resid.1" in json.dumps(evaluation)
    sae = SAE.load_from_disk(tmp_path / "out" / "sae")
    assert sae.cfg.metadata.model_class_name == "HookedVLM"
    with HookedVLM.from_pretrained(str(folders / "vit")).saes(sae):
        pass


SHIPPED: list[Any] = [  # vit-gpt2.yaml runs in test_dashboard_tokens.py
    ("saev-llava-next.yaml", tiny_vlms.llava_next, "hook_decoder_resid.0"),
    pytest.param("saev-chameleon.yaml", tiny_vlms.chameleon, "hook_decoder_resid.1", marks=pytest.mark.slow),
    pytest.param("llava-vision.yaml", tiny_vlms.clip, "hook_image_resid.1", marks=pytest.mark.slow),
    pytest.param("clip-patches.yaml", tiny_vlms.clip, "hook_image_resid.1", marks=pytest.mark.slow),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("recipe", "maker", "hook"), SHIPPED)
def test_a_shipped_recipe_runs_on_a_tiny_model_of_its_class(
    folders: Path, tmp_path: Path, recipe: str, maker: Callable[..., Any], hook: str
):
    """Nothing is changed but the model, the pictures and the sizes."""
    model = tiny_vlms.save(tmp_path / "model", maker)
    sizes = [
        "train.train_batch_size_tokens=8",
        "train.sae.d_sae=12",
        "train.lr_warm_up_steps=1",
        "train.training_tokens=128",
    ]
    sizes += ["evaluate.only=[reconstruction]", "evaluate.bootstrap=5", f"embed.hook={hook}", f"train.hook_name={hook}"]
    if "vision" in recipe:
        sizes += ["train.sae.matryoshka_widths=[3, 6, 12]"]
    if "patches" in recipe or "vision" in recipe:
        sizes += ["train.sae.k=3"]
    if "saev" in recipe:
        sizes += ["train.lr_decay_steps=1", "train.n_batches_for_norm_estimate=2"]
    given = [f"corpus.folder={folders / 'given'}", f"embed.model={model}"]
    run(recipe, out=tmp_path / "out", overrides=[*given, *sizes])
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    sae = SAE.load_from_disk(tmp_path / "out" / "sae")
    assert sae.cfg.metadata.hook_name == hook
    assert training_rows_known(sae, Embeddings.load(tmp_path / "out" / "embeddings")) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", ["intervlm.yaml", "matryoshka.yaml", "memeclip.yaml"])
def test_a_shipped_recipe_of_memes_runs_on_a_tiny_clip(
    folders: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
):
    write_encoder(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)  # the name of a folder is its last part
    given = [f"corpus={{folder: {folders / 'given'}}}", "embed.model=local-dir:clip"]
    sizes = ["train.epochs=4", "train.train_batch_size_tokens=8", "train.sae.d_sae=12", "train.sae.k=3"]
    sizes += ["train.sae.matryoshka_widths=[4, 12]"] if "matryoshka" in recipe else []
    run(recipe, out=tmp_path / "out", overrides=[*given, *sizes, "evaluate.only=[reconstruction]"])
    assert (tmp_path / "out" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_the_shipped_recipe_of_planted_vectors_runs(tmp_path: Path):
    sizes = ["embed.planted.n_samples=600", "train.epochs=2", "train.sae.d_sae=96"]
    run("vectors.yaml", out=tmp_path, overrides=[*sizes, "evaluate.only=[reconstruction, answer_key]"])
    assert (tmp_path / "report" / "report.html").is_file()
