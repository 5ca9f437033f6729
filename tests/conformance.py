"""What every evaluator must pass: `check_evaluator` is called by the tests of each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import MemeError, NonFiniteError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.latents import Latents, encode
from sae_lens_meme.evaluators.result import Result


class Untouchable(Iterator[torch.Tensor]):
    """A data provider: training would lose every batch that an evaluator takes."""

    def __next__(self) -> torch.Tensor:
        raise AssertionError("the evaluator took a batch from training")


def check_evaluator(make: Callable[[Embeddings], Evaluator], sae: Any, embeddings: Embeddings) -> Result:
    """Same result twice, inputs unmodified, mode restored, strict JSON, flat fresh dict; returns the result."""
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
    _check_callable(evaluator, sae, result)
    _check_mode_after_exception(evaluator, sae, embeddings)
    after = _state(sae, embeddings)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before), "an input was modified"
    assert not any(hook for module in sae.modules() for hook in module._forward_hooks.values()), (
        "a hook was left behind"
    )
    sae.eval()
    return result


def _check_callable(evaluator: Evaluator, sae: Any, result: Result) -> None:
    logged = evaluator(sae, Untouchable(), ActivationScaler())
    assert sae.training
    assert logged is not evaluator(sae, Untouchable(), ActivationScaler())
    for key, value in logged.items():
        assert key.startswith(f"meme/{evaluator.name}/")
        assert isinstance(value, float)
        assert math.isfinite(value)
    defined = {f"meme/{evaluator.name}/{key}" for key, value in result.numbers.items() if value is not None}
    assert logged.keys() == defined


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
