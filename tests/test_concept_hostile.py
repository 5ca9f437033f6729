"""Concept alignment, its baselines, names and the answer key on memes that are wrong in ways that happen."""

from __future__ import annotations

import hostile
import numpy as np
import pandas as pd
import pytest

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.answer_key import AnswerKeyScores
from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.naming import Naming
from sae_lens_meme.evaluators.result import Result


def answer_key(embeddings: Embeddings) -> AnswerKeyScores:
    i = np.arange(len(embeddings))
    hat = np.where(i % 7 == 0, None, np.array(["[bold]", "b", "c"], dtype=object)[i % 3])
    factors = pd.DataFrame({"id": embeddings.ids, "source": embeddings.sources, "hot": i % 4 == 0, "hat": hat})
    classes = pd.DataFrame({"latent": range(hostile.D_SAE), "class": ["visual", None] * (hostile.D_SAE // 2)})
    return AnswerKeyScores(embeddings, factors, {"hot": "visual", "hat": "textual"}, classes=classes)


OF_LABELS = (*hostile.TABLES, *hostile.SAES, "all rows alike", "every row twice")
CASES = [
    *((lambda e: ConceptAlignment(e, n_bootstrap=5), case) for case in OF_LABELS),
    *((lambda e: Baselines(e, n_permutations=1), case) for case in (*hostile.VECTORS, *hostile.SAES, "odd names")),
    *((lambda e: Naming(e, n_bootstrap=5, min_df=2, min_support=2), case) for case in OF_LABELS),
    *((answer_key, case) for case in ("odd sources", "a source a row", "one test row", "all zero", *hostile.SAES)),
]


@pytest.mark.parametrize(("make", "case"), CASES)
def test_null_with_a_reason_or_one_line(make, case):
    hostile.check(make, case)


def test_components_of_memes_that_are_all_alike_are_null_with_the_reason():
    found = Baselines(hostile.embeddings("all rows alike"), n_permutations=1).evaluate(hostile.sae())
    assert found.numbers["corrected/pca/n_significant_global"] is None
    assert "pca cannot be fitted: the 56 embeddings do not vary" in found.reasons["corrected/pca/n_significant_global"]
    assert found.numbers["corrected/sae/share_of_tests_global"] is None, "0 of 0 is no share"
    assert found.verdict is None


def test_a_dimension_of_rounding_errors_is_no_neuron():
    """Divided by its own standard deviation it would fire as often as any other."""
    from sae_lens_meme.evaluators.controls import directions

    memes = hostile.embeddings("a dimension that hardly varies")
    fires = directions(memes, "hook_fused", np.full(hostile.N, 4)).csr().toarray() > 0
    assert not fires[:, [5, 5 + hostile.D]].any()
    assert fires[:, [6, 6 + hostile.D]].any()


@pytest.mark.parametrize(
    "make", [lambda e: ConceptAlignment(e, n_bootstrap=5), lambda e: Baselines(e, n_permutations=1)]
)
def test_labels_and_classes_that_are_markup_or_control_characters_stay_data(make):
    found = hostile.check(make, "odd names")
    assert isinstance(found, Result)
    if found.name == "concept_alignment":
        for name in hostile.ODD:
            assert f"corrected/{name}=1/best_latent" in found.numbers
        assert {f"{name}=0" for name in hostile.ODD} <= set(found.table["concept"])  # type: ignore[index]
