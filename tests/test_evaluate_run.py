"""One evaluator that cannot run takes nothing from the others, and a wrong reference is refused before the work."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from arrays import make_embeddings
from tiny_sae import tiny_sae

from sae_lens_meme import measure
from sae_lens_meme.embed import save_embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError, NonFiniteError, StorageError
from sae_lens_meme.evaluators import (
    EvaluateOptions,
    Evaluator,
    Measure,
    Result,
    Section,
    Unavailable,
    encode,
    evaluate,
    load_sae,
    register,
    unregister,
)
from sae_lens_meme.evaluators.cautions import cautions
from sae_lens_meme.evaluators.content import table_in
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.opened import require_same_memes, sae_weights
from sae_lens_meme.evaluators.run import run_evaluators
from sae_lens_meme.storage import StepFolder

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
MEMES = make_embeddings({"hook_fused": VECTORS}, labels={"hate": [0, 1, 0, 1, 0, 1]})


class _Stand(Evaluator):
    question = control = "none"

    def measure(self, sae: Any, embeddings: Any, latents: Any) -> Result:
        raise NotImplementedError


def stand_in(evaluator: str, *, error: Exception | None = None, value: float | None = 1.0) -> type[Evaluator]:
    class StandIn(_Stand):
        name = evaluator

        def measure(self, sae: Any, embeddings: Any, latents: Any) -> Result:
            if error:
                raise error
            return Result(self.name, Section("A", ""), (Measure("n", value, "rows", reason="no captions"),))

    return register(StandIn)


@pytest.fixture
def context():
    sae = tiny_sae(VECTORS, d_sae=6, k=2)
    yield Context(sae, MEMES, encode(sae, MEMES), EvaluateOptions())
    for name in ("a", "b"):
        with contextlib.suppress(KeyError):
            unregister(name)


@pytest.mark.parametrize("error", [DataError("no such rows"), NonFiniteError("row 3"), Unavailable("no other SAE")])
def test_the_others_go_on_and_the_reason_is_kept(error, context):
    stand_in("a", error=error), stand_in("b")
    run_evaluators(context, ["a", "b"])
    assert list(context.results) == ["b"]
    assert context.skipped == {"a": str(error)}


def test_an_evaluator_that_was_asked_for_alone_says_why_it_cannot_run(context):
    stand_in("a", error=DataError("no such rows"))
    with pytest.raises(DataError, match="no such rows"):
        run_evaluators(context, ["a"])


def test_an_evaluator_leaves_the_number_of_threads_as_it_was(context):
    """numba's loops change it, and sums in other parts have other last bits: those of whoever comes next."""
    asked, before = stand_in("a"), torch.get_num_threads()
    measure = asked.measure

    def with_threads(*given: Any) -> Result:
        torch.set_num_threads(before + 1)
        return measure(*given)

    asked.measure = with_threads  # type: ignore[method-assign]
    run_evaluators(context, ["a"])
    assert torch.get_num_threads() == before


def test_a_result_without_a_number_is_listed_with_its_reason(context):
    stand_in("a", value=None)
    run_evaluators(context, ["a"])
    assert context.skipped == {"a": "no captions"}


def test_a_reference_of_other_memes_is_refused():
    require_same_memes(MEMES, None)
    require_same_memes(MEMES, MEMES)
    fewer = type(MEMES).from_dataset(MEMES.dataset.select([0, 2]))
    with pytest.raises(
        DataError, match=r"meme 'meme-1' is not in the reference \(4 such memes\); embed the same corpus"
    ):
        require_same_memes(MEMES, fewer)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boostrap": 3}, "evaluate: unknown key 'boostrap'; did you mean 'bootstrap'"),
        ({"bootstrap": -1}, "evaluate.bootstrap is -1, it must be 0 or more"),
        ({"share": 1.0}, "evaluate.share is 1.0, it must be less than 1"),
        ({"protocol": "both "}, "evaluate.protocol is 'both ', it must be 'corrected', 'published' or 'both'"),
        ({"seed": "1e3"}, "evaluate.seed is '1e3', it must be an integer"),
        ([], "evaluate: is list, not a mapping of options"),
    ],
)
def test_wrong_options_are_one_line(given, message):
    with pytest.raises(ConfigError, match=message):
        EvaluateOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": ["probs"]}, "unknown key 'probs'; did you mean 'probes'"),
        ({"only": ["answer_key"]}, "'answer_key' needs --answer-key FOLDER"),
        ({"only": ["probes"], "skip": ["probes"]}, "no evaluator is left; there are contest, reconstruction"),
        ({"influence": {"n_randm": 3}}, "influence: unknown key 'n_randm'; did you mean 'n_random'"),
        ({"reconstruction": {"n": 3}}, "^reconstruction: unknown key 'n'; known keys: none$"),
    ],
)
def test_wrong_evaluators_are_refused_before_any_work(given, message):
    with pytest.raises(ConfigError, match=message):
        EvaluateOptions.from_mapping(given).check()


@pytest.mark.parametrize(
    "given", [{"concepts": ["hate=1", "nolabel=1"]}, {"evaluators": {"contest": {"concepts": ["nolabel=1"]}}}]
)
def test_a_concept_of_no_label_is_refused_before_any_work(tmp_path, given):
    """Not after an SAE was trained for a control, in a folder that then refuses the next run."""
    tiny_sae(VECTORS, d_sae=6, k=2).save_model(tmp_path / "sae")
    save_embeddings(MEMES, tmp_path / "embeddings")
    with pytest.raises(ConfigError, match="there is no label 'nolabel'; these embeddings have hate"):
        evaluate(tmp_path / "sae", tmp_path / "embeddings", out=tmp_path / "out", progress=False, **given)
    assert not (tmp_path / "out").exists()


def test_what_to_distrust_is_said():
    splits = ["train", "train", "test", "test", "train", "train"]
    labels = {"hate": [0, 1, 0, 1, 0, 1], "late": [0, 1, None, None, 1, 0]}
    texts = ["a", "b", "a", "c", None, ""]
    memes = make_embeddings({"hook_fused": VECTORS}, labels=labels, splits=splits, texts=texts)
    said = " ".join(cautions(tiny_sae(VECTORS, d_sae=6, k=2), memes))
    assert "2 test memes: intervals for rare latents are unreliable" in said
    assert "no validation memes: thresholds and latents were chosen on train memes" in said
    assert "1 of 2 test captions are also in train" in said
    assert "No test meme has a known label of late" in said
    assert "training rows of this SAE are not known" in said
    alone = cautions(tiny_sae(VECTORS, d_sae=6, k=2), make_embeddings({"hook_fused": VECTORS}, splits=["test"] * 6))
    assert not any("train memes" in line for line in alone), "there are none"


def test_a_folder_that_is_no_sae_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"is not an SAE folder \(no cfg.json\); give the folder that train wrote"):
        sae_weights(tmp_path)


def test_a_training_that_was_killed_is_to_be_run_again(tmp_path):
    with StepFolder(tmp_path, "train", {}) as folder:  # which does not finish
        folder.write_text("runner_cfg.json", "{}")
    with pytest.raises(StorageError, match="the train step was interrupted; run it again to finish it"):
        sae_weights(tmp_path)


@pytest.mark.parametrize("k", [0, 9, 10**6, -1, "2", 2.5, True, float("nan"), None])
def test_a_k_that_cannot_be_is_named(tmp_path, k: Any):
    tiny_sae(VECTORS, d_sae=8, k=2).save_model(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text()) | {"k": k}
    (tmp_path / "cfg.json").write_text(json.dumps({key: value for key, value in cfg.items() if value is not None}))
    message = "its cfg.json names no k" if k is None else r"k is .*, it must be a whole number of 1 to d_sae, 8"
    with pytest.raises(ModelError, match=message):
        load_sae(tmp_path, "hook_fused")


def test_weights_that_are_not_finite_are_named_before_any_work(tmp_path):
    made = tiny_sae(VECTORS, d_sae=8, k=2)
    made.W_dec.data[1, 1] = float("inf")
    made.save_model(tmp_path)
    with pytest.raises(ModelError, match="W_dec holds NaN or infinity; train the SAE again"):
        load_sae(tmp_path, "hook_fused")


def test_options_of_an_evaluator_that_does_not_run_are_checked():
    given = {"influence": {"n_randm": 3}}
    with pytest.raises(ConfigError, match="influence: unknown key 'n_randm'; did you mean 'n_random'"):
        EvaluateOptions(only=["reconstruction"], evaluators=given).check()


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder"])
def test_what_maps_one_hook_to_another_is_no_sae(tmp_path, kind: str):
    from sae_lens.registry import get_sae_class

    cls, config = get_sae_class(kind)
    made: Any = cls(config(d_in=4, d_sae=6, d_out=4, apply_b_dec_to_input=False))  # type: ignore[call-arg]
    made.save_model(tmp_path)
    with pytest.raises(ModelError, match=rf"is a {kind}, which maps one hook to another"):
        load_sae(tmp_path, "hook_fused")
    with pytest.raises(ModelError, match=rf"is a {kind}, which maps one hook to another"):
        measure(made, MEMES, hook="hook_fused", progress=False)


def test_a_damaged_table_of_an_evaluation_is_named_in_one_line(tmp_path):
    assert table_in(tmp_path, "naming") is None
    (tmp_path / "naming.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"naming\.parquet: cannot be read \(.+\); evaluate again"):
        table_in(tmp_path, "naming")
