"""Matching against scipy and brute force, its controls, significance against scipy and statsmodels, planted seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from arrays import anisotropic, make_embeddings
from conformance import check_evaluator
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import TopKSAE, TopKSAEConfig
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.stats import fisher_exact
from sklearn.metrics import jaccard_score
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError, NonFiniteError
from sae_lens_meme.evaluators import ConceptAlignment, Latents, Result, Section, encode
from sae_lens_meme.evaluators.stability import (
    Directions,
    Stability,
    firing_agreement,
    largest_sum,
    match,
    of_significance,
    random_like,
    rate_groups,
)
from sae_lens_meme.evaluators.stability.evaluator import of_significant
from sae_lens_meme.evaluators.stability.quantities import ODDS, ODDS_WITHIN
from sae_lens_meme.metrics.resampling import permutation_within

D_IN = 24
SPREAD = np.sqrt(np.array([0.406, 0.205, 0.031, *[0.358 / 21] * 21])).astype(np.float32)


def sae_of(
    rows: np.ndarray,
    hook: str | None = "hook_fused",
    *,
    seed: int = 0,
    order: np.ndarray | None = None,
    silent: Sequence[int] = (),
) -> TopKSAE:
    """These decoder rows behind a random encoder, of which `order` takes the columns; every latent fires, but for some."""
    d_sae, d_in = rows.shape
    sae = TopKSAE(
        TopKSAEConfig(
            d_in=d_in, d_sae=d_sae, k=min(4, d_sae), apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False
        )
    )
    sae.cfg.metadata.hook_name = hook
    encoder = np.random.default_rng(seed).standard_normal((d_in, d_sae)).astype(np.float32)
    with torch.no_grad():
        sae.W_dec.copy_(torch.from_numpy(rows))
        sae.W_enc.copy_(torch.from_numpy(encoder if order is None else encoder[:, order]))
        sae.b_enc[list(silent)] = -1e9
    return sae.eval()


def memes(n: int = 600) -> Embeddings:
    return make_embeddings(
        {"hook_fused": np.random.default_rng(9).standard_normal((n, D_IN))}, sources=["a", "b"] * (n // 2)
    )


MEMES = memes()


def stability(sae: TopKSAE, others: dict[str, TopKSAE], embeddings: Embeddings = MEMES, **given: Any) -> Result:
    """In the space of the embeddings, without resamples."""
    return Stability(embeddings, others, **{"zscored": False, "n_bootstrap": 0, **given}).evaluate(sae)


def significance(*of: Any) -> Result:
    return Result("significance", Section("", ""), tuple(of_significance(*of).values()))


def rows_of(n: int, seed: int, d: int = D_IN) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, d)) * SPREAD[:d]).astype(np.float32)


def directions(rows: np.ndarray, alive: np.ndarray | None = None) -> Directions:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Directions(unit.astype(np.float32), np.ones(len(rows), bool) if alive is None else alive)


def some_latents(n: int, d_sae: int, seed: int) -> Latents:
    return Latents.from_csr(sparse.random(n, d_sae, 0.15, format="csr", random_state=np.random.default_rng(seed)))


def table_of(result: Result) -> pd.DataFrame:
    assert result.table is not None
    return result.table


@pytest.mark.parametrize("shape", [(60, 60), (60, 63), (63, 60), (30, 90), (90, 30), (1, 5), (200, 200)])
def test_the_matching_is_scipys(shape):
    n, m = shape
    cosines = directions(rows_of(n, 0)).rows @ directions(rows_of(m, 1)).rows.T
    rows, columns = largest_sum(cosines)
    expected = cosines[linear_sum_assignment(cosines, maximize=True)].sum()
    assert cosines[rows, columns].sum() == pytest.approx(expected, rel=1e-6)
    assert len(set(rows)) == len(set(columns)) == min(n, m)


def test_the_matching_is_the_best_of_all():
    these, others = directions(rows_of(5, 2)), directions(rows_of(5, 3))
    cosines = these.rows @ others.rows.T
    best = max(permutations(range(5)), key=lambda order: cosines[range(5), order].sum())
    found = match(these, others)
    assert tuple(found.partner) == best
    np.testing.assert_allclose(found.cosine, cosines[range(5), best])
    np.testing.assert_allclose(found.nearest, cosines.max(axis=1))
    assert (found.nearest >= found.cosine).all()


def test_an_sae_against_itself_permuted():
    rows, order = rows_of(40, 0), np.random.default_rng(1).permutation(40)
    scaled = (rows[order] * np.linspace(0.1, 5, 40)[:, None]).astype(np.float32)
    result = stability(sae_of(rows), {"other": sae_of(scaled, order=order)})
    table = table_of(result)
    assert order[table["other/matched"].to_numpy(dtype=int)].tolist() == list(range(40))
    for key in ("mean_cosine", "mean_nearest_cosine", "share_above_0.9", "mean_jaccard", "mean_correlation"):
        assert result.numbers[f"other/{key}"] == pytest.approx(1, abs=1e-6)
    assert table["stable"].all()
    assert result.numbers["other/mean_jaccard_permuted"] < 0.15
    assert result.numbers["other/mean_correlation_permuted"] == pytest.approx(0, abs=0.03)
    assert result.numbers["other/mean_cosine_random"] < 0.9


def test_the_random_control_knows_the_covariance():
    """SAEs that have nothing in common but the anisotropy do as well as the control, and a naive control would not."""
    rows, unrelated = rows_of(400, 0), rows_of(400, 1)
    numbers = stability(sae_of(rows), {"other": sae_of(unrelated)}, memes(2000)).numbers
    assert numbers["other/mean_cosine"] == pytest.approx(numbers["other/mean_cosine_random"], abs=0.02)
    assert numbers["other/mean_nearest_cosine"] == pytest.approx(numbers["other/mean_nearest_cosine_random"], abs=0.02)
    isotropic = match(directions(rows), directions(rows_of(400, 2) / SPREAD))
    assert np.mean(isotropic.cosine) < numbers["other/mean_cosine"] - 0.1


def test_random_directions_have_the_mean_and_covariance_of_the_rows():
    unit = directions(rows_of(400, 0) + 0.2).rows
    axes = np.linalg.eigh(np.cov(unit.T))[1]
    for seed in range(1, 4):
        drawn = random_like(directions(unit), np.random.default_rng(seed)).rows
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(drawn.mean(axis=0), unit.mean(axis=0), atol=0.01)
        np.testing.assert_allclose((drawn @ axes).var(axis=0), (unit @ axes).var(axis=0), rtol=0.01)
        np.testing.assert_allclose(np.cov(drawn.T), np.cov(unit.T), atol=0.03)


def test_firing_agreement_is_sklearns_and_numpys():
    mine, theirs = some_latents(80, 6, 0), some_latents(80, 5, 1)
    partner = np.array([4, -1, 0, 2, 1, 3])
    found = firing_agreement(mine, theirs, partner)
    a, b = mine.csr().toarray(), theirs.csr().toarray()
    for latent, other in enumerate(partner):
        if other < 0:
            assert np.isnan(found.jaccard[latent])
            assert np.isnan(found.correlation[latent])
            continue
        assert found.jaccard[latent] == pytest.approx(jaccard_score(a[:, latent] > 0, b[:, other] > 0))
        assert found.correlation[latent] == pytest.approx(np.corrcoef(a[:, latent], b[:, other])[0, 1])


def test_memes_are_permuted_within_stratum():
    latents, strata = some_latents(60, 8, 0), np.arange(60) % 3
    order = np.random.default_rng(1).permutation(60)
    permuted = latents.rows(permutation_within(strata, np.random.default_rng(2), order)).csr().toarray()
    for stratum in range(3):
        before, after = latents.csr().toarray()[strata == stratum], permuted[strata == stratum]
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))


def test_dead_latents_and_other_widths():
    rows = rows_of(30, 0)
    result = stability(sae_of(rows, silent=[3, 7]), {"narrow": sae_of(rows[:20], seed=2)})
    table, numbers = table_of(result), result.numbers
    assert numbers["n_alive"] == 28
    assert numbers["narrow/n_matched"] == 20
    assert (
        table.loc[[3, 7], ["narrow/matched", "narrow/cosine", "narrow/nearest_cosine", "stable"]].isna().all(axis=None)
    )
    assert table.loc[[3, 7], "firing_rate"].tolist() == [0, 0]
    left_over = table["alive"] & table["narrow/matched"].isna()
    assert left_over.sum() == 8
    assert not table["stable"][left_over].any(), "without a partner a latent is not stable"
    above = (table["narrow/cosine"] >= 0.9).sum()
    assert above >= 16
    assert numbers["narrow/share_above_0.9"] == pytest.approx(above / 28)


def test_nothing_alive_is_null():
    nothing = range(5)
    result = stability(sae_of(rows_of(5, 0), silent=nothing), {"o": sae_of(rows_of(5, 1), silent=nothing)})
    assert result.numbers["n_alive"] == 0
    assert result.numbers["o/share_above_0.7"] is None
    assert result.reasons["mean/mean_cosine"] == "no latent takes part, or none has a partner"
    assert result.verdict is None
    assert result.rows() == []


def planted_significance(n: int = 3000, seed: int = 0, by_rate: bool = False):
    """Stable latents are the significant ones, or both are only the frequent ones."""
    rng = np.random.default_rng(seed)
    rate = rng.beta(1, 8, n)
    frequent = rate > np.median(rate)
    significant = rng.random(n) < (np.where(frequent, 0.7, 0.2) if by_rate else 0.4)
    chance = np.where(frequent, 0.7, 0.2) if by_rate else np.where(significant, 0.7, 0.3)
    stable = rng.random(n) < chance
    cosine = np.where(stable, 0.85, 0.4) + 0.1 * rng.random(n)
    return significant.astype(float), stable, cosine, rate


def test_significance_is_scipys_and_a_naive_loop():
    significant, stable, cosine, rate = planted_significance()
    significant[::10] = np.nan
    result = significance(significant, stable, cosine, rate, 200, 0)
    numbers = result.numbers
    assert not result.reasons
    yes, no = significant == 1, significant == 0
    table = [[(yes & stable).sum(), (yes & ~stable).sum()], [(no & stable).sum(), (no & ~stable).sum()]]
    assert numbers["significance/p"] == pytest.approx(fisher_exact(table).pvalue)
    sample = table[0][0] * table[1][1] / (table[0][1] * table[1][0])
    assert numbers["significance/odds_ratio"] == pytest.approx(sample, rel=0.01), (
        "conditional and sample ratio are close"
    )
    assert numbers["significance/odds_ratio_low"] < sample < numbers["significance/odds_ratio_high"]
    assert numbers["significance/share_stable_significant"] == pytest.approx(stable[yes].mean())
    difference = cosine[yes].mean() - cosine[no].mean()
    assert numbers["significance/cosine_difference"] == pytest.approx(difference)
    error = np.sqrt(cosine[yes].var() / yes.sum() + cosine[no].var() / no.sum())
    assert numbers["significance/cosine_difference_low"] == pytest.approx(difference - 1.96 * error, abs=error / 2)
    assert numbers["significance/cosine_difference_high"] == pytest.approx(difference + 1.96 * error, abs=error / 2)
    check_within_rate(numbers, significant, stable, cosine, rate)


def check_within_rate(numbers, significant, stable, cosine, rate):
    """Mantel and Haenszel's formulas, quintile by quintile."""
    known = ~np.isnan(significant)
    yes, stable, cosine, rate = significant[known] == 1, stable[known], cosine[known], rate[known]
    edges = np.quantile(rate, [0.2, 0.4, 0.6, 0.8])
    right = wrong = excess = variance = weighted = weights = 0.0
    for g in range(5):
        mine = np.searchsorted(edges, rate) == g
        a, b = (yes & stable & mine).sum(), (yes & ~stable & mine).sum()
        c, d = (~yes & stable & mine).sum(), (~yes & ~stable & mine).sum()
        n = a + b + c + d
        assert n == pytest.approx(len(rate) / 5, abs=1)
        right, wrong = right + a * d / n, wrong + b * c / n
        excess += a - (a + b) * (a + c) / n
        variance += (a + b) * (c + d) * (a + c) * (b + d) / (n**2 * (n - 1))
        weight = (a + b) * (c + d) / n
        weighted += weight * (cosine[yes & mine].mean() - cosine[~yes & mine].mean())
        weights += weight
    within = "significance/within_rate/"
    assert numbers[f"{within}odds_ratio"] == pytest.approx(right / wrong)
    assert numbers[f"{within}cosine_difference"] == pytest.approx(weighted / weights)
    from scipy.stats import chi2

    assert numbers[f"{within}p"] == pytest.approx(chi2.sf(excess**2 / variance, 1), rel=1e-6)


def test_the_firing_rate_explains_what_it_explains():
    significant, stable, cosine, rate = planted_significance(by_rate=True)
    numbers = significance(significant, stable, cosine, rate, 200, 0).numbers
    assert numbers["significance/odds_ratio_low"] > 1.5
    assert numbers["significance/cosine_difference_low"] > 0
    assert numbers["significance/within_rate/odds_ratio"] < 1.5
    assert numbers["significance/within_rate/odds_ratio"] < numbers["significance/odds_ratio"] / 1.5


def test_the_verdict_takes_the_odds_ratio_within_firing_rate():
    """The more often a latent fires the more often it is significant, and stable; given the rate they are independent."""
    rng = np.random.default_rng(0)
    rate = rng.uniform(0, 1, 600)
    significant, stable = (rng.random((2, 600)) < rate).astype(float)
    found = of_significance(significant, stable == 1, stable, rate, 0, 0)
    (crude_low, *_), (low, high, *_) = (
        cast("Any", found[key].interval) for key in (("significance", ODDS), ("significance/within_rate", ODDS_WITHIN))
    )
    assert crude_low > 1
    assert low < 1 < high
    said = of_significant(found)
    assert "not shown to do so more or less often" in said
    assert f"{low:.2f} to {high:.2f}, among latents of similar firing rate" in said


def test_a_seed_without_a_partner_is_below_the_threshold():
    """The first latent is in one narrow SAE and in no other; the second in all of them."""
    rows = rows_of(4, 0)
    others = {"a": sae_of(rows[:2]), "b": sae_of(rows[1:2]), "c": sae_of(rows[1:2])}
    result = stability(sae_of(rows), others)
    table = table_of(result)
    assert table["stable"].tolist() == [False, True, False, False]
    assert table["mean_cosine"].fillna(-1).tolist() == pytest.approx([1 / 3, 1, -1, -1])


def test_equal_rates_are_in_one_group():
    groups = rate_groups(np.array([0.1] * 8 + [0.2, 0.3]))
    assert len(set(groups[:8])) == 1
    assert groups[9] > groups[0]


def test_undefined_significance_has_reasons():
    nothing = np.zeros(20)
    result = significance(nothing, nothing == 0, nothing + 0.5, nothing, 10, 0)
    assert result.numbers["significance/odds_ratio"] is None
    assert result.reasons["significance/odds_ratio"] == "no latent is significant"
    assert result.reasons["significance/within_rate/p"].startswith(
        "no group of equal firing rate has latents of all kinds"
    )
    half = np.repeat([0.0, 1.0], 10)
    numbers = significance(half, half == 0, half, half, 10, 0).numbers
    assert numbers["significance/odds_ratio"] == pytest.approx(0)
    assert numbers["significance/p"] < 1e-4
    result = significance(half, half == 1, half, nothing, 10, 0)
    for key in ("significance/odds_ratio", "significance/odds_ratio_high", "significance/within_rate/odds_ratio"):
        assert result.numbers[key] is None
        assert result.reasons[key] == "infinite: one kind of latent is missing"
    assert result.numbers["significance/odds_ratio_low"] > 1
    untested = significance(half * np.nan, half == 1, half, half, 10, 0)
    assert untested.reasons["significance/share_stable_other"] == "no latent that takes part was tested"


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 30))
def test_order_and_norms_of_the_other_latents_do_not_matter(seed, n):
    rng = np.random.default_rng(seed)
    mine, theirs, order = rows_of(n, seed), rows_of(n + 2, seed + 1), rng.permutation(n + 2)
    scaled = theirs[order] * rng.uniform(0.1, 10, (n + 2, 1)).astype(np.float32)
    one = stability(sae_of(mine), {"o": sae_of(theirs, seed=1)})
    two = stability(sae_of(mine), {"o": sae_of(scaled, seed=1, order=order)})
    assert one.numbers["o/mean_cosine"] == pytest.approx(two.numbers["o/mean_cosine"], abs=1e-5)
    assert one.numbers["o/mean_nearest_cosine"] == pytest.approx(two.numbers["o/mean_nearest_cosine"], abs=1e-5)
    assert order[table_of(two)["o/matched"].to_numpy(int)].tolist() == table_of(one)["o/matched"].tolist()


def test_controls_are_in_no_mean():
    rows = rows_of(30, 0)
    others = {"a": sae_of(rows), "shuffled": sae_of(rows_of(30, 1)), "b": sae_of(rows_of(30, 2))}
    numbers = stability(sae_of(rows), others, controls=["shuffled"]).numbers
    assert numbers["n_others"] == 2
    assert numbers["mean/mean_cosine"] == pytest.approx(np.mean([numbers["a/mean_cosine"], numbers["b/mean_cosine"]]))
    assert numbers["most/mean_cosine"] == numbers["a/mean_cosine"]
    assert numbers["mean/share_in_all"] == numbers["b/share_above_0.7"]
    assert 0 < numbers["shuffled/mean_cosine"] < 1


@pytest.mark.parametrize(
    ("significant", "said"),
    [
        (range(22), "significant latents more often (odds ratio "),
        (range(18, 40), "significant latents less often (odds ratio 0.0"),
        (range(0, 40, 2), "significant latents are not shown to do so more or less often (odds ratio "),
        (range(20), "significant latents more often (odds ratio 49.15 or more, whatever their firing rate)."),
        ([], "whether the significant ones do is not known."),
    ],
)
def test_the_verdict_says_whether_significant_latents_are_the_stable_ones(significant, said):
    """The first 20 of 40 latents have the same direction in the other SAE."""
    rows = rows_of(40, 0)
    other = np.vstack([rows[:20], rows_of(20, 1)])
    alignment = pd.DataFrame({"latent": range(40), "q_global": np.where(np.isin(range(40), significant), 0.001, 0.9)})
    result = stability(sae_of(rows), {"one": sae_of(other)}, alignment=alignment, threshold=0.999)
    assert result.verdict is not None
    assert result.verdict.startswith("50% of 40 latents reappear with another seed (random directions: 0%)")
    assert said in result.verdict
    labels = [row["measure"] for row in result.rows()]
    assert labels[0] == "stable latents (of 40): cosine of 0.999 or more"
    if len(significant):
        n = len(significant)
        assert f"stable of {n} significant latents (others: {40 - n})" in labels


def test_labels_that_cannot_be_used_leave_the_rest():
    labelled = make_embeddings({"hook_fused": MEMES.take("hook_fused", np.arange(600))}, labels={"always": [1] * 600})
    result = stability(sae_of(rows_of(8, 0)), {"one": sae_of(rows_of(8, 1))}, labelled)
    assert result.numbers["significance/odds_ratio"] is None
    assert result.reasons["significance/odds_ratio"].startswith(
        "no table of concept alignment is given, and no label has 2 to 10 classes (labels: always)"
    )
    assert result.numbers["one/mean_cosine"] is not None
    assert table_of(result)["significant"].isna().all()


WRONG = [
    (lambda: stability(sae_of(rows_of(4, 0)), {}), ConfigError, "there is no SAE of another seed"),
    (lambda: stability(sae_of(rows_of(4, 0)), {"mean": sae_of(rows_of(4, 0))}), ConfigError, "cannot be called 'mean'"),
    (
        lambda: stability(sae_of(rows_of(4, 0)), {"a": sae_of(rows_of(4, 1))}, controls=["b"]),
        ConfigError,
        "control 'b' is not one of a",
    ),
    (
        lambda: stability(sae_of(rows_of(4, 0)), {"a": sae_of(rows_of(4, 1))}, threshold=1.5),
        ConfigError,
        "stability.threshold is 1.5, it must be",
    ),
    (
        lambda: stability(sae_of(rows_of(4, 0)), {"a": sae_of(rows_of(4, 1, d=8))}),
        DataError,
        "a has d_in 8, the SAE has d_in 24",
    ),
    (
        lambda: stability(sae_of(rows_of(4, 0)), {"a": sae_of(rows_of(4, 1), hook="hook_text_embed")}),
        DataError,
        "a was trained on hook_text_embed, the SAE on hook_fused",
    ),
    (
        lambda: Stability(MEMES, {"a": sae_of(rows_of(4, 1))}).evaluate(
            sae_of(rows_of(4, 0)), latents=some_latents(600, 5, 0)
        ),
        DataError,
        "d_sae 5, not 4",
    ),
    (
        lambda: stability(sae_of(rows_of(4, 0)), {"a": sae_of(np.full((4, D_IN), np.nan, np.float32))}),
        NonFiniteError,
        "decoder row 0 holds NaN or infinity",
    ),
    (
        lambda: stability(
            sae_of(rows_of(4, 0)),
            {"a": sae_of(rows_of(4, 1))},
            alignment=pd.DataFrame({"latent": [9], "q_global": [0.1]}),
        ),
        DataError,
        "alignment has a latent 9, the SAE has d_sae 4",
    ),
    (
        lambda: stability(sae_of(rows_of(4, 0)), {"a": sae_of(rows_of(4, 1))}, alignment=pd.DataFrame({"x": []})),
        DataError,
        "no columns latent and q_global",
    ),
    (
        lambda: stability(
            sae_of(rows_of(4, 0)),
            {"a": sae_of(rows_of(4, 1))},
            alignment=pd.DataFrame({"latent": [1], "q_global": [0.1], "protocol": ["published"]}),
        ),
        DataError,
        "no rows of the corrected protocol",
    ),
    (lambda: stability(sae_of(rows_of(4, 0)), [sae_of(rows_of(4, 1))]), ConfigError, "others is a list; give"),  # type: ignore[arg-type]
    (lambda: stability(sae_of(rows_of(4, 0)), {"a": "an/sae"}), ModelError, "stability: a: a str is no SAE"),  # type: ignore[dict-item]
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_input_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = anisotropic(400, D_IN, rng)
    hate = [int(v) if i % 5 else None for i, v in enumerate(x[:, 4] + x[:, 5] > np.median(x[:, 4] + x[:, 5]))]
    return x, make_embeddings({"hook_fused": x}, labels={"hate": hate}, sources=["a", "b"] * 200)


def test_the_evaluator_measures_significance_as_concept_alignment_does(data):
    x, embeddings = data
    sae, others = tiny_sae(x, d_sae=40, k=6), {"one": tiny_sae(x, d_sae=40, k=6, seed=1)}
    measured = Stability(embeddings, others).evaluate(sae)
    alignment = ConceptAlignment(embeddings, n_bootstrap=0).evaluate(sae)
    given = Stability(embeddings, others, alignment=alignment).evaluate(sae)
    assert measured.to_dict() == given.to_dict()
    pd.testing.assert_frame_equal(table_of(measured), table_of(given))
    assert table_of(measured)["significant"].sum() > 0
    corrected = table_of(alignment)[table_of(alignment)["protocol"] == "corrected"]
    expected = set(corrected.loc[corrected["q_global"] < 0.05, "latent"])
    table = table_of(measured)
    assert set(table.loc[table["significant"].fillna(False), "latent"]) == expected
    latents = encode(sae, embeddings)
    np.testing.assert_allclose(table["firing_rate"], (latents.csr().toarray() > 0).mean(axis=0))
    assert measured.columns.keys() == set(table.columns)


def test_zscored_directions(data):
    x, embeddings = data
    sae, other = tiny_sae(x, d_sae=40, k=6), tiny_sae(x, d_sae=40, k=6, seed=1)
    result = Stability(embeddings, {"one": other}).evaluate(sae)
    std = x[embeddings.rows("train")].std(axis=0)
    mine, theirs = (s.W_dec.detach().numpy() / std for s in (sae, other))
    cosines = directions(mine).rows @ directions(theirs).rows.T
    alive = np.ix_(*((encode(s, embeddings).csr().toarray() > 0).any(axis=0) for s in (sae, other)))
    rows, columns = linear_sum_assignment(cosines[alive], maximize=True)
    assert result.numbers["one/mean_cosine"] == pytest.approx(cosines[alive][rows, columns].mean(), rel=1e-4)


@pytest.mark.parametrize("value", [0.3, 1e30, 4e-33])
def test_a_dimension_that_does_not_vary_counts_nothing(data, value):
    """Divided by a standard deviation of almost 0 it would be all of every direction, and all latents the same."""
    x, _ = data
    flat, narrow = x.copy(), np.delete(x, 7, axis=1)
    flat[:, 7] = value
    results = []
    for memes_, part in ((flat, slice(None)), (narrow, np.arange(D_IN) != 7)):
        saes = [sae_of(rows_of(30, seed)[:, part]) for seed in (0, 1)]
        for sae in saes:
            sae.W_enc.data[...] = torch.from_numpy(np.random.default_rng(3).standard_normal((D_IN, 30))[part])
            if memes_ is flat:
                sae.W_enc.data[7] = 0
        results.append(Stability(make_embeddings({"hook_fused": memes_}), {"one": saes[1]}).evaluate(saes[0]))
    with_it, without = (result.numbers for result in results)
    for key in ("share_above_0.5", "mean_cosine", "mean_nearest_cosine", "mean_jaccard"):
        assert with_it[f"one/{key}"] == pytest.approx(without[f"one/{key}"], abs=1e-5), key
    assert with_it["one/mean_cosine"] < 0.6


def test_memes_that_are_all_alike_have_no_stable_latents():
    alike = make_embeddings({"hook_fused": np.ones((40, D_IN))})
    result = stability(sae_of(rows_of(8, 0)), {"one": sae_of(rows_of(8, 1))}, alike, zscored=True)
    assert result.numbers["n_alive"] == 0
    assert result.numbers["mean/share_above_0.7"] is result.verdict is None
    raw = stability(sae_of(rows_of(8, 0)), {"one": sae_of(rows_of(8, 1))}, alike)
    assert raw.numbers["one/mean_correlation"] is None, "constant activations have no correlation"
    assert raw.numbers["one/mean_jaccard"] is not None


def test_it_conforms_without_labels(data):
    x, _ = data
    others = {"one": tiny_sae(x, d_sae=24, k=4, seed=1), "wide": tiny_sae(x, d_sae=30, k=4, seed=2)}
    plain = make_embeddings({"hook_fused": x})
    result = check_evaluator(lambda e: Stability(e, others, n_bootstrap=5), tiny_sae(x, d_sae=24, k=4), plain)
    assert result.reasons["significance/odds_ratio"].startswith("no table of concept alignment")
