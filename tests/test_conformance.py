"""Every registered evaluator passes one suite, and logs through SAELens while training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from conformance import check_evaluator
from evaluations import small_context, small_memes

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators import (
    ConceptAlignment,
    Evaluator,
    Influence,
    Measure,
    Naming,
    Probes,
    Result,
    find,
    names,
)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, Embeddings]:
    return small_memes()


@pytest.fixture(scope="module")
def context(data):
    return small_context(*data)


@pytest.mark.parametrize("name", names())
def test_it_conforms(name, context):
    rel = 1e-3 if name == "stock_evals" else 1e-6  # SAELens sums in float32
    evaluator = find(name).from_context(context)
    result = check_evaluator(lambda memes: _of(evaluator, memes), context.sae, context.embeddings, rel)
    assert result.name == evaluator.name == name
    assert evaluator.question
    assert evaluator.control


def _of(evaluator: Evaluator, memes: Embeddings) -> Evaluator:
    made = copy.copy(evaluator)
    made.embeddings = memes
    return made


def test_every_evaluator_of_the_package_is_registered():
    ours = {cls for cls in Evaluator.__subclasses__() if cls.__module__.startswith("sae_lens_meme.")}
    assert ours == {find(name) for name in names()}


def test_a_measure_says_what_it_is_and_why_it_is_undefined():
    with pytest.raises(ValueError, match="n is undefined and no reason is given"):
        Measure("n", float("nan"), "rows")
    with pytest.raises(ValueError, match="n: nothing says what it is"):
        Measure("n", 1, "")


def test_two_measures_never_share_a_key():
    from sae_lens_meme.evaluators import Interval, Section

    ends = Measure("n", 1, "rows", interval=Interval(0, 2, "bootstrap"))
    with pytest.raises(ValueError, match="a: n_low is declared twice"):
        Result("a", Section("A", ""), (ends, Measure("n_low", 1, "rows")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: ConceptAlignment(e, n_bootstrap=-1), "concept_alignment.n_bootstrap is -1, it must be 0 or more"),
        (lambda e: Influence(e, seed=-1), "influence.seed is -1"),
        (lambda e: Influence(e, routes=()), "influence.routes is "),
        (lambda e: Probes(e, n_permutations=-4), "probes.n_permutations is -4"),
        (lambda e: Naming(e, min_support=-3), "naming.min_support is -3"),
    ],
)
def test_counts_that_are_none_are_refused(make, message, data):
    with pytest.raises(ConfigError, match=message):
        make(data[1])
