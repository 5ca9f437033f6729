"""SAELens' run_evals as part of the report: its numbers, beside a hand computation on whole splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import anisotropic, make_embeddings
from hooks_models import topk_sae

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
        "sae_lens_meme.evaluators.stock.MAX_BATCH", n // 2
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
