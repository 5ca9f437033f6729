"""Every evaluator passes one suite, and logs through SAELens while training."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import anisotropic, make_embeddings
from conformance import check_evaluator
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.influence import Influence
from sae_lens_meme.evaluators.probes import Probes
from sae_lens_meme.evaluators.reconstruction import Reconstruction

EVALUATORS = {
    "reconstruction": Reconstruction,
    "concept_alignment": lambda e: ConceptAlignment(e, n_bootstrap=5),
    "probes": Probes,
    "influence": lambda e: Influence(e, n_bootstrap=5),
}


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, Embeddings]:
    rng = np.random.default_rng(0)
    x = anisotropic(400, 16, rng)
    hate = [int(v) if i % 5 else None for i, v in enumerate(x[:, 4] + x[:, 5] > x[:, 4].mean() + x[:, 5].mean())]
    labels = {"hate": hate, "humor": rng.integers(0, 4, 400).tolist(), "always": [1] * 400}
    return x, make_embeddings({"hook_fused": x}, labels=labels, sources=["a", "b"] * 200)


@pytest.mark.parametrize("name", EVALUATORS)
def test_it_conforms(name, data):
    x, embeddings = data
    result = check_evaluator(EVALUATORS[name], tiny_sae(x, d_sae=24, k=4), embeddings)
    assert result.name == name


def test_every_evaluator_is_tested():
    assert {cls.name for cls in Evaluator.__subclasses__()} == EVALUATORS.keys()
