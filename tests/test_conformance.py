"""Every evaluator passes one suite, and logs through SAELens while training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic, make_embeddings
from conformance import check_evaluator
from sae_lens import TopKSAE
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.answer_key import AnswerKeyScores
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.cross_modal import CrossModal
from sae_lens_meme.evaluators.influence import Influence
from sae_lens_meme.evaluators.monosemanticity import Monosemanticity
from sae_lens_meme.evaluators.naming import Naming
from sae_lens_meme.evaluators.probes import Probes
from sae_lens_meme.evaluators.question_set import QuestionSet
from sae_lens_meme.evaluators.reconstruction import Reconstruction
from sae_lens_meme.evaluators.stability import Stability
from sae_lens_meme.evaluators.stock_evals import StockEvals

EVALUATORS = {
    "reconstruction": Reconstruction,
    "stock_evals": StockEvals,
    "concept_alignment": lambda e: ConceptAlignment(e, n_bootstrap=5),
    "baselines": lambda e: Baselines(e, raw=("neurons", "pca", "random_topk"), n_permutations=1),
    "probes": Probes,
    "influence": lambda e: Influence(e, n_bootstrap=5),
    "question_set": lambda e: QuestionSet(e, n_bootstrap=5),
    "monosemanticity": lambda e: Monosemanticity(e, min_support=3, n_permutations=19),
    "cross_modal": lambda e: CrossModal(e, n_bootstrap=5, shares=(0.25, 0.5)),
    "naming": lambda e: Naming(e, n_bootstrap=5),
    "stability": lambda e: Stability(e, {"seed_1": other_seed(e)}, n_bootstrap=5),
    "answer_key": lambda e: AnswerKeyScores(e, factors(e), {"hot": "visual"}),
}


def factors(embeddings: Embeddings) -> pd.DataFrame:
    hate = embeddings.label("hate")
    return pd.DataFrame({"id": embeddings.ids, "hot": hate.known & (hate.values == 1)})


def other_seed(embeddings: Embeddings) -> TopKSAE:
    x = embeddings.take("hook_fused", np.arange(len(embeddings)))
    return tiny_sae(x, d_sae=24, k=4, seed=1)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, Embeddings]:
    """Memes with both modalities, captions, missing labels, two sources and three splits."""
    rng = np.random.default_rng(0)
    image, text = anisotropic(400, 16, rng), anisotropic(400, 16, rng)
    x = unit(image) * unit(text)
    hate = [int(v) if i % 5 else None for i, v in enumerate(x[:, 4] + x[:, 5] > x[:, 4].mean() + x[:, 5].mean())]
    labels = {"hate": hate, "humor": rng.integers(0, 4, 400).tolist(), "always": [1] * 400}
    words = np.array(["cat", "dog", "rain", "sun", "tea"])
    texts = [
        " ".join(words[row > np.median(text[:, 3:8], axis=0)]) if i % 9 else None for i, row in enumerate(text[:, 3:8])
    ]
    hooks = {"hook_image_embed": image, "hook_text_embed": text, "hook_fused": x}
    return x, make_embeddings(hooks, labels=labels, sources=["a", "b"] * 200, texts=texts, fusion="clip")


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", EVALUATORS)
def test_it_conforms(name, data):
    x, embeddings = data
    rel = 1e-3 if name == "stock_evals" else 1e-6  # SAELens sums in float32
    result = check_evaluator(EVALUATORS[name], tiny_sae(x, d_sae=24, k=4), embeddings, rel)
    assert result.name == name


def test_every_evaluator_is_tested():
    assert {cls.name for cls in Evaluator.__subclasses__()} == EVALUATORS.keys()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: ConceptAlignment(e, n_bootstrap=-1), "concept_alignment: n_bootstrap is -1; give a whole number"),
        (lambda e: Influence(e, seed=-1), "influence: seed is -1"),
        (lambda e: Influence(e, routes=()), "influence: no route is given"),
        (lambda e: Probes(e, n_permutations=-4), "probes: n_permutations is -4"),
        (lambda e: Naming(e, min_support=-3), "naming: min_support is -3"),
    ],
)
def test_counts_that_are_none_are_refused(make, message, data):
    with pytest.raises(ConfigError, match=message):
        make(data[1])
