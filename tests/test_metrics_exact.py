"""Exact tests against scipy, statsmodels, rational arithmetic and enumeration."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.multitest import multipletests

from sae_lens_meme.metrics.association import (
    FALSE,
    TRUE,
    UNKNOWN,
    Counter,
    Tables,
    common_odds_ratio,
    f1_always_on,
    f1_ceiling,
    f1_score,
    firing_rate_difference,
)
from sae_lens_meme.metrics.fisher import cmh_greater, fisher_greater, stratified_greater
from sae_lens_meme.metrics.hypergeometric import fill_pmf
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg, benjamini_hochberg_by_concept, rejected


def one(strata: list[tuple[int, int, int, int]]) -> Tables:
    """Tables of one latent and one concept from (a, fires, true, n) a stratum."""
    a, fires, true, n = np.array(strata, dtype=np.int64).T
    return Tables(a[None, None], fires[None, None], true[None], n[None])


def rational_tail(a: int, fires: int, true: int, n: int) -> Fraction:
    ways = (math.comb(true, x) * math.comb(n - true, fires - x) for x in range(a, min(fires, true) + 1))
    return Fraction(sum(ways), math.comb(n, fires))


def log_fraction(p: Fraction) -> float:
    """Exact enough for any size: Python integers have no underflow."""
    shift = p.denominator.bit_length() - p.numerator.bit_length() + 60
    return math.log(p.numerator * 2**shift // p.denominator) - shift * math.log(2)


def stratified_by_enumeration(strata: list[tuple[int, int, int, int]]) -> Fraction:
    """Every combination of tables that has these margins, with its probability."""
    total = sum(a for a, *_ in strata)
    supports = [range(max(0, f + t - n), min(f, t) + 1) for _, f, t, n in strata]
    p = Fraction(0)
    for cells in itertools.product(*supports):
        if sum(cells) >= total:
            terms = (
                Fraction(math.comb(t, x) * math.comb(n - t, f - x), math.comb(n, f))
                for x, (_, f, t, n) in zip(cells, strata, strict=True)
            )
            p += math.prod(terms, start=Fraction(1))
    return p


@st.composite
def stratum(draw: st.DrawFn, largest: int = 14) -> tuple[int, int, int, int]:
    n = draw(st.integers(1, largest))
    fires, true = draw(st.integers(0, n)), draw(st.integers(0, n))
    return draw(st.integers(max(0, fires + true - n), min(fires, true))), fires, true, n


@settings(max_examples=300, deadline=None)
@given(stratum(largest=2000))
def test_fisher_equals_scipy(table):
    a, fires, true, n = table
    p = math.exp(fisher_greater(one([table]))[0, 0])
    cells = [[a, fires - a], [true - a, n - fires - true + a]]
    assert p == pytest.approx(stats.fisher_exact(cells, alternative="greater").pvalue, rel=1e-8, abs=1e-290)


@given(n=st.integers(1, 5_000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_probability_of_a_hypergeometric_equals_scipy(n, data):
    fires, true = (data.draw(st.integers(0, min(n, 60))) for _ in range(2))
    found = np.full(min(fires, true) + 3, -1.0)
    size = fill_pmf(fires, true, n, found)
    assert size == min(fires, true) + 1
    np.testing.assert_allclose(found[:size], stats.hypergeom.pmf(np.arange(size), n, true, fires), rtol=1e-9)
    assert (found[size:] == -1).all()


@pytest.mark.parametrize(
    ("table", "log10_below"),
    [((300, 320, 400, 5000), -200), ((640, 640, 640, 20827), -1000), ((990, 1000, 1000, 100_000), -2000)],
)
def test_fisher_is_right_where_floats_end(table, log10_below):
    expected = log_fraction(rational_tail(*table))
    log_p = fisher_greater(one([table]))[0, 0]
    assert expected / math.log(10) < log10_below
    assert log_p == pytest.approx(expected, abs=1e-10)  # an absolute error of log p is a relative error of p


def test_fisher_near_1e_minus_200_equals_scipy():
    for a in range(200, 260):
        cells = [[a, 320 - a], [400 - a, 5000 - 720 + a]]
        p = stats.fisher_exact(cells, alternative="greater").pvalue
        assert math.exp(fisher_greater(one([(a, 320, 400, 5000)]))[0, 0]) == pytest.approx(p, rel=1e-8)
    assert p < 1e-190


def test_fisher_keeps_its_digits_on_huge_tables():
    a, fires, true, n = 1_030, 100_000, 1_000_000, 100_000_000
    terms = [1.0]
    for x in range(a, a + 500):
        terms.append(terms[-1] * (true - x) * (fires - x) / ((x + 1) * (n - fires - true + x + 1)))
    expected = math.exp(_log_pmf_exactly(a, fires, true, n)) * math.fsum(terms)
    assert math.exp(fisher_greater(one([(a, fires, true, n)]))[0, 0]) == pytest.approx(expected, rel=1e-10)


def _log_pmf_exactly(x: int, fires: int, true: int, n: int) -> float:
    """A product of ratios near 1 or of moderate size: nothing large is subtracted."""
    ratios = [(true - i) * Fraction(1, n - i) * Fraction(fires - i, i + 1) for i in range(x)]
    log = math.fsum(math.log(float(r)) for r in ratios)
    return log + math.fsum(math.log1p(-(true - x) / (n - x - i)) for i in range(fires - x))


@settings(max_examples=200, deadline=None)
@given(st.lists(stratum(), min_size=1, max_size=4))
def test_stratified_test_equals_enumeration(strata):
    informative = any(0 < f < n and 0 < t < n for _, f, t, n in strata)
    log_p = stratified_greater(one(strata))[0, 0]
    if informative:
        assert log_p == pytest.approx(log_fraction(stratified_by_enumeration(strata)), abs=1e-11)
    else:
        assert math.isnan(log_p)


def test_stratified_test_in_the_far_tail_equals_enumeration():
    strata = [(45, 60, 70, 400), (30, 35, 50, 300), (8, 9, 10, 120)]
    expected = log_fraction(stratified_by_enumeration(strata))
    assert expected < -100
    assert stratified_greater(one(strata))[0, 0] == pytest.approx(expected, abs=1e-10)


@settings(max_examples=100, deadline=None)
@given(stratum(largest=3000))
def test_one_stratum_is_fisher(table):
    _, fires, true, n = table
    if 0 < fires < n and 0 < true < n:
        plain, split = fisher_greater(one([table])), stratified_greater(one([table, (3, 5, 9, 9), (0, 0, 4, 9)]))
        assert split[0, 0] == pytest.approx(plain[0, 0], abs=1e-11)


@settings(max_examples=300, deadline=None)
@given(st.lists(stratum(largest=60), min_size=1, max_size=3))
def test_p_up_to_alpha_are_exact_and_the_others_never_below_it(strata):
    """What counts of significant pairs need; that P(A >= a) is at least 1/2 up to the mean is what saves the time."""
    for test in (fisher_greater, stratified_greater):
        exact, quick = test(one(strata))[0, 0], test(one(strata), alpha=0.05)[0, 0]
        if exact <= math.log(0.05) or math.isnan(exact):
            assert quick == exact or math.isnan(quick)
        else:
            assert quick > math.log(0.05)
    informative = [(a, f, t, n) for a, f, t, n in strata if 0 < f < n and 0 < t < n]
    if sum(a for a, *_ in informative) <= sum(Fraction(f * t, n) for _, f, t, n in informative):
        assert math.isnan(exact) or math.exp(exact) >= 0.5 - 1e-12


def test_no_small_p_is_taken_for_1_at_any_count():
    """Every total of two strata with random margins: only the total decides the test."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = rng.integers(5, 40, 2)
        fires, true = rng.integers(1, n), rng.integers(1, n)
        low, high = np.maximum(0, fires + true - n), np.minimum(fires, true)
        for total in range(low.sum(), high.sum() + 1):
            first = min(high[0], total - low[1])
            tables = one([(a, fires[i], true[i], n[i]) for i, a in enumerate((first, total - first))])
            exact, quick = stratified_greater(tables)[0, 0], stratified_greater(tables, alpha=0.05)[0, 0]
            assert quick == exact if exact <= math.log(0.05) else quick > math.log(0.05)


def statsmodels_of(strata: list[tuple[int, int, int, int]]) -> StratifiedTable:
    return StratifiedTable([np.array([[a, f - a], [t - a, n - f - t + a]]) for a, f, t, n in strata])


STRATA = [(30, 80, 200, 700), (12, 50, 90, 800), (40, 100, 300, 900)]


def test_cmh_equals_statsmodels():
    expected = statsmodels_of(STRATA).test_null_odds(correction=False)
    assert 2 * math.exp(cmh_greater(one(STRATA))[0, 0]) == pytest.approx(expected.pvalue, rel=1e-9)


def test_a_stratum_of_one_meme_or_of_none_says_nothing():
    singles = [(1, 1, 1, 1)] * 6 + [(0, 0, 0, 0)]
    assert np.isnan(cmh_greater(one(singles))[0, 0])
    assert cmh_greater(one(STRATA + singles))[0, 0] == pytest.approx(cmh_greater(one(STRATA))[0, 0], rel=1e-12)


def test_common_odds_ratio_equals_statsmodels():
    reference, odds = statsmodels_of(STRATA), common_odds_ratio(one(STRATA))
    assert odds.value[0, 0] == pytest.approx(reference.oddsratio_pooled, rel=1e-12)
    assert (odds.low[0, 0], odds.high[0, 0]) == pytest.approx(reference.oddsratio_pooled_confint(), rel=1e-9)


def test_one_stratum_has_the_sample_odds_ratio_and_woolfs_interval():
    odds = common_odds_ratio(one([(30, 80, 200, 700)]))
    a, b, c, d = 30, 50, 170, 450
    half = 1.959963984540054 * math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    assert odds.value[0, 0] == pytest.approx(a * d / (b * c))
    assert math.log(odds.high[0, 0]) == pytest.approx(math.log(a * d / (b * c)) + half)


def test_undefined_odds_ratios_are_nan():
    never_wrong, silent = one([(5, 5, 10, 20)]), one([(0, 0, 10, 20)])
    assert np.isnan(common_odds_ratio(never_wrong).value).all()
    assert np.isnan(common_odds_ratio(silent).value).all()


def test_large_supports_go_to_cmh_which_agrees_with_the_exact_test():
    small = [(1520, 5000, 30_000, 100_000)] * 3
    exact, approximate = stratified_greater(one(small))[0, 0], cmh_greater(one(small))[0, 0]
    assert exact != approximate
    assert math.exp(exact) == pytest.approx(math.exp(approximate), rel=0.02)
    large = [(90_300, 300_000, 300_000, 1_000_000)] * 3
    assert stratified_greater(one(large))[0, 0] == cmh_greater(one(large))[0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_a_loop(seed):
    rng = np.random.default_rng(seed)
    z = rng.random((60, 9)) * (rng.random((60, 9)) < 0.3)
    codes, strata = rng.integers(0, 3, (60, 4)).astype(np.uint8), rng.integers(0, 3, 60)
    weights = rng.integers(0, 3, 60)
    tables = Counter(sparse.csr_matrix(z.astype(np.float32)), codes, strata).count(weights)
    for i, c, s in np.ndindex(9, 4, 3):
        known = (codes[:, c] != UNKNOWN) & (strata == s)
        fires, true = z[:, i] > 0, codes[:, c] == TRUE
        cells = [fires & true, fires & ~true, ~fires & true, ~fires & ~true]
        assert [int(weights[known & cell].sum()) for cell in cells] == [x[i, c, s] for x in tables.abcd]
    assert (np.sum(tables.pooled, axis=0) == np.array([weights[codes[:, c] != UNKNOWN].sum() for c in range(4)])).all()


def test_stored_zeros_do_not_fire_and_the_order_of_storage_does_not_matter():
    z = np.array([[1.0, 0, 2], [0, 3, 0], [4, 0, 5], [0, 0, 6]], np.float32)
    stored = sparse.csr_matrix(z + 1)
    stored.data = (stored.toarray() - 1).ravel()
    codes, strata = np.array([[1, 2], [2, 2], [2, 0], [1, 1]], np.uint8), np.array([0, 1, 1, 0])
    for active in (stored, sparse.csc_matrix(z), sparse.csr_matrix(z)[:, [2, 0, 1]][:, [1, 2, 0]]):
        tables = Counter(active, codes, strata).count()
        assert tables.fires[:, 0].tolist() == [[1, 1], [0, 1], [2, 1]]
        assert tables.fires_true[:, 0].tolist() == [[0, 1], [0, 1], [0, 1]]
        assert (tables.n.tolist(), tables.true.tolist()) == ([[2, 2], [2, 1]], [[0, 2], [1, 1]])


def test_firing_rate_difference_of_one_source_is_the_plain_one():
    assert firing_rate_difference(one([(30, 80, 200, 700)]))[0, 0] == pytest.approx(30 / 200 - 50 / 500)
    only_true = firing_rate_difference(one([(3, 3, 9, 9)]))
    assert np.isnan(only_true).all()


def test_firing_rate_difference_is_blind_to_sources():
    """Fires on half of one source and nowhere else; the concept is common in that source: no difference within it."""
    assert firing_rate_difference(one([(40, 50, 80, 100), (0, 0, 10, 100)]))[0, 0] == pytest.approx(0)


def test_benjamini_hochberg_equals_statsmodels_and_skips_what_was_not_tested():
    p = np.random.default_rng(0).random(400) ** 4
    log_p = np.log(p)
    log_p[::7] = np.nan
    tested = ~np.isnan(log_p)
    q = benjamini_hochberg(log_p)
    assert np.isnan(q[~tested]).all()
    np.testing.assert_allclose(q[tested], multipletests(p[tested], method="fdr_bh")[1], rtol=1e-12)
    np.testing.assert_array_equal(rejected(log_p, 0.05), q < 0.05)
    above_as_1 = np.where(log_p > np.log(0.05), 0.0, log_p)
    np.testing.assert_array_equal(rejected(above_as_1, 0.05), q < 0.05)
    by_concept = benjamini_hochberg_by_concept(log_p.reshape(100, 4))
    np.testing.assert_array_equal(by_concept[:, 2], benjamini_hochberg(log_p.reshape(100, 4)[:, 2]))


def test_nothing_is_rejected_where_nothing_was_tested():
    nothing = np.full((3, 2), np.nan)
    assert not rejected(nothing, 0.05).any()
    assert np.isnan(benjamini_hochberg(nothing)).all()


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_f1_bounds(true_fired, extra_true, extra_fired):
    hits, true, fired = (np.array([x]) for x in (true_fired, true_fired + extra_true, true_fired + extra_fired))
    n = true + fired
    assert (f1_score(hits, fired, true) <= f1_ceiling(fired, true) + 1e-12).all()
    prevalence = true / n
    np.testing.assert_allclose(f1_always_on(true, n), 2 * prevalence / (1 + prevalence))
    assert np.isnan(f1_score(np.array([0]), fired, np.array([0]))).all()


def test_codes_are_what_the_kernels_expect():
    assert (UNKNOWN, FALSE, TRUE) == (0, 1, 2)
