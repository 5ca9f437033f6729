"""Memes on which little or nothing can be measured: null with a reason or one error, and no warning."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from sae_lens import TopKSAE
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import MemeError
from sae_lens_meme.evaluators import Evaluator, Result
from sae_lens_meme.evaluators.monosemanticity import Monosemanticity
from sae_lens_meme.evaluators.stability import Stability

N, D = 100, 10
X = anisotropic(N, D, np.random.default_rng(0))
SOURCES = ["a", "b"] * (N // 2)


def other_than_one(x: np.ndarray) -> np.ndarray:
    return np.vstack([np.tile(x[:1], (N - 1, 1)), x[1:2]])


MEMES: dict[str, tuple[np.ndarray, list[str]]] = {
    "usual": (X, SOURCES),
    "all alike": (np.tile(X[:1], (N, 1)), SOURCES),
    "all alike but one": (other_than_one(X), SOURCES),
    "three memes over and over": (np.tile(X[:3], (N // 3 + 1, 1))[:N], SOURCES),
    "huge": (X * np.float32(1e30), SOURCES),
    "one huge": (np.vstack([X[:1] * np.float32(1e30), X[1:]]), SOURCES),
    "denormal": (X * np.float32(1e-40), SOURCES),
    "one dimension": (np.where(np.arange(D) == 4, X, np.float32(0.2)), SOURCES),
    "a source a meme": (X, [f"source {i}" for i in range(N)]),
    "two memes": (X[:2], ["a", "b"]),
    "one meme": (X[:1], ["a"]),
    "all zero": (0 * X, SOURCES),
}
NOTHING = {"one meme", "all zero"}
"""Too little for monosemanticity."""


def memes(name: str) -> Embeddings:
    x, sources = MEMES[name]
    hate = [i % 2 if i % 5 else None for i in range(len(x))]
    splits = ["train"] * len(x) if len(x) < 3 else None
    hooks = {"hook_fused": x, "hook_image_embed": x[::-1].copy(), "hook_text_embed": 0.5 * x}
    return make_embeddings(hooks, sources=sources, splits=splits, labels={"hate": hate})


def sae(seed: int = 0, silent: bool = False) -> TopKSAE:
    made = tiny_sae(X, d_sae=20, k=3, seed=seed)
    with torch.no_grad():
        made.b_enc.fill_(-1e9 if silent else 0.0)
    return made


MADE: Mapping[str, Callable[[Embeddings], Evaluator]] = {
    "monosemanticity": lambda e: Monosemanticity(e, rows="all", min_support=2, n_permutations=20, top=4),
    "both sides": lambda e: Monosemanticity(e, rows="all", min_support=2, n_permutations=20, both_sides=True),
    "hierarchy": lambda e: Monosemanticity(
        e, rows="all", n_permutations=0, top=2, hierarchy="hate", widths=[5, 20], neurons=False
    ),
    "stability": lambda e: Stability(e, {"one": sae(1), "two": sae(2)}, n_bootstrap=5),
}


def measured(make: str, name: str, silent: bool = False) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = MADE[make](memes(name)).evaluate(sae(silent=silent))
    json.dumps(result.to_dict(), allow_nan=False)
    assert all(result.reasons[key] for key, value in result.numbers.items() if value is None)
    assert all(row["value"] is not None for row in result.rows()), "a row of dashes"
    assert result.table is not None
    numbers = result.table.select_dtypes(np.number).to_numpy(dtype=np.float64, na_value=0)
    assert np.isfinite(numbers).all()
    return result


@pytest.mark.parametrize("name", MEMES)
@pytest.mark.parametrize("make", MADE)
def test_it_is_measured_or_one_line_says_why_not(make, name):
    if name in NOTHING and make != "stability":
        with pytest.raises(MemeError) as error:
            measured(make, name)
        assert "\n" not in str(error.value)
        return
    result = measured(make, name)
    if name == "all alike":
        undefined = ("mean_corrected", "p_best", "share_above_0.7", "odds_ratio")
        assert not [key for key, value in result.numbers.items() if key.endswith(undefined) and value is not None]
        assert result.verdict is None


@pytest.mark.parametrize("make", MADE)
def test_latents_that_never_fire(make):
    result = measured(make, "usual", silent=True)
    assert result.verdict is None
    assert result.rows() == []


def test_the_scale_of_all_memes_changes_nothing():
    """Up to float32: a few numbers near 1e-40 have fewer digits."""
    for make in ("monosemanticity", "stability"):
        usual, huge, small = (measured(make, name).numbers for name in ("usual", "huge", "denormal"))
        for key, value in usual.items():
            for scaled, rel in ((huge, 1e-4), (small, 0.05)):
                assert scaled[key] == (None if value is None else pytest.approx(value, rel=rel, abs=0.01)), key
