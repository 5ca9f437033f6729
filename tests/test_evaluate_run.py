"""One evaluator that cannot run takes nothing from the others, and a wrong reference is told before the work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from arrays import make_embeddings
from sae_lens_meme.evaluate import evaluation
from sae_lens_meme.evaluate.others import Unavailable
from sae_lens_meme.evaluate.steps import Step

from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.evaluators.result import Result

MEMES = make_embeddings({"hook_fused": np.ones((4, 2))}, labels={"hate": [0, 1, 0, 1]})


def raising(error: Exception) -> Any:
    def run(context: Any) -> Result:
        raise error

    return run


def context_of(*names: str) -> Any:
    options = SimpleNamespace(evaluators=list(names))
    return SimpleNamespace(embeddings=MEMES, options=options, results={}, skipped={})


@pytest.mark.parametrize("error", [DataError("no such rows"), NonFiniteError("row 3"), Unavailable("no other SAE")])
def test_the_others_go_on_and_the_reason_is_kept(error, monkeypatch):
    found = Result("b", {"n": 1}, explain={"*": "rows"})
    monkeypatch.setattr(evaluation, "STEPS", {"a": Step(raising(error)), "b": Step(lambda context: found)})
    context = context_of("a", "b")
    evaluation._run(context, progress=False)
    assert context.results == {"b": found}
    assert context.skipped == {"a": str(error)}


def test_an_evaluator_that_was_asked_for_alone_says_why_it_cannot_run(monkeypatch):
    monkeypatch.setattr(evaluation, "STEPS", {"a": Step(raising(DataError("no such rows")))})
    with pytest.raises(DataError, match="no such rows"):
        evaluation._run(context_of("a"), progress=False)


def test_a_result_without_a_number_is_listed_with_its_reason(monkeypatch):
    empty = Result("a", {"n": None}, {"n": "no captions"}, explain={"*": "rows"})
    monkeypatch.setattr(evaluation, "STEPS", {"a": Step(lambda context: empty)})
    context = context_of("a")
    evaluation._run(context, progress=False)
    assert context.skipped == {"a": "no captions"}


def test_a_reference_of_other_memes_is_refused():
    evaluation._require_same_memes(MEMES, None)
    evaluation._require_same_memes(MEMES, MEMES)
    fewer = type(MEMES).from_dataset(MEMES.dataset.select([0, 2]))
    with pytest.raises(
        DataError, match=r"meme 'meme-1' is not in the reference \(2 such memes\); embed the same corpus"
    ):
        evaluation._require_same_memes(MEMES, fewer)
