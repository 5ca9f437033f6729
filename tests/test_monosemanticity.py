# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
"""Monosemanticity against the sum over pairs, its jackknife against deleting, its chance against permuting."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.evaluators import Latents, encode
from sae_lens_meme.evaluators.controls import directions
from sae_lens_meme.evaluators.monosemanticity import (
    Measurement,
    Monosemanticity,
    Panel,
    PanelUnits,
    Scores,
    compute,
    measures_of,
    measures_of_draws,
    moves,
    panel,
    permutation_draws,
    score,
)
from sae_lens_meme.evaluators.monosemanticity.quantities import CHANCE, N_LATENTS, SIGNIFICANT, Judge, OfReference
from sae_lens_meme.evaluators.result import Measure
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg

IMAGE, TEXT, CROSS = "hook_image_embed", "hook_text_embed", "cross_modal"
SIDES = {IMAGE: (IMAGE, IMAGE), TEXT: (TEXT, TEXT), CROSS: (IMAGE, TEXT)}
ALWAYS, SILENT, SINGLE, CONSTANT, PAIR = 1, 2, 3, 4, 5
N, D_SAE = 60, 30


def activations(n: int = N, d_sae: int = D_SAE, seed: int = 0, rate: float = 0.25) -> np.ndarray:
    """float32 [n, d_sae], with latents that fire always, never, once, always alike, and twice."""
    rng = np.random.default_rng(seed)
    z = (rng.random((n, d_sae)) < rate) * rng.exponential(size=(n, d_sae))
    z[:, ALWAYS] = 3 + rng.random(n)
    z[:, [SILENT, SINGLE, PAIR]] = 0
    z[:, CONSTANT] = 2
    z[4, SINGLE] = 1
    z[[3, 9], PAIR] = 1, 2
    return z.astype(np.float32)


def latents_of(z: np.ndarray) -> Latents:
    return Latents.from_csr(sparse.csr_matrix(z))


def memes(n: int = N, seed: int = 0, d: int = 12, **columns) -> Embeddings:
    rng = np.random.default_rng(seed)
    hooks = {IMAGE: anisotropic(n, d, rng), TEXT: anisotropic(n, d, rng)}
    return make_embeddings(hooks, **{"sources": [("a", "b", "b")[i % 3] for i in range(n)], **columns})


def numbers_of(measured: Measurement, name: str = IMAGE) -> dict[str, float | None]:
    return {q.key: measure.value for q, measure in measures_of(measured, name, "sae", "rows", 99).items()}


def permuted_numbers_of(measured: Measurement, name: str = IMAGE) -> dict[str, float | None]:
    return {q.key: measure.value for q, measure in measures_of_draws(measured, name, "permuted", "rows", 99).items()}


def panel_of(embeddings: Embeddings, hooks=(IMAGE, TEXT)) -> Panel:
    return Panel.of(embeddings, np.arange(len(embeddings)), None, hooks)


def unit(embeddings: Embeddings, hook: str) -> np.ndarray:
    x = embeddings.take(hook, np.arange(len(embeddings))).astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scaled(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (z - z.min(0)) / (z.max(0) - z.min(0))


def naive(a: np.ndarray, left: np.ndarray, right: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """The definition: every ordered pair of different memes, one at a time."""
    b = a if b is None else b
    similar, weight = np.zeros(a.shape[1]), np.zeros(a.shape[1])
    for n, m in product(range(len(a)), repeat=2):
        if n != m:
            similar += a[n] * b[m] * (left[n] @ right[m])
            weight += a[n] * b[m]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight != 0, similar / weight, np.nan)


def quick(a: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The same from the matrix of cosines."""
    cosine, others = left @ right.T, 1 - np.eye(len(a))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("nf,nm,mf->f", a, cosine * others, a) / np.einsum("nf,nm,mf->f", a, others, a)


@pytest.mark.parametrize("name", SIDES)
def test_it_is_the_sum_over_pairs(name):
    """Also where a latent always fires (the smallest activation is scaled to 0), and NaN where metric.py has NaN."""
    embeddings, z = memes(), activations()
    found = score(PanelUnits.of(latents_of(z)), panel_of(embeddings))[name]
    expected = naive(scaled(z), *(unit(embeddings, hook) for hook in SIDES[name]))
    np.testing.assert_allclose(found.ms, expected, atol=1e-10)
    assert np.isnan(found.ms[[SILENT, SINGLE, CONSTANT]]).all()
    assert np.isfinite(found.ms[[ALWAYS, PAIR]]).all()


def test_two_sides_with_different_latents_are_the_sum_over_pairs():
    embeddings = memes()
    image, text = activations(seed=1), activations(seed=2)
    units = PanelUnits.of(latents_of(image), latents_of(text))
    found = score(units, panel_of(embeddings), side=(0, 1))
    i, t = unit(embeddings, IMAGE), unit(embeddings, TEXT)
    np.testing.assert_allclose(found[CROSS].ms, naive(scaled(image), i, t, scaled(text)), atol=1e-10)
    np.testing.assert_allclose(found[IMAGE].ms, naive(scaled(image), i, i), atol=1e-10)
    np.testing.assert_allclose(found[TEXT].ms, naive(scaled(text), t, t), atol=1e-10)
    a, b = np.nan_to_num(scaled(image)), np.nan_to_num(scaled(text))
    for n in (0, 7):  # the jackknife's own ingredient, one meme at a time
        kept = np.arange(N) != n
        change = naive(a[kept], i[kept], t[kept], b[kept]) - found[CROSS].ms
        assert found[CROSS].influence[n] == pytest.approx(np.nansum(change), abs=1e-9)


def test_batches_and_blocks_of_latents_change_nothing(monkeypatch):
    embeddings, units = memes(), PanelUnits.of(latents_of(activations()))
    whole = score(units, panel_of(embeddings))
    calls: list[int] = []
    part = PanelUnits.part
    monkeypatch.setattr(PanelUnits, "part", lambda self, *ends: (calls.append(1), part(self, *ends))[1])
    monkeypatch.setattr(panel, "BATCH", 7)
    monkeypatch.setattr(compute, "SUMS_BYTES", 3 * 8 * 2 * 12)
    parts = score(units, panel_of(embeddings))
    assert len(calls) > 5
    for name in SIDES:
        for field in ("ms", "error", "chance_within_source", "influence"):
            np.testing.assert_allclose(getattr(parts[name], field), getattr(whole[name], field), atol=1e-12)


@pytest.mark.parametrize("name", SIDES)
def test_the_jackknife_deletes_each_meme_in_turn(name):
    """The min-max scaling is held; PAIR has no pair left without one of its memes, and no interval."""
    embeddings, z = memes(), activations()
    counted = np.ones(D_SAE, bool)
    counted[[SILENT, SINGLE, CONSTANT, PAIR]] = False
    found = score(PanelUnits.of(latents_of(z)), panel_of(embeddings), counted)[name]
    a, (left, right) = scaled(z), (unit(embeddings, hook) for hook in SIDES[name])
    kept = [np.arange(N) != n for n in range(N)]
    without = np.array([quick(a[k], left[k], right[k]) for k in kept])
    error = np.sqrt((N - 1) / N * ((without - without.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.error[counted], error[counted], atol=1e-12)
    assert np.isnan(found.error[~counted]).all()
    means = without[:, counted].mean(1)
    error = 1.959964 * np.sqrt((N - 1) / N * ((means - means.mean()) ** 2).sum())
    mean = found.ms[counted].mean()
    np.testing.assert_allclose(found.mean_interval(counted), (mean - error, mean + error), atol=1e-12)


def test_the_jackknife_is_the_bootstrap_over_memes():
    """Pairs of copies of one meme are no pairs: a bootstrap that counts them is biased towards 1."""
    n, rng = 400, np.random.default_rng(0)
    embeddings, z = memes(n), activations(n, rate=0.4)
    found = score(PanelUnits.of(latents_of(z)), panel_of(embeddings, (IMAGE,)))[IMAGE]
    a, cosine = np.nan_to_num(scaled(z)), unit(embeddings, IMAGE) @ unit(embeddings, IMAGE).T
    np.fill_diagonal(cosine, 0)
    draws = []
    for _ in range(400):
        times = np.bincount(rng.integers(0, n, n), minlength=n)[:, None]
        weight = (times * a).sum(0) ** 2 - ((times * a) ** 2).sum(0)
        with np.errstate(invalid="ignore"):
            draws.append(np.einsum("nf,nf->f", times * a, cosine @ (times * a)) / weight)
    spread = np.std(draws, axis=0)
    usual = np.setdiff1d(np.arange(D_SAE), [ALWAYS, SILENT, SINGLE, CONSTANT, PAIR])
    np.testing.assert_allclose(found.error[usual], spread[usual], rtol=0.15)
    assert np.mean(found.error[usual] / spread[usual]) == pytest.approx(1, abs=0.05)


def test_the_interval_covers_the_score_of_the_population():
    """Latents that select two of eight clusters, 40 memes each of 400: the score of 40,000 memes is the truth."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((8, 12))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        cluster = rng.integers(0, 8, n)
        fires = rng.random((n, 40)) < np.where(cluster < 2, 0.25, 0.05)[:, None]
        return fires * rng.exponential(size=(n, 40)), centres[cluster] + rng.standard_normal((n, 12))

    def found(n: int) -> Scores:
        z, x = draw(n)
        return score(PanelUnits.of(latents_of(z)), panel_of(make_embeddings({"hook": x}), ("hook",)))["hook"]

    truth = found(40_000).ms.mean()
    intervals = [found(400).interval for _ in range(8)]
    covered = np.concatenate([(low < truth) & (truth < high) for low, high in intervals])
    assert 0.92 <= covered.mean() <= 0.995


def test_chance_is_the_mean_over_pairs_and_over_all_permutations_within_source():
    """All 3! x 4! ways to hand the activations to memes of the same source."""
    embeddings = make_embeddings(
        {h: anisotropic(7, 5, np.random.default_rng(s)) for s, h in enumerate((IMAGE, TEXT))}, sources=list("abababb")
    )
    z = activations(7 * 2, 12, rate=0.6)[7:]  # a row with and a row without each of the special latents
    panel, a = panel_of(embeddings), np.nan_to_num(scaled(z))
    found = score(PanelUnits.of(latents_of(z)), panel)
    groups = [np.flatnonzero(panel.strata == s) for s in (0, 1)]
    for name, sides in SIDES.items():
        left, right = (unit(embeddings, hook) for hook in sides)
        others = (left @ right.T)[~np.eye(7, dtype=bool)]
        assert found[name].chance == pytest.approx(others.mean(), abs=1e-14)
        every = []
        for orders in product(*(permutations(group) for group in groups)):
            to = np.arange(7)
            for group, order in zip(groups, orders, strict=True):
                to[group] = order
            every.append(quick(a, left[to], right[to]))
        np.testing.assert_allclose(found[name].chance_within_source, np.mean(every, axis=0), atol=1e-12)


@pytest.mark.parametrize("side", [(0, 0), (0, 1)])
def test_p_counts_the_draws_that_reach_the_score(side):
    """The same permutations, the activations moved by hand, the sum over pairs in float64."""
    embeddings = memes()
    panel, image, text = panel_of(embeddings), activations(seed=1), activations(seed=2)
    units = PanelUnits.of(latents_of(image), *([latents_of(text)] if side[1] else []))
    observed = {name: found.ms for name, found in score(units, panel, side=side).items()}
    tested = np.flatnonzero(np.isfinite(observed[CROSS]))
    draws = permutation_draws(units, panel, observed, tested, 40, seed=3, side=side)
    weights = [np.nan_to_num(scaled(z)) for z in (image, text if side[1] else image)]
    hooks = {IMAGE: (weights[0], weights[0]), TEXT: (weights[1], weights[1]), CROSS: (weights[0], weights[1])}
    others, to = 1 - np.eye(N), moves(panel, 40, np.random.default_rng(3))
    assert all((panel.strata[row] == panel.strata).all() for row in to)
    for name, (a, b) in hooks.items():
        left, right = (unit(embeddings, hook) for hook in SIDES[name])
        weight = np.einsum("nf,nm,mf->f", a, others, b)[tested]
        for move, found in zip(to, draws[name].permuted, strict=True):
            moved = np.einsum("nf,nm,mf->f", a, (left[move] @ right[move].T) * others, b)[tested] / weight
            np.testing.assert_allclose(found, moved, atol=1e-5)
        reached = (draws[name].permuted >= draws[name].observed).sum(axis=0)
        np.testing.assert_allclose(draws[name].p, (1 + reached) / 41, atol=1e-12)


def test_the_order_of_memes_does_not_choose_the_draws():
    embeddings, z, order = memes(), activations(), np.random.default_rng(1).permutation(N)
    moved = Embeddings.from_dataset(embeddings.dataset.select(order))
    one, other = (
        Measurement.of(PanelUnits.of(latents_of(active)), panel_of(part), 4.0, 30, seed=0)
        for active, part in ((z, embeddings), (z[order], moved))
    )
    for name in SIDES:
        np.testing.assert_allclose(other.draws[name].permuted, one.draws[name].permuted, atol=1e-5)


def test_the_support_of_two_sides_is_that_of_the_weaker():
    image, text = activations(seed=1), activations(seed=2, rate=0.5)
    units = PanelUnits.of(latents_of(image), latents_of(text))
    alone = [PanelUnits.of(latents_of(z)) for z in (image, text)]
    for side, z in zip(alone, (image, text), strict=True):
        a = np.nan_to_num(scaled(z))
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(side.effective_support, np.nan_to_num(a.sum(0) ** 2 / (a**2).sum(0)), rtol=1e-12)
    np.testing.assert_allclose(units.effective_support, np.minimum(*(side.effective_support for side in alone)))
    assert (units.support == np.minimum(*((z > 0).sum(0) for z in (image, text)))).all()


def null_measurement(
    n_permutations: int = 199, min_support: float = 10.0, n: int = 500, d_sae: int = 300
) -> Measurement:
    """Activations that know nothing of the embeddings; firing rates from 3 to 100 memes."""
    rng = np.random.default_rng(5)
    rate = np.geomspace(3, 100, d_sae) / n
    z = (rng.random((n, d_sae)) < rate) * rng.exponential(size=(n, d_sae))
    x = rng.standard_normal((n, 64)).astype(np.float32)
    panel = panel_of(make_embeddings({IMAGE: x}, sources=["a", "b"] * (n // 2)), (IMAGE,))
    return Measurement.of(PanelUnits.of(latents_of(z)), panel, min_support, n_permutations, seed=0)


def test_where_nothing_is_nothing_is_found():
    measured = null_measurement()
    numbers = numbers_of(measured)
    assert numbers["share_significant"] == 0
    assert permuted_numbers_of(measured)["share_significant"] < 0.01
    assert numbers["p_best"] > 0.05
    p = measured.draws[IMAGE].p
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.04)
    assert p.mean() == pytest.approx(0.5, abs=0.06)
    assert abs(numbers["mean_corrected"]) < 0.005


def test_the_least_support_holds_the_best_of_chance_down():
    """Under the null the best of few memes scores high: its deviation falls as 1 / effective support."""
    few, enough, many = (numbers_of(null_measurement(0, least)) for least in (2, 10, 30))
    assert few["best_unfiltered"] == enough["best_unfiltered"] > 0.25
    assert few["best"] > 0.2
    assert enough["best"] < 0.05
    assert many["best"] < 0.02
    assert enough["n_latents"] < few["n_latents"]


def test_a_latent_that_follows_the_source_is_nothing_within_source():
    """Two sources far apart; one latent fires in one of them at random, another on one cluster of it."""
    rng = np.random.default_rng(0)
    n = 400
    source, cluster = np.arange(n) % 2, rng.integers(0, 2, n)
    x = 3 * np.eye(16)[source] + 2 * np.eye(16)[2 + cluster] + 0.5 * rng.standard_normal((n, 16))
    z = np.zeros((n, 4))
    z[:, 0] = (source == 0) * (rng.random(n) < 0.4)
    z[:, 1] = (source == 0) * (cluster == 0) * (rng.random(n) < 0.8)
    z[:, 2:] = rng.random((n, 2)) < 0.3
    z *= 1 + rng.random(z.shape)
    panel = panel_of(make_embeddings({IMAGE: x}, sources=[("a", "b")[s] for s in source]), (IMAGE,))
    measured = Measurement.of(PanelUnits.of(latents_of(z)), panel, 10.0, 199, seed=0)
    table = measured.table().set_index("latent")
    assert table.ms_corrected[0] > 0.4 > 5 * abs(table.ms_corrected_within_source[0])
    assert table.q[0] > 0.05
    assert table.ms_corrected_within_source[1] > 0.2
    assert table.p[1] == 1 / 200
    assert measured.draws[IMAGE].p_best == 1 / 200


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_order_of_memes_and_the_scale_of_a_latent_change_nothing(seed):
    rng = np.random.default_rng(seed)
    embeddings, z = memes(seed=seed), activations(seed=seed)
    order = rng.permutation(N)
    moved = Embeddings.from_dataset(embeddings.dataset.select(order))
    whole = score(PanelUnits.of(latents_of(z)), panel_of(embeddings))
    permuted = score(PanelUnits.of(latents_of(z[order])), panel_of(moved))
    bigger = score(PanelUnits.of(latents_of(z * 2.0 ** rng.integers(-8, 8, D_SAE))), panel_of(embeddings))
    for name in SIDES:
        for other, tolerance in ((permuted, 1e-12), (bigger, 0.0)):
            np.testing.assert_allclose(other[name].ms, whole[name].ms, atol=tolerance, rtol=0)
            np.testing.assert_allclose(other[name].error, whole[name].error, atol=tolerance, rtol=0)
            np.testing.assert_allclose(
                other[name].chance_within_source, whole[name].chance_within_source, atol=tolerance, rtol=0
            )


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_memes_twice_move_the_score_as_the_sum_over_pairs_says(seed):
    """A copy is a pair of cosine 1: 4 x numerator + sum a^2 over 4 x denominator + sum a^2."""
    embeddings, z = memes(20, seed=seed), activations(20, 8, seed=seed)
    twice = np.tile(np.arange(20), 2)
    copies = make_embeddings({h: embeddings.take(h, twice) for h in (IMAGE, TEXT)}, sources=embeddings.sources[twice])
    once, doubled = (
        score(PanelUnits.of(latents_of(active)), panel_of(part))[IMAGE]
        for active, part in ((z, embeddings), (z[twice], copies))
    )
    a, e = scaled(z), unit(embeddings, IMAGE)
    np.testing.assert_allclose(doubled.ms, naive(a[twice], e[twice], e[twice]), atol=1e-12)
    weight, squares = a.sum(0) ** 2 - (a**2).sum(0), (a**2).sum(0)
    defined = np.isfinite(once.ms)
    expected = (4 * once.ms * weight + 2 * squares) / (4 * weight + 2 * squares)
    np.testing.assert_allclose(doubled.ms[defined], expected[defined], atol=1e-12)


@given(seed=st.integers(0, 10_000), rate=st.floats(0.0, 1.0))
@settings(max_examples=15, deadline=None)
def test_an_undefined_score_is_null_with_a_reason(seed, rate):
    embeddings, z = memes(seed=seed), activations(seed=seed, rate=rate)
    measured = Measurement.of(PanelUnits.of(latents_of(z)), panel_of(embeddings), 10.0, 9, seed=0)
    for name in SIDES:
        table = measured.table().query("reference == @name").set_index("latent")
        assert table.reason[SILENT] == "fires on no meme that is measured"
        assert table.reason[SINGLE] == "fires on one meme only"
        assert table.reason[CONSTANT] == "the same activation on every meme"
        assert table.reason[PAIR] == "effective support below 10: not tested"
        assert (table.reason.isna() == table.p.notna()).all()
        assert (table.loc[table.ms.isna(), "reason"].notna()).all()
        for measure in measures_of(measured, name, "sae", "rows", 9).values():
            assert (measure.value is None) == bool(measure.reason)


def test_memes_with_a_zero_vector_are_left_out_and_counted():
    embeddings, z = memes(), activations()
    x = {hook: embeddings.take(hook, np.arange(N)) for hook in (IMAGE, TEXT)}
    x[TEXT][[5, 11]] = 0
    panel = panel_of(make_embeddings(x, sources=embeddings.sources.tolist()))
    kept = np.setdiff1d(np.arange(N), [5, 11])
    assert panel.n_zero_norm == 2
    assert (panel.rows == kept).all()
    found = score(PanelUnits.of(latents_of(z).rows(panel.rows)), panel)[IMAGE].ms
    e = unit(embeddings, IMAGE)[kept]
    np.testing.assert_allclose(found, quick(np.nan_to_num(scaled(z[kept])), e, e), atol=1e-12)
    x[IMAGE][1:] = 0
    with pytest.raises(DataError, match=r"^monosemanticity: 1 of 60 memes have a vector that is not 0"):
        panel_of(make_embeddings(x))
    x[IMAGE][7, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"hook_image_embed, row 7 .id .meme-7..: holds nan"):
        panel_of(make_embeddings(x))


@pytest.fixture(scope="module")
def trained():
    """An SAE on fused embeddings; image embeddings have four clusters."""
    rng = np.random.default_rng(0)
    n = 400
    x = anisotropic(n, 16, rng) + 0.05 * np.eye(16, dtype=np.float32)[rng.integers(4, 8, n)]
    hooks = {"hook_fused": x, IMAGE: x + 0.002 * rng.standard_normal(x.shape), TEXT: anisotropic(n, 16, rng)}
    embeddings = make_embeddings(hooks, sources=["a", "b"] * (n // 2), model="one")
    return embeddings, tiny_sae(x, d_sae=24, k=6)


@pytest.fixture(scope="module")
def result(trained):
    return Monosemanticity(trained[0], rows="all", n_permutations=99).evaluate(trained[1])


def test_the_numbers_sum_up_the_table(trained, result):
    embeddings, sae = trained
    numbers, table = result.numbers, result.table
    z = encode(sae, embeddings).csr().toarray()
    a, t = np.nan_to_num(scaled(z)), unit(embeddings, TEXT)
    text = table[table.reference == TEXT].set_index("latent")
    np.testing.assert_allclose(text.ms.to_numpy(float, na_value=np.nan), quick(a, t, t), atol=1e-12)
    assert (text.support == (z > 0).sum(0)).all()
    np.testing.assert_allclose(text.effective_support, a.sum(0) ** 2 / (a**2).sum(0), rtol=1e-12)
    for name in SIDES:
        mine = table[table.reference == name].set_index("latent")
        enough = mine[mine.effective_support >= 10]
        at = f"{name}/sae"
        assert numbers[f"{at}/n_latents"] == len(enough) > 10
        assert numbers[f"{at}/mean"] == pytest.approx(enough.ms.mean())
        assert numbers[f"{at}/median"] == pytest.approx(enough.ms.median())
        assert numbers[f"{at}/mean_low"] < numbers[f"{at}/mean"] < numbers[f"{at}/mean_high"]
        assert numbers[f"{at}/mean_corrected"] == pytest.approx(enough.ms_corrected.mean())
        within = (enough.ms - enough.chance_within_source) / (1 - enough.chance_within_source)
        assert numbers[f"{at}/mean_corrected_within_source"] == pytest.approx(within.mean())
        assert numbers[f"{at}/share_significant"] == pytest.approx((enough.q < 0.05).mean())
        assert (numbers[f"{at}/best"], numbers[f"{at}/best_latent"]) == (enough.ms.max(), enough.ms.idxmax())
        assert numbers[f"{at}/mean_unfiltered"] == pytest.approx(mine.ms.mean())
        assert numbers[f"{name}/permuted/mean"] == pytest.approx(enough.chance_within_source.mean(), abs=0.01)
        assert numbers[f"{name}/permuted/best"] <= numbers[f"{name}/permuted/best_max"]
    assert numbers[f"{IMAGE}/sae/share_significant"] > 0.5 > numbers[f"{TEXT}/sae/share_significant"]
    assert numbers[f"{IMAGE}/permuted/share_significant"] < 0.05


def test_a_share_says_of_how_many_latents_it_is(trained, result):
    embeddings, sae = trained
    n = result.numbers[f"{IMAGE}/sae/n_latents"]
    rows = {row["measure"]: row for row in result.rows()}
    share = rows[f"image embeddings: share of {n} (of 24) with q < .05"]
    assert share["value"] == result.numbers[f"{IMAGE}/sae/share_significant"]
    assert share["controls"] == {"permuted": result.numbers[f"{IMAGE}/permuted/share_significant"]}
    mean = rows[f"text embeddings: mean of {result.numbers[f'{TEXT}/sae/n_latents']} latents"]
    controls = {name: f"{TEXT}/{key}" for name, key in (("chance", "chance"), ("permuted", "permuted/mean"))}
    controls["neurons"] = f"{TEXT}/neurons/mean"
    assert mean["controls"] == {name: result.numbers[key] for name, key in controls.items()}
    pairs = result.numbers["uniqueness/n_pairs"]
    top = rows[f"share of {pairs:,} pairs of latents with a common top-16 meme"]
    assert top["controls"] == {"permuted": result.numbers["uniqueness/share_overlapping_permuted"]}
    few = Monosemanticity(embeddings, min_support=15, n_permutations=20, neurons=False).evaluate(sae)
    n = few.numbers[f"{IMAGE}/sae/n_latents"]
    assert 0 < n < 10
    assert f"of {n} tested latents (of 24)" in few.verdict


@pytest.mark.parametrize(
    ("share", "n", "n_draws", "said"),
    [
        (0.0, 400, 199, "(with 199 permutations a share under 10% shows as 0)"),
        (0.0, 400, 999, "(with 999 permutations a share under 2% shows as 0)"),
        (0.1, 400, 199, ""),
        (0.0, 9, 199, ""),  # one of nine at p = 1/200 has q = .045
    ],
)
def test_a_share_that_the_permutations_cannot_show_is_said_in_the_verdict(share, n, n_draws, said):
    p = np.ones(n)
    p[: max(1, round(n / (0.05 * (n_draws + 1))) - 1)] = 1 / (n_draws + 1)
    assert (benjamini_hochberg(np.log(p)) < 0.05).any() == (n == 9), "one latent fewer than that share, at the least p"
    sae = {SIGNIFICANT: SIGNIFICANT(share, "sae"), N_LATENTS: N_LATENTS(n, "sae")}
    judge = Judge(Measure("reference_is_independent", 1, "another encoder"), "two", "judged by two")
    verdict = OfReference(IMAGE, CHANCE(0.3), {"sae": sae}, {}, n_draws).verdict(512, judge)
    said = f" {said}" if said else ""
    assert (
        verdict
        == f"{share:.0%} of {n} tested latents (of 512) fire on memes with similar image embeddings{said}; judged by two."
    )


def test_the_verdict_says_who_judges_and_what_raw_neurons_do(trained, result):
    embeddings, sae = trained
    share, n = (result.numbers[f"{IMAGE}/sae/{key}"] for key in ("share_significant", "n_latents"))
    assert result.verdict.startswith(
        f"{share:.0%} of {n} tested latents (of 24) fire on memes with similar image embeddings"
    )
    low, high = (result.numbers[f"{IMAGE}/sae/mean_{end}"] for end in ("low", "high"))
    other_low, other_high = (result.numbers[f"{IMAGE}/neurons/mean_{end}"] for end in ("low", "high"))
    how = "less so" if other_high < low else "more so" if other_low > high else "no less so"
    assert f"raw neurons {how};" in result.verdict
    assert result.verdict.endswith("the judge is the SAE's own encoder: no independent evidence.")
    given = {"n_permutations": 20, "min_support": 3, "neurons": False}
    other = Embeddings.from_dataset(embeddings.dataset, model="two")
    judged = Monosemanticity(embeddings, reference=other, **given).evaluate(sae)
    assert judged.verdict.endswith("; the judge, two, is an encoder that the SAE does not read.")
    assert "neurons" not in judged.verdict
    few = Monosemanticity(embeddings, **given | {"n_permutations": 19}).evaluate(sae)
    assert few.verdict is few.numbers[f"{IMAGE}/sae/share_significant"] is None
    assert few.reasons[f"{IMAGE}/sae/share_significant"] == "with 19 permutations no p is below 0.05"


def test_the_control_is_raw_neurons_at_equal_l0(trained, result):
    embeddings, sae = trained
    neurons = directions(embeddings, "hook_fused", encode(sae, embeddings).l0)
    measured = Measurement.of(PanelUnits.of(neurons), panel_of(embeddings), 10.0, 0, seed=0)
    expected = numbers_of(measured)
    assert {key: result.numbers[f"{IMAGE}/neurons/{key}"] for key in expected} == expected
    without = Monosemanticity(embeddings, rows="all", n_permutations=0, neurons=False).evaluate(sae)
    assert not any("/neurons/" in key for key in without.numbers)
    assert without.numbers[f"{IMAGE}/sae/p_best"] is None
    assert without.reasons[f"{IMAGE}/sae/p_best"] == without.reasons[f"{IMAGE}/permuted/best"] == "n_permutations is 0"


def test_rows_are_the_held_out_ones_unless_all_are_asked_for(trained):
    embeddings, sae = trained
    settings_ = {"n_permutations": 9, "min_support": 3}
    result = Monosemanticity(embeddings, **settings_).evaluate(sae)
    assert result.numbers["n"] == 60
    assert result.explain["n"] == "test rows that are measured"
    test = Embeddings.from_dataset(embeddings.dataset.select(embeddings.rows("test")), model="one")
    alone = Monosemanticity(test, rows="all", neurons=False, **settings_).evaluate(sae)
    assert {k: v for k, v in result.numbers.items() if "/neurons/" not in k} == pytest.approx(alone.numbers)


def test_the_reference_is_matched_by_id(trained, result):
    """Rows in another order, and memes that nobody asked about."""
    embeddings, sae = trained
    extra = make_embeddings({h: embeddings.take(h, [0]) for h in embeddings.hooks}).dataset.map(
        lambda _: {"id": "other"}
    )
    shuffled = embeddings.dataset.select(np.random.default_rng(0).permutation(len(embeddings)))
    reference = Embeddings.concatenate([Embeddings.from_dataset(part, model="two") for part in (extra, shuffled)])
    again = Monosemanticity(embeddings, rows="all", n_permutations=99, reference=reference).evaluate(sae)
    changed = {"reference_is_independent"}
    assert {k: v for k, v in again.numbers.items() if k not in changed} == pytest.approx(
        {k: v for k, v in result.numbers.items() if k not in changed}
    )
    short = Embeddings.from_dataset(shuffled.select(range(300)))
    with pytest.raises(DataError, match=r"reference: id 'meme-\d+' .row \d+. is not in it, nor are 99 others of 400"):
        Monosemanticity(embeddings, reference=short).evaluate(sae)
    twice = Embeddings.from_dataset(shuffled.select([0, *range(400)]))
    with pytest.raises(DataError, match="is there twice"):
        Monosemanticity(embeddings, reference=twice).evaluate(sae)


@pytest.mark.parametrize(
    ("model", "independent", "said"),
    [(None, 0, "NOT independent"), ("one", 0, "NOT independent"), ("two", 1, "reference is two, the SAE reads one")],
)
def test_it_says_whether_the_reference_is_independent(trained, model, independent, said):
    embeddings, sae = trained
    reference = None if model is None else Embeddings.from_dataset(embeddings.dataset, model=model)
    result = Monosemanticity(embeddings, reference=reference, n_permutations=0, neurons=False).evaluate(sae)
    assert result.numbers["reference_is_independent"] == independent
    assert said in result.explain["reference_is_independent"]
    assert ("NOT independent" in result.explain[f"{IMAGE}/sae/mean"]) == (not independent)


def test_a_reference_without_a_name_is_not_called_independent(trained):
    embeddings, sae = trained
    result = Monosemanticity(
        embeddings, reference=Embeddings.from_dataset(embeddings.dataset), n_permutations=0, neurons=False
    ).evaluate(sae)
    assert result.numbers["reference_is_independent"] is None
    assert "do not name their model" in result.reasons["reference_is_independent"]


def test_references_are_the_modalities_else_the_hook_of_the_sae(trained, result):
    embeddings, sae = trained
    assert list(dict.fromkeys(result.table.reference)) == [IMAGE, TEXT, CROSS]
    fused = make_embeddings({"hook_fused": embeddings.take("hook_fused", np.arange(400))})
    only = Monosemanticity(fused, n_permutations=0, neurons=False).evaluate(sae)
    assert set(only.table.reference) == {"hook_fused"}
    assert only.numbers[CROSS] is None
    assert only.reasons[CROSS].startswith("hook_image_embed and hook_text_embed not among the reference hooks")
    with pytest.raises(DataError, match="hook 'hook_dino' is not in these embeddings; they have hook_fused"):
        Monosemanticity(fused, reference_hooks=["hook_dino"]).evaluate(sae)


def test_modalities_of_different_width_are_not_compared_with_each_other(trained):
    embeddings, sae = trained
    every = np.arange(400)
    wide = make_embeddings(
        {"hook_fused": embeddings.take("hook_fused", every), IMAGE: embeddings.take(IMAGE, every)}
        | {TEXT: embeddings.take(TEXT, every)[:, :7]}
    )
    result = Monosemanticity(wide, n_permutations=9, min_support=3).evaluate(sae)
    assert (
        result.reasons[CROSS] == "hook_image_embed has 16 dimensions and hook_text_embed 7: they are not in one space"
    )
    assert set(result.table.reference) == {IMAGE, TEXT}
    with pytest.raises(DataError, match="both_sides: hook_image_embed has 16 dimensions and hook_text_embed 7"):
        Monosemanticity(wide, both_sides=True).evaluate(sae)


def test_both_sides_are_encoded_and_weighed_apart(trained, result):
    """Picture-side activations weigh picture embeddings, caption-side ones caption embeddings."""
    embeddings, sae = trained
    settings_ = {"rows": "all", "n_permutations": 9, "min_support": 3}
    both = Monosemanticity(embeddings, both_sides=True, **settings_).evaluate(sae)
    image, text = (encode(sae, embeddings, hook).csr().toarray() for hook in (IMAGE, TEXT))
    table, (i, t) = both.table, (unit(embeddings, hook) for hook in (IMAGE, TEXT))
    a, b = np.nan_to_num(scaled(image)), np.nan_to_num(scaled(text))
    others = 1 - np.eye(len(i))
    with np.errstate(invalid="ignore"):
        expected = np.einsum("nf,nm,mf->f", a, (i @ t.T) * others, b) / np.einsum("nf,nm,mf->f", a, others, b)
    for name, ms in ((CROSS, expected), (IMAGE, quick(a, i, i)), (TEXT, quick(b, t, t))):
        found = table[table.reference == name].ms.to_numpy(float, na_value=np.nan)
        np.testing.assert_allclose(found, ms, atol=1e-12)
    with pytest.raises(ConfigError, match="both_sides compares hook_image_embed and hook_text_embed; leave"):
        Monosemanticity(embeddings, both_sides=True, reference_hooks=[TEXT]).evaluate(sae)
    with pytest.raises(DataError, match=r"the sides are 400 memes x 24 latents and 3 memes x 24 latents"):
        PanelUnits.of(encode(sae, embeddings), encode(sae, embeddings).rows(np.arange(3)))


def test_two_sides_that_are_one_give_what_one_gives(trained, result):
    embeddings, sae = trained
    latents = encode(sae, embeddings)
    twice = Measurement.of(PanelUnits.of(latents, latents), panel_of(embeddings), 10.0, 99, seed=0, side=(0, 1))
    for name in SIDES:
        for key, value in numbers_of(twice, name).items():
            assert value == pytest.approx(result.numbers[f"{name}/sae/{key}"], rel=1e-6), key
        for key, value in permuted_numbers_of(twice, name).items():
            assert value == pytest.approx(result.numbers[f"{name}/permuted/{key}"], rel=1e-6), key


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"rows": "train"}, "monosemanticity.rows is 'train', it must be 'held_out' or 'all'"),
        ({"min_support": 1}, "monosemanticity.min_support is 1, it must be"),
        ({"n_permutations": -1}, "monosemanticity.n_permutations is -1, it must be 0 or more"),
        ({"top": 0}, "monosemanticity.top is 0, it must be"),
        ({"min_suport": 3}, "unknown key 'min_suport'; did you mean 'min_support'"),
    ],
)
def test_a_wrong_setting_is_refused(trained, wrong, match):
    with pytest.raises(ConfigError, match=match):
        Monosemanticity(trained[0], **wrong)
    with pytest.raises(ConfigError, match="each once"):
        Monosemanticity(trained[0], reference_hooks=[IMAGE, IMAGE]).evaluate(trained[1])


def test_embeddings_that_are_all_alike_leave_no_room_above_chance(trained):
    _, sae = trained
    rng = np.random.default_rng(0)
    same = np.ones((400, 16), np.float32)
    embeddings = make_embeddings({"hook_fused": anisotropic(400, 16, rng), IMAGE: same}, sources=["a"] * 400)
    result = Monosemanticity(embeddings, min_support=3, n_permutations=20).evaluate(sae)
    numbers = result.numbers
    assert numbers[f"{IMAGE}/sae/mean"] == pytest.approx(1)
    assert numbers[f"{IMAGE}/sae/mean_corrected"] is numbers[f"{IMAGE}/sae/mean_corrected_within_source"] is None
    assert "chance is 1" in result.reasons[f"{IMAGE}/sae/mean_corrected"]
    assert numbers[f"{IMAGE}/sae/share_significant"] == 0
    assert numbers[f"{IMAGE}/sae/p_best"] == 1
