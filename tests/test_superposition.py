"""Superposition against the formulas written out, scipy and statsmodels-free loops, and on planted vectors whose truth is known."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hostile
import numpy as np
import pandas as pd
import pytest
import torch
from arrays import make_embeddings
from sae_lens import TopKSAE, TopKSAEConfig
from scipy import sparse
from scipy.stats import false_discovery_control, fisher_exact

from sae_lens_meme.evaluators import Latents, encode
from sae_lens_meme.evaluators.contest import Rows, Targets
from sae_lens_meme.evaluators.superposition import (
    Neurons,
    Projections,
    Superposition,
    answers,
    expected_abs_cosine,
    feature_dimensionality,
    firing,
    geometry,
    interference,
    matched_rates,
    random_directions,
    thresholds,
)

N, D, N_FACTORS = 3_000, 16, 32


# geometry


def test_dimensionality_is_the_formula_written_out():
    rows = np.random.default_rng(0).standard_normal((30, 7)) * np.random.default_rng(1).uniform(0.1, 3, (30, 1))
    found = feature_dimensionality(rows)
    for i, w in enumerate(rows):
        unit = w / np.linalg.norm(w)
        assert found[i] == pytest.approx((w @ w) / sum((unit @ other) ** 2 for other in rows))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.eye(5), 1),
        (np.vstack([np.eye(5), -np.eye(5)]), 1 / 2),  # antipodal pairs
        ([[np.cos(t), np.sin(t)] for t in np.arange(3) * 2 * np.pi / 3], 2 / 3),  # a triangle
        ([[np.cos(t), np.sin(t)] for t in np.arange(5) * 2 * np.pi / 5], 2 / 5),  # a pentagon
        (np.ones((4, 3)), 1 / 4),
    ],
)
def test_dimensionality_of_the_shapes_in_the_paper(rows, expected):
    np.testing.assert_allclose(feature_dimensionality(np.asarray(rows, float)), expected)


@pytest.mark.parametrize("seed", range(10))
def test_the_sum_is_at_most_the_rank(seed):
    rng = np.random.default_rng(seed)
    n, d, rank = rng.integers(2, 40), rng.integers(2, 20), rng.integers(1, 10)
    rows = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) * rng.exponential(1, (n, 1))
    assert feature_dimensionality(rows).sum() <= np.linalg.matrix_rank(rows) + 1e-9


def test_interference_is_that_of_a_loop_also_over_blocks():
    unit = random_directions(1_100, 5, seed=0)
    mean, largest = interference(unit)
    for i in (0, 511, 512, 1_099):
        cosines = np.abs(np.delete(unit, i, axis=0) @ unit[i])
        assert mean[i] == pytest.approx(cosines.mean(), rel=1e-5)
        assert largest[i] == pytest.approx(cosines.max(), rel=1e-5)


def test_a_direction_without_length_is_in_no_number():
    rows = np.vstack([np.eye(3), np.zeros(3)])
    found = geometry(rows)
    assert found.dimensionality[:3].tolist() == [1, 1, 1]
    assert found.max_abs_cosine[:3].tolist() == [0, 0, 0]
    assert np.isnan([of[3] for of in found]).all()


@pytest.mark.parametrize("d", [2, 3, 16, 128])
def test_random_directions_are_as_the_closed_forms_say(d):
    drawn = random_directions(2_000, d, seed=1)
    found = geometry(drawn)
    assert found.mean_abs_cosine.mean() == pytest.approx(expected_abs_cosine(d), rel=0.02)
    assert found.dimensionality.mean() == pytest.approx(1 / (1 + 1_999 / d), rel=0.02)


# units that fire as often


@pytest.mark.parametrize("units", [Neurons(20), Projections(random_directions(300, 20, 0))])
def test_units_fire_on_as_many_selecting_memes_as_asked(units):
    rng = np.random.default_rng(0)
    z, n_active = rng.standard_normal((500, 20)).astype(np.float32), rng.integers(0, 400, len(units))
    cut = thresholds(units, z[:400], n_active)
    fires = firing(units, [z[:77], z[77:400], z[400:]], cut).toarray() > 0
    assert fires[:400].sum(axis=0).tolist() == n_active.tolist()
    directions = np.vstack([np.eye(20), -np.eye(20)]) if isinstance(units, Neurons) else units.directions
    np.testing.assert_array_equal(fires, z @ directions.T >= cut)


def test_tied_values_fire_together():
    z = np.array([[1], [1], [0], [0]], np.float32)
    cut = thresholds(Neurons(1), z, np.array([1, 3]))
    assert firing(Neurons(1), [z], cut).toarray().T.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_rates_are_those_of_the_latents_that_fire():
    n_active = np.array([0, 5, 9, 0, 2])
    assert sorted(matched_rates(n_active, 3, np.random.default_rng(0))) == [2, 5, 9]
    many = matched_rates(n_active, 3_000, np.random.default_rng(0))
    assert set(many) == {2, 5, 9}
    assert abs((many == 5).mean() - 0.5) < 0.01  # the quantiles between
    assert matched_rates(np.zeros(4, int), 2, np.random.default_rng(0)).tolist() == [0, 0]


def some_targets(codes: np.ndarray) -> Targets:
    n = codes.shape[1]
    names = tuple(f"t{i}" for i in range(n))
    return Targets(names, codes.astype(np.uint8), np.full(n, "labels"), np.array([f"f{i // 2}" for i in range(n)]))


def test_answers_are_fishers_tests_chosen_on_some_memes_and_confirmed_on_others():
    rng = np.random.default_rng(1)
    truth = rng.random((600, 4)) < 0.3
    fires = rng.random((600, 12)) < 0.1 + 0.12 * truth[:, rng.integers(0, 4, 12)]
    codes = np.where(rng.random((600, 4)) < 0.1, 0, 1 + truth)
    rows = Rows(np.arange(300), np.arange(300, 400), np.arange(400, 600), "test", np.zeros(600, np.int64))
    found = answers(sparse.csr_matrix(fires.astype(np.float32)), some_targets(codes), rows, 0.05)

    def p(which: np.ndarray) -> np.ndarray:
        out = np.empty((12, 4))
        for u in range(12):
            for t in range(4):
                known = which[codes[which, t] > 0]
                f, y = fires[known, u], codes[known, t] == 2
                table = [[(f & y).sum(), (f & ~y).sum()], [(~f & y).sum(), (~f & ~y).sum()]]
                out[u, t] = fisher_exact(table, alternative="greater").pvalue
        return out

    selected = false_discovery_control(p(np.arange(400)).ravel()).reshape(12, 4) < 0.05
    confirmed = selected & (p(np.arange(400, 600)) < 0.05)
    assert 2 < confirmed.sum() < selected.sum() < 30
    np.testing.assert_array_equal(found.selected, selected)
    np.testing.assert_array_equal(found.confirmed, confirmed)


def test_values_of_one_factor_count_once_and_so_does_one_question_twice():
    codes = np.random.default_rng(2).integers(1, 3, (50, 4))
    codes[:, 2] = codes[:, 0]  # another factor's value that is the same question
    found = answers(
        sparse.csr_matrix((codes[:, :1] == 2).astype(np.float32)), some_targets(codes), all_rows(50), alpha=0.05
    )
    for confirmed, expected in (([1, 1, 0, 0], 1), ([1, 0, 1, 0], 1), ([1, 0, 0, 1], 2), ([0, 0, 0, 0], 0)):
        mine = found._replace(confirmed=np.array([confirmed], dtype=bool))
        assert mine.factors(some_targets(codes)).tolist() == [expected]


def all_rows(n: int) -> Rows:
    return Rows(np.arange(n // 2), np.empty(0, np.int64), np.arange(n // 2, n), "test", np.zeros(n, np.int64))


# planted vectors: twice as many factors as dimensions


@pytest.fixture(scope="module")
def planted() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    truth = rng.random((N, N_FACTORS)) < 0.08
    directions = random_directions(N_FACTORS, D, seed=3)
    x = (truth * rng.uniform(1, 1.5, truth.shape)) @ directions + 0.05 * rng.standard_normal((N, D))
    memes = make_embeddings({"hook_fused": x}, sources=["a", "b"] * (N // 2))
    factors = pd.DataFrame({"id": memes.ids} | {f"f{i}": truth[:, i] for i in range(N_FACTORS)})
    key = SimpleNamespace(factors=factors, kinds={f"f{i}": "visual" for i in range(N_FACTORS)})
    sae = sae_of(directions)
    latents = Latents.from_csr(sparse.csr_matrix(truth * 1.0))  # latent i is factor i
    result = Superposition(memes, key=key, shuffled=sae_of(random_directions(40, D, 4)), n_bootstrap=50)
    return SimpleNamespace(**locals() | {"evaluator": result, "result": result.evaluate(sae, latents=latents)})


def sae_of(directions: np.ndarray) -> TopKSAE:
    n, d = directions.shape
    sae = TopKSAE(TopKSAEConfig(d_in=d, d_sae=n, k=4, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False))
    sae.cfg.metadata.hook_name = "hook_fused"
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(directions.T))
        sae.W_dec.copy_(torch.from_numpy(directions))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae.eval()


def test_latents_of_one_thing_each_answer_to_one_thing_and_neurons_to_several(planted):
    numbers = planted.result.numbers
    assert numbers["n_targets"] == N_FACTORS
    assert numbers["sae/share_answering"] == 1
    assert numbers["sae/targets"] < 1.3
    assert numbers["sae/share_one_target"] > 0.8
    for name in ("neurons", "random"):
        assert numbers[f"{name}/targets"] > 2.5
        assert numbers[f"{name}/targets_low"] > numbers["sae/targets_high"]
        assert numbers[f"{name}/share_one_target"] < 0.3
    assert numbers["permuted/share_answering"] < 0.02
    assert "on average to 1." in planted.result.verdict


def test_all_units_fire_as_often(planted):
    rates = planted.result.table.groupby("units")["firing_rate"].mean()
    for name in ("neurons", "random"):
        assert rates[name] == pytest.approx(rates["sae"], rel=0.02)


def test_the_table_names_what_each_unit_answers_to(planted):
    table = planted.result.table
    ours = table[table["units"] == "sae"]
    assert ours["unit"].tolist() == [*range(N_FACTORS)]
    assert all(f"f{unit}=True" in found for unit, found in zip(ours["unit"], ours["targets"], strict=True))
    assert planted.result.numbers["sae/targets"] == pytest.approx(ours["n_targets"].mean())
    assert len(table[table["units"] == "neurons"]) == 2 * D


def test_geometry_is_that_of_zscored_decoder_rows_beside_as_many_random_ones(planted):
    train = planted.memes.take("hook_fused", planted.memes.rows("train")).astype(float)
    rows = planted.directions / train.std(axis=0, ddof=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = np.abs(rows @ rows.T)
    numbers = planted.result.numbers
    assert numbers["n_dimensions"] == D
    assert numbers["sae/sum_dimensionality"] == pytest.approx((1 / (cosines**2).sum(axis=1)).sum(), rel=1e-4)
    np.fill_diagonal(cosines, 0)
    assert numbers["sae/mean_abs_cosine"] == pytest.approx(cosines.sum() / (N_FACTORS * (N_FACTORS - 1)), rel=1e-4)
    assert numbers["sae/max_abs_cosine"] == pytest.approx(cosines.max(axis=1).mean(), rel=1e-4)
    assert numbers["random/sum_dimensionality"] == pytest.approx(N_FACTORS * D / (N_FACTORS + D - 1), rel=0.1)
    assert numbers["random_mean_abs_cosine_expected"] == pytest.approx(expected_abs_cosine(D))
    assert numbers["shuffled_data/sum_dimensionality"] <= D


def test_latents_that_never_fire_are_in_no_number(planted):
    few = Latents.from_csr(sparse.csr_matrix(planted.truth * (np.arange(N_FACTORS) < 20) * 1.0))
    found = planted.evaluator.evaluate(planted.sae, latents=few)
    assert found.numbers["sae/n_units"] == 20
    assert (found.table["units"] == "sae").sum() == 20
    assert found.numbers["sae/sum_dimensionality"] < planted.result.numbers["sae/sum_dimensionality"]


def test_more_latents_than_random_directions_are_asked(planted, monkeypatch):
    monkeypatch.setattr("sae_lens_meme.evaluators.superposition.evaluator.MOST_RANDOM", 10)
    found = planted.evaluator.evaluate(planted.sae, latents=planted.latents)
    random = found.table[found.table["units"] == "random"]
    assert random["n_targets"].notna().sum() == 10
    assert random["dimensionality"].notna().sum() == N_FACTORS
    assert found.numbers["random/sum_dimensionality"] == planted.result.numbers["random/sum_dimensionality"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "no label and no planted value has"),
        ({"splits": ["train"] * N}, "train memes and test or validation memes"),
    ],
)
def test_without_targets_the_geometry_stays(planted, options, reason):
    memes = make_embeddings({"hook_fused": planted.x}, **options)
    found = Superposition(memes).evaluate(planted.sae)
    assert reason in found.reasons["sae/targets"]
    assert found.numbers["sae/sum_dimensionality"] > 0
    assert found.verdict.startswith("Their directions use")


def test_where_the_decoder_has_no_fixed_rows_the_answers_stay(planted):
    sae = sae_of(planted.directions)
    sae.cfg.normalize_activations = "layer_norm"
    found: Any = Superposition(planted.memes, key=planted.key, n_bootstrap=0).evaluate(sae, latents=planted.latents)
    assert found.numbers["sae/targets"] == planted.result.numbers["sae/targets"]
    assert "no fixed rows" in found.reasons["sae/sum_dimensionality"]
    assert "dimensions" not in found.verdict


def test_an_sae_that_is_silent_answers_to_nothing(planted):
    silent = Latents(np.zeros((N, 1), np.int32), np.zeros((N, 1), np.float32), N_FACTORS)
    found = planted.evaluator.evaluate(planted.sae, latents=silent)
    assert found.numbers["sae/n_units"] == 0
    assert found.numbers["sae/share_answering"] is None
    assert found.numbers["sae/sum_dimensionality"] is None
    assert "responds to any" in found.verdict
    assert encode(planted.sae, planted.memes).d_sae == N_FACTORS


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(lambda memes: Superposition(memes, n_bootstrap=5, n_permutations=1), case)
