"""What every evaluator must pass: `check_evaluator` is called by the tests of each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import MemeError, NonFiniteError
from sae_lens_meme.evaluators import Evaluator, Latents, Result, encode

DRAWN = re.compile("_low|_high|permuted|random|matched|draw|gradient_norm")
"""Numbers that hang on random draws of memes (the same for the same seed and order), and where a fit stopped."""


class Untouchable(Iterator[torch.Tensor]):
    """A data provider: training would lose every batch that an evaluator takes."""

    def __next__(self) -> torch.Tensor:
        raise AssertionError("the evaluator took a batch from training")


def check_evaluator(
    make: Callable[[Embeddings], Evaluator], sae: Any, embeddings: Embeddings, rel: float = 1e-6
) -> Result:
    """Same result twice, inputs unmodified, mode restored, strict JSON, flat fresh dict, scaled as plain; returns the result."""
    evaluator = make(embeddings)
    before = _state(sae, embeddings)
    sae.train()
    result = evaluator.evaluate(sae)
    assert sae.training, "evaluate left the SAE in eval mode"
    again = make(embeddings).evaluate(sae, latents=encode(sae, embeddings, evaluator.hook))
    assert result.to_dict() == again.to_dict()
    if result.table is not None and again.table is not None:
        pd.testing.assert_frame_equal(result.table, again.table)
        assert not result.table.select_dtypes(np.number).map(_is_nan).any(axis=None), "NaN in the table: null is meant"
    json.dumps(result.to_dict(), allow_nan=False)
    assert all(len(what) > 3 for what in result.explain.values()), "a measure does not say what it is"
    assert not {key for row in result.rows() for key in row["controls"] if not key}, "a control without a name"
    assert result.verdict is None or (result.verdict.endswith(".") and len(result.verdict) <= 240)
    check_parts(evaluator, sae, embeddings, result, rel)
    check_order(evaluator, sae, embeddings, result, rel)
    _check_callable(evaluator, sae, result)
    check_scaled(evaluator, sae, embeddings)
    _check_mode_after_exception(evaluator, sae, embeddings)
    after = _state(sae, embeddings)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before), "an input was modified"
    assert not any(hook for module in sae.modules() for hook in module._forward_hooks.values()), (
        "a hook was left behind"
    )
    sae.eval()
    return result


def check_parts(evaluator: Evaluator, sae: Any, embeddings: Embeddings, whole: Result, rel: float) -> None:
    """Memes in parts, encoded apart and merged, give what one run gives."""
    parts = [
        Embeddings.from_dataset(embeddings.dataset.select(rows), **embeddings.facts)
        for rows in np.array_split(np.arange(len(embeddings)), 3)
    ]
    one, other = evaluator.accumulator(sae), evaluator.accumulator(sae)
    one.accumulate(parts[0])
    other.accumulate(parts[1], encode(sae, parts[1], evaluator.hook)).accumulate(parts[2])
    merged = one.merge(other).finish()
    assert merged.numbers.keys() == whole.numbers.keys()
    for key, value in whole.numbers.items():
        assert merged.numbers[key] == (None if value is None else pytest.approx(value, rel=rel, abs=1e-9)), key


def check_order(evaluator: Evaluator, sae: Any, embeddings: Embeddings, result: Result, rel: float) -> None:
    """The order of the memes changes nothing but what is drawn by seed."""
    order = np.random.default_rng(1).permutation(len(embeddings))
    shuffled = Embeddings.from_dataset(embeddings.dataset.select(order), **embeddings.facts)
    found = evaluator.evaluate(sae, shuffled).numbers
    assert found.keys() == result.numbers.keys()
    for key, value in result.numbers.items():
        if not DRAWN.search(key):
            assert found[key] == (None if value is None else pytest.approx(value, rel=rel, abs=1e-9)), key


def _check_callable(evaluator: Evaluator, sae: Any, result: Result) -> None:
    logged = evaluator(sae, Untouchable(), ActivationScaler())
    assert sae.training
    assert logged is not evaluator(sae, Untouchable(), ActivationScaler())
    for key, value in logged.items():
        assert key.startswith(("meme/", "metrics/", "sparsity/")), "the prefixes of SAELens' metrics and of ours"
        assert key.count("/") >= (2 if key.startswith("meme/") else 1)
        assert isinstance(value, float)
        assert math.isfinite(value)
    defined = {evaluator.log_key(key) for key, value in result.numbers.items() if value is not None}
    assert logged.keys() == defined


def check_scaled(evaluator: Evaluator, sae: Any, embeddings: Embeddings) -> None:
    """A training SAE that lives in scaled, whitened space is measured in the space of the embeddings.

    It is built from `sae` so that it is the same function of an embedding: the numbers must be the same.
    """
    x = torch.from_numpy(embeddings.take(evaluator.hook or sae.cfg.metadata.hook_name, embeddings.rows("train")))
    scaler = ActivationScaler(scaling_factor=3.0)
    scaler.estimate_whitening(sae.cfg.d_in, iter([3.0 * x]), 1, eps=1e-9)
    training = in_scaled_space(sae, scaler).train()
    log, expected = evaluator(training, Untouchable(), scaler), evaluator(sae, Untouchable(), None)
    assert training.training, "the training SAE was left in eval mode"
    assert log.keys() == expected.keys()
    for key, value in expected.items():
        assert log[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


def in_scaled_space(sae: Any, scaler: ActivationScaler) -> TopKTrainingSAE:
    """The training SAE whose `unscale(decode(encode(scale(x))))` is `sae` itself, a TopK SAE without input bias."""
    cfg = TopKTrainingSAEConfig(
        d_in=sae.cfg.d_in,
        d_sae=sae.cfg.d_sae,
        k=sae.cfg.k,
        apply_b_dec_to_input=False,
        rescale_acts_by_decoder_norm=False,
        use_sparse_activations=False,
    )
    training = TopKTrainingSAE(cfg)
    training.cfg.metadata.hook_name = sae.cfg.metadata.hook_name
    # unscale is affine, and so is scale: their matrices are found by asking
    eye, zero = torch.eye(sae.cfg.d_in, dtype=torch.float64), torch.zeros(1, sae.cfg.d_in, dtype=torch.float64)
    back, forth = scaler.unscale(eye) - scaler.unscale(zero), scaler.scale(eye) - scaler.scale(zero)
    with torch.no_grad():
        W_enc = sae.W_enc.double()
        training.W_enc.copy_(back @ W_enc)
        training.b_enc.copy_(sae.b_enc + (scaler.unscale(zero) @ W_enc)[0])
        training.W_dec.copy_(sae.W_dec.double() @ forth)
        training.b_dec.copy_(scaler.scale(sae.b_dec.double()[None])[0])
    return training


def _check_mode_after_exception(evaluator: Evaluator, sae: Any, embeddings: Embeddings) -> None:
    wrong = Latents(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32), 1)
    with pytest.raises(MemeError, match="latents are of 1 memes"):
        evaluator.evaluate(sae, latents=wrong)
    assert sae.training
    weight = sae.W_enc.data.clone()
    try:
        sae.W_enc.data.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match="row 0"):
            evaluator.evaluate(sae)
        assert sae.training
    finally:
        sae.W_enc.data.copy_(weight)


def _state(sae: Any, embeddings: Embeddings) -> dict[str, np.ndarray]:
    weights = {name: value.detach().clone().numpy() for name, value in sae.state_dict().items()}
    rows = np.arange(len(embeddings))
    return weights | {hook: embeddings.take(hook, rows) for hook in embeddings.hooks} | {"ids": embeddings.ids}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
