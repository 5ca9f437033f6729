"""SAELens' run_evals as part of the report: its numbers, beside a hand computation on whole splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import anisotropic, make_embeddings
from hooks_models import topk_sae

from sae_lens_meme.evaluators.stock import stock_evals
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
