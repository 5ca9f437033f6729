"""SAELens' run_evals as part of the report: its numbers, beside a hand computation on whole splits."""

from __future__ import annotations

import hostile
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import anisotropic, make_embeddings
from hooks_models import topk_sae

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators import StockEvals
from sae_lens_meme.evaluators.classifiers import SharedProbes, tasks_of
from sae_lens_meme.evaluators.stock_evals import classifiers, stock_evals
from sae_lens_meme.hooks import HookedMemeCLIP

N, D = 300, 12


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    x = anisotropic(N, D, rng)
    hate = [None if i % 5 == 0 else int(x[i, 4] > np.median(x[:, 4])) for i in range(N)]
    constant = [1 if i % 20 < 14 and i % 2 else 0 if i % 20 < 14 else None for i in range(N)]
    return make_embeddings({"hook_fused": x}, labels={"hate": hate, "untested": constant})


@torch.no_grad()
def test_recovered_cross_entropy_and_kl_by_hand(embeddings):
    sae, model = topk_sae(D), HookedMemeCLIP.from_embeddings(embeddings, "hate")
    result = stock_evals(sae, [model])
    label = embeddings.label("hate")
    rows = [row for row in embeddings.rows("test") if label.known[row]]
    x, y = torch.from_numpy(embeddings.take("hook_fused", rows)), torch.from_numpy(label.values[rows])
    head = model.linear_head
    assert head is not None
    clean, spliced, zeros = (head(v) for v in (x, sae.decode(sae.encode(x)), 0 * x))
    clean_ce, sae_ce, zero_ce = (F.cross_entropy(v, y).item() for v in (clean, spliced, zeros))
    assert result.numbers["hate/ce_loss_score"] == pytest.approx((zero_ce - sae_ce) / (zero_ce - clean_ce), rel=1e-3)
    kl = [
        (clean.softmax(-1) * (clean.log_softmax(-1) - v.log_softmax(-1))).sum(-1).mean().item()
        for v in (spliced, zeros)
    ]
    assert result.numbers["hate/kl_div_score"] == pytest.approx((kl[1] - kl[0]) / kl[1], rel=1e-3)


def test_a_label_without_test_rows_is_null_with_a_reason(embeddings):
    result = stock_evals(topk_sae(D), [HookedMemeCLIP.from_embeddings(embeddings, "untested")])
    assert result.numbers["untested/ce_loss_score"] is None
    assert "split 'test' has no labelled rows" in result.reasons["untested/ce_loss_score"]


def test_batches_of_equal_size_leave_no_row_out(embeddings, monkeypatch):
    model = HookedMemeCLIP.from_embeddings(embeddings, "hate")
    whole = stock_evals(topk_sae(D), [model]).numbers
    n = len(model.token_dataset("test"))
    monkeypatch.setattr(
        "sae_lens_meme.evaluators.stock_evals.MAX_BATCH", n // 2
    )  # 3 batches; two of that size would lose a row
    assert n % 3 == 0 < n % 2
    batched = stock_evals(topk_sae(D), [model]).numbers
    for key in ("ce_loss_with_sae", "ce_loss_without_sae", "kl_div_with_sae"):
        assert batched[f"hate/{key}"] == pytest.approx(whole[f"hate/{key}"], rel=1e-4)


def test_the_shared_probes_are_the_heads_that_the_model_fits(embeddings):
    tasks, _ = tasks_of(embeddings)
    probes = SharedProbes()
    models = list(classifiers(embeddings, tasks, probes))
    assert [(model.task, model.classes) for model in models] == [("hate", [0, 1]), ("untested", [0, 1])]
    rows = torch.arange(N)[:, None]
    for model, task in zip(models, tasks, strict=True):
        logits = HookedMemeCLIP.from_embeddings(embeddings, task.name)(rows, return_type="logits")
        assert (model(rows, return_type="logits") - logits).abs().max() < 1e-3 * logits.abs().max()
        shared = probes.of(task, embeddings, "hook_fused").predict_proba(embeddings.take("hook_fused", np.arange(N)))
        np.testing.assert_allclose(model(rows, return_type="logits").softmax(-1)[:, 0].detach(), shared, atol=1e-5)


def test_without_fused_vectors_each_model_fits_its_own_head():
    rng = np.random.default_rng(1)
    image, text = anisotropic(N, D, rng), anisotropic(N, D, rng)
    hate = [int(v > 0) for v in image[:, 4] * text[:, 4]]
    both = make_embeddings({"hook_image_embed": image, "hook_text_embed": text}, labels={"hate": hate})
    (model,) = classifiers(both, tasks_of(both)[0], SharedProbes())
    assert model.linear_head is not None
    assert stock_evals(topk_sae(D), [model]).numbers["hate/ce_loss_score"] is not None


@torch.no_grad()
def test_a_classifier_that_loses_to_zeros_has_no_share_to_keep(embeddings):
    """Trained on labels that the test rows contradict: (zeros - SAE) / (zeros - embedding) has a negative denominator."""
    hate = embeddings.label("hate")
    turned = np.where(embeddings.splits == "train", hate.values, 1 - hate.values)
    fooled = make_embeddings(
        {"hook_fused": embeddings.take("hook_fused", np.arange(N))}, labels={"hate": turned.tolist()}
    )
    result = StockEvals(fooled).evaluate(topk_sae(D))
    numbers = result.numbers
    assert numbers["hate/ce_loss_with_ablation"] < numbers["hate/ce_loss_without_sae"]
    assert numbers["hate/ce_loss_score"] is None
    assert "zeros in place of the embedding cost the classifier -" in result.reasons["hate/ce_loss_score"]
    assert numbers["hate/kl_div_score"] is not None, "the divergence from its own probabilities has a sign"
    (row,) = result.rows()
    assert row["value"] is None
    assert row["controls"]["loss"] == numbers["hate/ce_loss_without_sae"]
    assert (
        result.verdict
        == "No classifier loses anything to zeros in place of the embedding, so nothing says what splicing costs."
    )


def test_a_label_that_is_noise_has_no_share_to_keep():
    rng = np.random.default_rng(3)
    x = anisotropic(2000, D, rng)
    x -= x.mean(0)
    noise = make_embeddings({"hook_fused": x}, labels={"noise": rng.integers(0, 2, 2000).tolist()})
    result = StockEvals(noise).evaluate(topk_sae(D))
    assert abs(result.numbers["noise/ce_loss_without_sae"] - result.numbers["noise/ce_loss_with_ablation"]) < 0.01
    for key in ("ce_loss_score", "kl_div_score"):
        assert result.numbers[f"noise/{key}"] is None
        assert "below 0.01 no share is defined" in result.reasons[f"noise/{key}"]


def test_validation_rows_measure_a_label_without_test_rows(embeddings):
    hate = embeddings.label("hate")
    unseen = [
        int(v) if k and split != "test" else None
        for v, k, split in zip(hate.values, hate.known, embeddings.splits, strict=True)
    ]
    x = embeddings.take("hook_fused", np.arange(N))
    result = StockEvals(make_embeddings({"hook_fused": x}, labels={"hate": unseen})).evaluate(topk_sae(D))
    n = sum(v is not None and split == "validation" for v, split in zip(unseen, embeddings.splits, strict=True))
    assert result.numbers["hate/n"] == n
    assert [row["measure"] for row in result.rows()] == [f"hate ({n} validation memes)"]
    assert f"{n} known validation rows" in result.explain["hate/ce_loss_score"]


def test_rows_and_verdict_name_the_worst_label(embeddings):
    result = StockEvals(embeddings).evaluate(topk_sae(D))
    (row,) = result.rows()
    numbers = result.numbers
    assert row["measure"] == f"hate ({numbers['hate/n']} test memes)"
    assert row["controls"] == {
        "zeros": 0,
        "loss": numbers["hate/ce_loss_without_sae"],
        "with SAE": numbers["hate/ce_loss_with_sae"],
        "with zeros": numbers["hate/ce_loss_with_ablation"],
    }
    assert result.verdict == (
        f"Splicing the SAE in keeps {numbers['hate/ce_loss_score']:.0%} (hate) of what linear classifiers gain over "
        "zeros, a weak rival (1 of 2 labels)."
    )


def test_fused_vectors_from_elsewhere_are_read_as_they_are():
    """A model that multiplied picture and caption itself would give the classifier vectors that it was not fitted on."""
    rng = np.random.default_rng(1)
    fused = anisotropic(N, D, rng)
    labels = {"hate": (fused[:, 4] > np.median(fused[:, 4])).astype(int).tolist()}
    hooks = {"hook_image_embed": anisotropic(N, D, rng), "hook_text_embed": anisotropic(N, D, rng)}
    alone = StockEvals(make_embeddings({"hook_fused": fused}, labels=labels)).evaluate(topk_sae(D))
    both = make_embeddings({**hooks, "hook_fused": fused}, labels=labels, fusion="clip")
    wide = {"hook_image_embed": anisotropic(N, 5, rng), "hook_text_embed": anisotropic(N, D - 5, rng)}
    concatenated = make_embeddings({**wide, "hook_fused": fused}, labels=labels, fusion="clip")
    memeclip = make_embeddings({**hooks, "hook_fused": fused}, labels=labels, fusion="memeclip")
    for embeddings in (both, concatenated, memeclip):
        assert StockEvals(embeddings).evaluate(topk_sae(D)).numbers == alone.numbers
        sae = topk_sae(D)
        sae.cfg.metadata.hook_name = "hook_image_embed"
        if embeddings is not concatenated:
            with pytest.raises(DataError, match="hook_image_embed is not read by a classifier on hook_fused"):
                StockEvals(embeddings).evaluate(sae)


def test_vectors_that_no_model_fuses_are_said_to_have_no_classifier():
    x = anisotropic(N, D, np.random.default_rng(2))
    drawn = make_embeddings({"hook_fused": x}, labels={"hate": [i % 2 for i in range(N)]}, fusion="sum")
    with pytest.raises(DataError, match=r"no model makes these vectors \(fusion 'sum'\)"):
        StockEvals(drawn).evaluate(topk_sae(D))


def test_an_sae_that_names_no_hook_is_measured_at_the_given_one(embeddings):
    sae, expected = topk_sae(D), StockEvals(embeddings).evaluate(topk_sae(D)).numbers
    sae.cfg.metadata.hook_name = None
    assert StockEvals(embeddings, hook="hook_fused").evaluate(sae).numbers == expected
    assert sae.cfg.metadata.hook_name is None


def test_a_task_named_twice_is_measured_once(embeddings):
    twice = StockEvals(embeddings, tasks=["hate", "hate"]).evaluate(topk_sae(D))
    assert twice.numbers == StockEvals(embeddings, tasks=["hate"]).evaluate(topk_sae(D)).numbers


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(StockEvals, case)
