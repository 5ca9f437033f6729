"""Memes on which little or nothing can be measured of a latent: null with a reason or one line, and no warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import hostile
import numpy as np
import pytest
from arrays import make_embeddings
from sae_lens import TopKSAE
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators import Evaluator, Result
from sae_lens_meme.evaluators.monosemanticity import Monosemanticity
from sae_lens_meme.evaluators.stability import Stability


def others() -> dict[str, TopKSAE]:
    """SAEs of other seeds, one wider, without a bias: a scale of all memes does not change what fires."""
    x = np.random.default_rng(0).standard_normal((50, hostile.D)).astype(np.float32)
    saes = {seed: tiny_sae(x, d_sae=d_sae, k=3, seed=seed) for seed, d_sae in ((1, hostile.D_SAE), (2, 20))}
    for sae in saes.values():
        sae.b_enc.data.zero_()
    return {f"seed {seed}": sae for seed, sae in saes.items()}


MADE: Mapping[str, Callable[[Embeddings], Evaluator]] = {
    "monosemanticity": lambda e: Monosemanticity(e, min_support=2, n_permutations=20, top=4),
    "both sides": lambda e: Monosemanticity(e, rows="all", min_support=2, n_permutations=20, both_sides=True),
    "hierarchy": lambda e: Monosemanticity(
        e, rows="all", n_permutations=0, top=2, hierarchy="hate", widths=[5, hostile.D_SAE], neurons=False
    ),
    "stability": lambda e: Stability(e, others(), n_bootstrap=5),
}


@pytest.mark.parametrize("case", hostile.CASES)
@pytest.mark.parametrize("make", ["monosemanticity", "stability"])
def test_hostile_memes(make, case):
    hostile.check(MADE[make], case)


@pytest.mark.parametrize("case", [*hostile.VECTORS, *hostile.SAES])
@pytest.mark.parametrize("make", ["both sides", "hierarchy"])
def test_hostile_memes_under_options(make, case):
    hostile.check(MADE[make], case)


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("case", ["silent SAE", "all rows alike"])
def test_where_nothing_is_measured_nothing_is_said(make, case):
    result = hostile.check(MADE[make], case)
    assert isinstance(result, Result)
    undefined = ("mean_corrected", "p_best", "share_above_0.7", "odds_ratio", "share_significant")
    assert not [key for key, value in result.numbers.items() if key.endswith(undefined) and value is not None]
    assert result.verdict is None


@pytest.mark.parametrize("make", ["monosemanticity", "stability"])
def test_the_scale_of_all_memes_changes_nothing(make):
    """Up to float32: numbers near 1e-40 have few digits."""
    usual, huge, small = (hostile.check(MADE[make], case) for case in ("no captions", "1e30", "denormal"))
    assert isinstance(usual, Result)
    for other, rel in ((huge, 1e-4), (small, 0.05)):
        assert isinstance(other, Result)
        for key, value in usual.numbers.items():
            assert other.numbers[key] == (None if value is None else pytest.approx(value, rel=rel, abs=0.01)), key


def test_two_memes_and_one():
    rng = np.random.default_rng(1)
    hooks = {"hook_fused": rng.standard_normal((2, hostile.D)), "hook_image_embed": rng.standard_normal((2, hostile.D))}
    two = make_embeddings(hooks, splits=["train"] * 2, sources=["a", "b"])
    sae = hostile.sae("dense SAE")
    for make in ("monosemanticity", "stability"):
        result = MADE[make](two).evaluate(sae)
        assert all(result.reasons[key] for key, value in result.numbers.items() if value is None)
    one = make_embeddings({hook: x[:1] for hook, x in hooks.items()}, splits=["train"], sources=["a"])
    with pytest.raises(DataError, match="1 of 1 memes have a vector that is not 0; 2 or more are needed"):
        MADE["monosemanticity"](one).evaluate(sae)
    assert MADE["stability"](one).evaluate(sae).numbers["n_others"] == 2
