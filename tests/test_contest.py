"""The contest against naive loops, scikit-learn, SAELens and SAEBench, and on planted vectors whose truth is known."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalOperand=false
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from arrays import make_embeddings
from sae_lens import TopKSAE, TopKSAEConfig
from sae_lens.synthetic import mean_correlation_coefficient
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import EvaluateOptions, Unavailable, encode, names
from sae_lens_meme.evaluators.contest import (
    Biased,
    Contest,
    LinearProbes,
    Rows,
    Targets,
    Tie,
    Units,
    absorption,
    auroc_of,
    best_units,
    biased_probes,
    chosen,
    correlation_of,
    effects,
    f1_of,
    fit_few,
    k_sparse,
    mean_differences,
    one_to_one,
    resampled,
    scr,
    special_cases,
    tpp,
)
from sae_lens_meme.evaluators.contest.compute import Event
from sae_lens_meme.evaluators.contest.matched import Matched, correlations
from sae_lens_meme.evaluators.contest.probing import linear_probes
from sae_lens_meme.evaluators.contest.standings import Standings
from sae_lens_meme.evaluators.context import Context

GOLDEN = json.loads((Path(__file__).parent / "saebench_golden.json").read_text())
"""Written by scripts/saebench_golden.py."""
UNKNOWN, FALSE, TRUE = 0, 1, 2
N, D, N_FACTORS, ACTIVE = 3_000, 24, 48, 3
QUICK: dict[str, Any] = {
    "concepts": [f"label_{i}=1" for i in range(8)],
    "controls": ["neurons", "pca", "random"],
    "ks": [1, 2],
    "ns": [1, 5],
    "n_permutations": 1,
    "n_bootstrap": 50,
}


# planted vectors: more factors than dimensions


@pytest.fixture(scope="module")
def planted() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    truth = rng.random((N, N_FACTORS)) < ACTIVE / N_FACTORS
    directions = rng.standard_normal((N_FACTORS, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = ((truth * rng.uniform(1, 2, truth.shape)) @ directions + 0.05 * rng.standard_normal((N, D))).astype(np.float32)
    labels = {f"label_{i}": truth[:, i].astype(int).tolist() for i in range(8)}
    memes = make_embeddings({"hook_fused": x}, labels=labels, sources=["a", "b"] * (N // 2))
    factors = pd.DataFrame({"id": memes.ids} | {f"f{i}": truth[:, i] for i in range(N_FACTORS)})
    key = SimpleNamespace(factors=factors, kinds={f"f{i}": "visual" for i in range(N_FACTORS)})
    return SimpleNamespace(x=x, truth=truth, directions=directions, memes=memes, key=key)


def topk_sae(x: np.ndarray, directions: np.ndarray, k: int = ACTIVE, steps: int = 0, seed: int = 0) -> TopKSAE:
    """A TopK SAE with these decoder rows, and trained on from there."""
    config = TopKSAEConfig(
        d_in=x.shape[1], d_sae=len(directions), k=k, apply_b_dec_to_input=True, rescale_acts_by_decoder_norm=False
    )
    sae = TopKSAE(config)
    sae.cfg.metadata.hook_name = "hook_fused"
    with torch.no_grad():
        sae.W_dec.copy_(torch.from_numpy(directions))
        sae.W_enc.copy_(torch.from_numpy(directions.T))
        sae.b_enc.zero_()
        sae.b_dec.copy_(torch.from_numpy(x.mean(0)) if steps else torch.zeros(x.shape[1]))
    optimizer, generator = torch.optim.Adam(sae.parameters(), 1e-2), torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(x)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (256,), generator=generator)]
        loss = (sae.decode(sae.encode(batch)) - batch).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return sae.eval()


@pytest.fixture(scope="module")
def trained(planted) -> TopKSAE:
    start = np.random.default_rng(1).standard_normal((N_FACTORS, D)).astype(np.float32)
    train = planted.x[planted.memes.rows("train")]
    return topk_sae(train, start / np.linalg.norm(start, axis=1, keepdims=True), steps=600)


@pytest.fixture(scope="module")
def result(planted, trained) -> Any:
    other = topk_sae(planted.x, np.random.default_rng(2).standard_normal((64, D)).astype(np.float32))
    contest = Contest(planted.memes, key=planted.key, shuffled=other, seeds={"seed_1": trained}, **QUICK)
    return contest.evaluate(trained)


@pytest.mark.whole
def test_the_true_dictionary_leads_and_the_sae_beats_every_control(planted, trained, result):
    oracle = topk_sae(planted.x, planted.directions.astype(np.float32))
    true = Contest(planted.memes, key=planted.key, **QUICK | {"controls": ["neurons"]}).evaluate(oracle).numbers
    found = result.numbers
    rivals = ("neurons", "pca", "random", "neurons_k", "pca_k", "random_k", "shuffled_data")
    for key in ("planted/mcc", "planted/auroc", "planted/k_sparse_1", "planted/tpp_5"):
        assert true[f"{key}/sae"] > max(found[f"{key}/{rival}"] for rival in rivals), key
        assert all(found[f"{key}/sae_minus_{rival}_low"] > 0 for rival in rivals), key
    assert found["planted/mcc/sae"] > 2 * max(found[f"planted/mcc/{rival}"] for rival in rivals)
    assert found["planted/mcc/sae"] > true["planted/mcc/sae"] - 0.2
    assert found["planted/auroc/permuted_labels"] == pytest.approx(0.5, abs=0.03)
    assert found["planted/auroc/linear_probe"] > 0.9


@pytest.mark.whole
def test_the_verdict_and_the_sections_say_what_the_numbers_say(result):
    assert result.verdict.startswith("On these 8 labels the SAE ties dense neurons (AUROC .")
    assert "and beats neurons of equal sparsity by ." in result.verdict
    notes = {section["title"]: section["note"] for section in result.sections()}
    assert notes["Recovery of planted values"].startswith("In one-to-one recovery (MCC) the SAE leads all 7 rivals.")
    assert [s["title"] for s in result.sections() if s["axis"]] == [
        "Best unit for a label",
        "k-sparse probes of the labels",
        "Recovery of planted values",
    ]
    assert len(result.rows()) <= 26
    first = result.rows()[0]
    assert {"neurons", "PCA", "neurons k", "random k", "shuffled", "permuted", "probe"} <= first["controls"].keys()


@pytest.mark.whole
def test_a_rival_that_was_not_fitted_to_the_end_is_named_in_the_notes(planted, trained, monkeypatch):
    def notes() -> dict[str, str]:
        found = Contest(planted.memes, key=planted.key, **QUICK | {"controls": ["ica"]}).evaluate(trained)
        return {section["title"]: section["note"] for section in found.sections()}

    monkeypatch.setattr("sae_lens_meme.evaluators.controls.ICA_WORK", 10**9)
    assert not any("converge" in note for note in notes().values())
    monkeypatch.setattr("sae_lens_meme.evaluators.controls.ICA_WORK", 1)
    monkeypatch.setattr("sae_lens_meme.evaluators.controls.ICA_COMPONENTS", 1)
    stopped = notes()
    for title in ("Best unit for a label", "Recovery of planted values"):
        assert "ICA did not converge in 1 step: its components are not independent yet." in stopped[title]


def test_the_table_has_a_row_for_each_set_estimator_and_k(result):
    table = result.table
    means = table[table["target"] == "all"]
    assert not means.duplicated(["targets", "estimator", "k", "units"]).any()
    one = means[(means["targets"] == "planted") & (means["estimator"] == "mcc")].set_index("units")
    assert one.loc["neurons", "sae_minus"] == pytest.approx(one.loc["sae", "value"] - one.loc["neurons", "value"])
    assert one.loc["sae", "value"] == result.numbers["planted/mcc/sae"]
    assert one.loc["sae", "seeds_sd"] == 0, "the same SAE twice"
    assert one.loc["neurons", "sparsity"] == "dense"
    assert one.loc["neurons_k", "sparsity"] == "k"
    targets = table[(table["targets"] == "labels") & (table["estimator"] == "auroc") & (table["units"] == "sae")]
    mean = targets[targets["target"] != "all"]["value"].mean()
    assert mean == pytest.approx(result.numbers["labels/auroc/sae"])


def test_an_sae_that_loses_is_said_to_lose(planted):
    blind = topk_sae(planted.x, np.random.default_rng(3).standard_normal((8, D)).astype(np.float32), k=1)
    options = QUICK | {"controls": ["neurons"]}
    verdict = Contest(planted.memes, **options).evaluate(blind).verdict
    assert verdict.startswith("On these 8 labels the SAE trails dense neurons")


# what is right by definition


def some(n: int = 300, n_units: int = 9, n_targets: int = 4, seed: int = 0) -> SimpleNamespace:
    """Sparse units and targets with unknown memes, two sources, three splits."""
    rng = np.random.default_rng(seed)
    codes = rng.choice([UNKNOWN, FALSE, TRUE], (n, n_targets), p=[0.2, 0.5, 0.3]).astype(np.uint8)
    acts = np.maximum(rng.standard_normal((n, n_units)) + (codes == TRUE) @ rng.random((n_targets, n_units)), 0)
    acts = acts.astype(np.float32)
    split = rng.permutation(np.repeat(["train", "validation", "test"], [n // 2, n // 4, n - n // 2 - n // 4]))
    train, validation, test = (np.flatnonzero(split == s) for s in ("train", "validation", "test"))
    rows = Rows(train, validation, test, "test", rng.integers(0, 2, n))
    return SimpleNamespace(acts=acts, codes=codes, rows=rows, targets=targets_from(codes))


def targets_from(codes: np.ndarray, group: str = "planted") -> Targets:
    names = tuple(f"t{i}" for i in range(codes.shape[1]))
    return Targets(names, codes.astype(np.uint8), np.full(len(names), group), np.array(names))


def sparse_units(acts: Any, decoder: Any = None) -> Units:
    return Units("sae", sparse.csc_matrix(np.asarray(acts, np.float32)), decoder)


def auroc_within(scores: np.ndarray, true: np.ndarray, strata: np.ndarray) -> float:
    wins, pairs = 0.0, 0
    for s in np.unique(strata):
        a, b = scores[(strata == s) & true], scores[(strata == s) & ~true]
        wins += sum((x > y) + 0.5 * (x == y) for x in a for y in b)
        pairs += len(a) * len(b)
    return wins / pairs


@pytest.mark.parametrize("dense", [False, True])
def test_the_best_unit_is_that_of_a_naive_loop(dense):
    data = some()
    signed = data.acts - data.acts.mean(0) if dense else data.acts
    units = Units("u", signed, None) if dense else sparse_units(signed)
    found = best_units(units, data.targets, data.rows)
    columns, rows = found.columns(units), data.rows
    weights = np.ones((len(rows.test), 1), np.uint8)
    score = auroc_of(columns, data.targets, rows, weights)[0]
    for t in range(4):
        known = rows.selection[data.codes[rows.selection, t] != UNKNOWN]
        each = [auroc_within(signed[known, u], data.codes[known, t] == TRUE, rows.strata[known]) for u in range(9)]
        best = int(np.argmax(np.maximum(each, 1 - np.array(each)) if dense else each))
        assert found.unit[t] == best
        assert found.sign[t] == (-1 if dense and each[best] < 0.5 else 1)
        test = rows.test[data.codes[rows.test, t] != UNKNOWN]
        expected = auroc_within(found.sign[t] * signed[test, best], data.codes[test, t] == TRUE, rows.strata[test])
        assert score[t] == pytest.approx(expected)


def test_one_to_one_is_the_hungarian_matching_of_correlations_within_source():
    data = some()
    codes = np.where(data.codes == UNKNOWN, FALSE, data.codes)
    targets, rows = targets_from(codes), data.rows
    found = one_to_one(sparse_units(data.acts), targets, rows)
    truth = (codes == TRUE).astype(float)

    def centred(x: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.concatenate([x[of][rows.strata[of] == s] - x[of][rows.strata[of] == s].mean(0) for s in (0, 1)])

    def correlation(of: np.ndarray) -> np.ndarray:
        x, y = centred(data.acts.astype(float), of), centred(truth, of)
        return (x.T @ y) / np.linalg.norm(x, axis=0)[:, None] / np.linalg.norm(y, axis=0)

    chosen_on, scored_on = correlation(rows.selection), correlation(rows.test)
    unit, target = linear_sum_assignment(-np.abs(chosen_on))
    np.testing.assert_array_equal(found.unit[target], unit)
    columns = found.columns(sparse_units(data.acts))
    scored = correlation_of(columns, targets, rows, np.ones((len(rows.test), 1), np.uint8))[0]
    np.testing.assert_allclose(scored[target], scored_on[unit, target] * np.sign(chosen_on[unit, target]), atol=1e-12)


def test_what_is_not_known_of_a_meme_is_no_part_of_the_mcc():
    """Of half of the memes a planted value is unknown: a unit that is right wherever it is known is right."""
    rng = np.random.default_rng(0)
    true, every = rng.random((400, 2)) < 0.4, np.arange(400)
    codes = np.where(rng.random(true.shape) < 0.5, np.where(true, TRUE, FALSE), UNKNOWN)
    targets, rows = targets_from(codes), Rows(every[:200], every[:0], every[200:], "test", every % 2)
    units = sparse_units(np.hstack([true, rng.random((400, 1)) < 0.5]))
    np.testing.assert_allclose(correlations(units, targets, rows.strata, rows.train)[[0, 1], [0, 1]], 1)
    columns = one_to_one(units, targets, rows).columns(units)
    np.testing.assert_allclose(correlation_of(columns, targets, rows, np.ones((200, 1), np.uint8)), 1)


def test_a_special_case_is_unknown_where_a_part_is():
    general = np.array([TRUE, TRUE, UNKNOWN, FALSE, TRUE] * 80)
    special = np.array([TRUE, FALSE, TRUE, FALSE, UNKNOWN] * 80)
    every = np.arange(400)
    rows = Rows(every[:200], every[:0], every[200:], "test", np.zeros(400, np.int64))
    codes = np.stack([general, special], axis=1)
    cases, of = special_cases(targets_from(codes), rows)
    assert (cases.names, of.tolist()) == (("t1",), [0])
    assert cases.codes[:5, 0].tolist() == [TRUE, FALSE, UNKNOWN, FALSE, UNKNOWN]
    units = sparse_units(np.stack([general == FALSE, special == TRUE], axis=1))
    best = Matched(np.array([1, 1]), np.ones(2))
    found = absorption(units, best, cases, of, targets_from(codes), rows)
    assert found.elsewhere[0] == 1, "of the memes that are known not to be of the case, none of which fires"


def test_on_one_set_of_memes_the_mcc_is_that_of_saelens():
    data = some()
    codes = np.where(data.codes == UNKNOWN, FALSE, data.codes)
    every = np.arange(len(codes))
    rows = Rows(every, every[:0], every, "test", np.zeros(len(codes), np.int64))
    units, targets = sparse_units(data.acts), targets_from(codes)
    columns = one_to_one(units, targets, rows).columns(units)
    ours = correlation_of(columns, targets, rows, np.ones((len(codes), 1), np.uint8))[0].mean()
    x, y = (
        torch.from_numpy(part - part.mean(0)).T for part in (data.acts.astype(float), (codes == TRUE).astype(float))
    )
    assert ours == pytest.approx(mean_correlation_coefficient(x, y), abs=1e-9)


def test_scores_of_resampled_memes_are_those_of_memes_written_out():
    data = some()
    rows, rng = data.rows, np.random.default_rng(1)
    weights = np.hstack([np.ones((len(rows.test), 1)), rng.integers(0, 4, (len(rows.test), 1))]).astype(np.uint8)
    columns = best_units(sparse_units(data.acts), data.targets, rows).columns(sparse_units(data.acts))
    again = Rows(rows.train, rows.validation, np.repeat(rows.test, weights[:, 1]), "test", rows.strata)
    once = np.ones((len(again.test), 1), np.uint8)
    for score in (auroc_of, f1_of, correlation_of):
        drawn = score(columns, data.targets, rows, weights)[1]
        np.testing.assert_allclose(drawn, score(columns, data.targets, again, once)[0], atol=1e-12)


def test_f1_has_the_threshold_that_is_best_where_units_are_chosen():
    data = some()
    rows, columns = (
        data.rows,
        best_units(sparse_units(data.acts), data.targets, data.rows).columns(sparse_units(data.acts)),
    )
    found = f1_of(columns, data.targets, rows, np.ones((len(rows.test), 1), np.uint8))[0]
    for t in range(4):
        select, test = (r[data.codes[r, t] != UNKNOWN] for r in (rows.selection, rows.test))
        true = data.codes[:, t] == TRUE
        cuts = np.unique(columns[select, t])
        best = cuts[np.argmax([f1_score(true[select], columns[select, t] >= cut) for cut in cuts])]
        assert found[t] == pytest.approx(f1_score(true[test], columns[test, t] >= best))


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_a_probe_on_few_units_is_scikit_learns(C, k):
    rng = np.random.default_rng(k)
    x = rng.standard_normal((200, k)) * rng.random((200, k)).round()
    y = x.sum(1) + rng.standard_normal(200) > 0.3
    expected = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(x, y)
    found = fit_few(x, y, C, np.zeros(k + 1))
    np.testing.assert_allclose(found, [*expected.coef_[0], expected.intercept_[0]], atol=1e-5)


def test_a_probe_on_separable_units_ends():
    x = np.repeat([[0.0], [5.0]], 20, axis=0)
    weights = fit_few(x, x[:, 0] > 1, 100.0, np.zeros(2))
    assert np.isfinite(weights).all()
    assert weights[0] > 0


# SAEBench's own numbers


def test_validation_memes_of_one_class_choose_no_penalty():
    """They define no AUROC: C is 1, as without validation memes."""
    data = some()
    rows, targets = data.rows, data.targets.only(np.array([0]))
    true = rows.validation[data.codes[rows.validation, 0] == TRUE]
    some_of_one, none = (
        linear_probes(data.acts, targets, Rows(rows.train, validation, rows.test, "test", rows.strata), 1_000, 0)
        for validation in (true, true[:0])
    )
    np.testing.assert_allclose(some_of_one.coef, none.coef, rtol=1e-5)


def test_k_sparse_probes_agree_with_saebench():
    golden = GOLDEN["k_sparse"]
    acts = np.vstack([golden["acts"]["train"], golden["acts"]["test"]])
    y = np.concatenate([golden["labels"]["train"], golden["labels"]["test"]]).astype(bool)
    n = len(golden["labels"]["train"])
    rows = Rows(np.arange(n), np.arange(0), np.arange(n, 2 * n), "test", np.zeros(2 * n, np.int64))
    targets, units = targets_from(np.where(y, TRUE, FALSE)[:, None]), sparse_units(acts)
    size = np.abs(mean_differences(units, targets, rows.train))[:, 0]
    for k in (1, 2, 5):
        few = np.sort(chosen(size, k))
        np.testing.assert_array_equal(few, golden["chosen"][str(k)])
        x = acts[:, few].astype(np.float64)
        weights = fit_few(x[:n], y[:n], 1.0, np.zeros(k + 1))
        scores = x[n:] @ weights[:-1] + weights[-1]
        assert ((scores > 0) == y[n:]).mean() == pytest.approx(golden["accuracy"][str(k)], abs=1e-6)
        assert roc_auc_score(y[n:], scores) == pytest.approx(golden["auroc"][str(k)], abs=1e-6)
    found = k_sparse(units, targets, rows, [1], np.ones((n, 1), np.uint8))
    assert found[1][0, 0] == pytest.approx(golden["auroc"]["1"], abs=1e-6)


def golden_rows(parts: dict[str, dict[str, Any]]) -> tuple[np.ndarray, Rows]:
    """All cells of both splits below each other."""
    train, test = (np.vstack(list(parts[split].values())) for split in ("train", "test"))
    n = len(train)
    rows = Rows(np.arange(n), np.arange(0), np.arange(n, n + len(test)), "test", np.zeros(n + len(test), np.int64))
    return np.vstack([train, test]), rows


def probes_of(golden: dict[str, Any], *of: str) -> LinearProbes:
    weights = np.array([golden["probes"][name] for name in of])
    return LinearProbes(weights[:, :-1].T.copy(), weights[:, -1])


def test_tpp_agrees_with_saebench():
    golden = GOLDEN["tpp"]
    acts, rows = golden_rows(golden["acts"])
    x, _ = golden_rows(golden["x"])
    n = len(golden["x"]["train"]["a"])
    codes = np.full((len(x), 3), UNKNOWN, np.uint8)
    for first in (0, 3 * n):  # train, then test: of the other two classes SAEBench takes half of the memes each
        for c in range(3):
            for other in range(3):
                start = first + other * n
                codes[start : start + (n if other == c else n // 2), c] = TRUE if other == c else FALSE
    targets, units = targets_from(codes), sparse_units(acts, np.array(golden["W_dec"]))
    probes = probes_of(golden, *"abc")
    difference = mean_differences(units, targets, rows.train)
    for c, name in enumerate("abc"):
        found = effects(difference[:, c], units.decoder @ probes.coef[:, c])
        np.testing.assert_allclose(found, golden["effects"][name], atol=1e-6)
    logits = probes.logits(x[rows.test])
    right = (logits > 0) == (codes[rows.test] == TRUE)
    for c, name in enumerate("abc"):
        assert right[codes[rows.test, c] != UNKNOWN, c].mean() == pytest.approx(golden["clean"][name], abs=1e-6)
    found = tpp(units, difference, probes, logits, targets, rows, [1, 2, 5], np.ones((len(rows.test), 1), np.uint8))
    for k in (1, 2, 5):
        assert found["tpp", k][0].mean() == pytest.approx(golden["tpp"][str(k)], abs=1e-6)


def test_scr_agrees_with_saebench():
    golden = GOLDEN["scr"]
    acts, rows = golden_rows(golden["acts"])
    x, _ = golden_rows(golden["x"])
    cells = list(golden["x"]["train"])
    n = len(golden["x"]["train"][cells[0]])
    target, tie = (np.tile(np.repeat([TRUE if c[i] == "1" else FALSE for c in cells], n), 2) for i in (0, 1))
    names_ = ("professor / nurse", "male / female", "male_professor / female_nurse")
    of_tie, biased = (probes_of(golden, name) for name in names_[1:])
    clean = golden["clean"]
    before = clean[f"{names_[2]} probe on {names_[0]} data"]
    task = Biased(Tie("tie", target, tie), rows.train, biased, of_tie, before, clean[names_[0]] - before)
    units = sparse_units(acts, np.array(golden["W_dec"]))
    difference = mean_differences(units, task.tie.as_target(), rows.train)[:, 0]
    found = np.abs(effects(difference, units.decoder @ of_tie.coef[:, 0], signed=True))
    np.testing.assert_allclose(found, golden["effects"][names_[1]], atol=1e-6)
    removed = scr(units, x.astype(np.float32), [task], rows, [1, 2, 5], np.ones((len(rows.test), 1), np.uint8))
    for k in (1, 2, 5):
        assert removed[k][0, 0] == pytest.approx(golden["scr"][str(k)], abs=1e-6)


# groups


def test_groups_are_drawn_together():
    single = make_embeddings({"h": np.ones((90, 2), np.float32)}, sources=["a"] * 30 + ["b"] * 60)
    memes = Embeddings.from_dataset(single.dataset.add_column("group", [f"g{i // 5}" for i in range(90)]))
    weights = resampled(memes, np.arange(90), 20, seed=0)
    by_group = weights.reshape(18, 5, 21)
    assert (by_group == by_group[:, :1]).all()
    assert (weights[:, 0] == 1).all()
    assert (weights[:, 1:] != 1).any()


def test_memes_without_groups_are_drawn_one_by_one_within_source():
    memes = make_embeddings({"h": np.ones((40, 2), np.float32)}, sources=["a"] * 10 + ["b"] * 30)
    weights = resampled(memes, np.arange(40), 8, seed=0)
    assert (weights[:10].sum(axis=0) == 10).all()
    assert (weights[10:].sum(axis=0) == 30).all()


def test_a_label_and_its_opposite_are_one_question_of_the_rank_test():
    """Three questions allow no p below .25, five none below 1/16, however many of their opposites are asked too."""
    rng = np.random.default_rng(0)
    for n, expected in ((3, np.nan), (5, 2 / 2**5)):
        codes = np.where(rng.random((40, n)) < 0.5, TRUE, FALSE)
        targets = targets_from(np.hstack([codes, TRUE + FALSE - codes]), "labels")
        arena: Any = SimpleNamespace(targets=targets, tasks={}, cases=None)
        event, gain = Event("labels", "auroc"), np.linspace(0.01, 0.1, 2 * n)[None]
        scores = {"sae": {event: 0.6 + gain}, "neurons": {event: np.full((1, 2 * n), 0.6)}}
        p = Standings(arena, scores, [], {}).wilcoxon_p(event, "neurons")
        assert p == pytest.approx(expected, nan_ok=True)


# hierarchy, ties, and what is left of labels that say nothing


def test_absorption_is_a_general_unit_that_is_silent_where_a_special_one_fires():
    rng = np.random.default_rng(0)
    general = rng.random(400) < 0.5
    special = general & (rng.random(400) < 0.3)
    codes = np.where(np.stack([general, special], axis=1), TRUE, FALSE)
    targets, every = targets_from(codes), np.arange(400)
    rows = Rows(every[:200], every[:0], every[200:], "test", np.zeros(400, np.int64))
    cases, of = special_cases(targets, rows)
    assert cases.names == ("t1",)
    assert of.tolist() == [0]
    for silent, expected in ((general & ~special, 1.0), (general, 0.0)):
        units = sparse_units(np.stack([silent, special], axis=1))
        found = absorption(units, best_units(units, targets, rows), cases, of, targets, rows)
        assert found.absorbed[0] == expected
        assert found.elsewhere[0] == 0
        assert found.own[0] == 1


def test_a_probe_that_learned_the_source_is_mended_by_taking_out_the_units_of_the_source():
    rng = np.random.default_rng(0)
    n = 4_000
    label, source = rng.random(n) < 0.5, rng.random(n) < 0.5
    label = np.where(rng.random(n) < 0.5, label, source)
    z = 0.5 * rng.standard_normal((n, 6)).astype(np.float32)
    z[:, 0] += 0.4 * (2 * label - 1)
    z[:, 1] += 2 * source - 1
    x = make_embeddings({"h": z}, sources=np.where(source, "a", "b").tolist(), labels={"y": label.astype(int).tolist()})
    rows, targets = Rows.of(x), targets_from(np.where(label, TRUE, FALSE)[:, None], "labels")
    (task,) = biased_probes(z, targets, x, rows, "labels", seed=0)
    assert task.tie.name == "t0 tied to source"
    assert task.gap > 0.1
    units, once = Units("neurons", z, np.eye(6)), np.ones((len(rows.test), 1), np.uint8)
    assert scr(units, z, [task], rows, [1], once)[1][0, 0] == pytest.approx(1, abs=0.15)
    other = Units("other", z[:, 2:], np.eye(6)[2:])
    assert scr(other, z, [task], rows, [1], once)[1][0, 0] == pytest.approx(0, abs=0.15)


def test_labels_that_say_nothing_are_found_by_nobody(trained, planted):
    rng = np.random.default_rng(5)
    labels = {f"coin_{i}": rng.integers(0, 2, N).tolist() for i in range(6)}
    memes = make_embeddings({"hook_fused": planted.x}, labels=labels)
    found = Contest(memes, **QUICK | {"concepts": [f"{name}=1" for name in labels]}).evaluate(trained).numbers
    for units in ("sae", "neurons", "neurons_k", "pca", "random_k", "linear_probe", "permuted_labels"):
        assert found[f"labels/auroc/{units}"] == pytest.approx(0.5, abs=0.05), units
    assert found["labels/auroc/sae_minus_neurons_low"] < 0 < found["labels/auroc/sae_minus_neurons_high"]


def test_a_dictionary_with_fewer_units_than_values_recovers_none_of_the_others():
    codes = np.where(np.random.default_rng(0).random((300, 4)) < 0.4, TRUE, FALSE)
    rows = Rows(np.arange(200), np.arange(0), np.arange(200, 300), "test", np.zeros(300, np.int64))
    targets, units = targets_from(codes), sparse_units(codes[:, :2] == TRUE)
    columns = one_to_one(units, targets, rows).columns(units)
    weights = np.ones((100, 1), np.uint8)
    np.testing.assert_allclose(correlation_of(columns, targets, rows, weights)[0], [1, 1, 0, 0], atol=1e-9)


def test_what_cannot_be_measured_is_null_with_a_reason(planted):
    dead = topk_sae(planted.x, np.zeros((N_FACTORS, D), np.float32))
    constant = make_embeddings({"hook_fused": np.ones((200, D), np.float32)}, labels={"hate": [0, 1, 1] * 66 + [0, 0]})
    for memes in (planted.memes, constant):
        result = Contest(memes, **QUICK | {"concepts": None}).evaluate(dead)
        assert result.numbers["labels/auroc/sae"] == pytest.approx(0.5)
        assert all(key in result.reasons for key, value in result.numbers.items() if value is None)
    assert result.numbers["n_rivals_left_out"] == 1
    assert "pca" in result.explain["n_rivals_left_out"]


def test_an_sae_without_fixed_directions_takes_part_in_what_only_reads_activations(planted):
    sae = topk_sae(planted.x, planted.directions.astype(np.float32))
    sae.cfg.normalize_activations = "layer_norm"
    latents = encode(topk_sae(planted.x, planted.directions.astype(np.float32)), planted.memes)
    numbers = Contest(planted.memes, **QUICK | {"ks": [2]}).evaluate(sae, latents=latents).numbers
    assert not [key for key in numbers if key.endswith("/sae") and ("tpp" in key or "scr" in key)]
    assert numbers["labels/k_sparse_2/sae"] > 0.7


def test_one_label_has_no_others_to_compare_with(planted, trained):
    result = Contest(planted.memes, **QUICK | {"concepts": ["label_0=1"], "n_bootstrap": 0}).evaluate(trained)
    assert result.numbers["labels/auroc/sae_low"] is None
    assert result.reasons["labels/auroc/sae_low"] == "it has no bootstrap samples"
    assert result.reasons["labels/auroc/wilcoxon_p_neurons"].startswith("fewer than 5 targets")
    assert result.verdict.startswith("On this label the SAE ")


# what cannot be done


def test_memes_that_cannot_be_scored_are_one_line(planted, trained):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, D)).astype(np.float32)
    train_only = make_embeddings({"hook_fused": x}, labels={"hate": [0, 1] * 30}, splits=["train"] * 60)
    with pytest.raises(DataError, match="needs train memes and test or validation memes"):
        Contest(train_only).evaluate(trained)
    constant = make_embeddings({"hook_fused": x}, labels={"hate": [1] * 60})
    with pytest.raises(DataError, match="no label and no planted value has 5 true and 5 false memes"):
        Contest(constant).evaluate(trained)
    elsewhere = Embeddings.from_dataset(constant.dataset.map(lambda row: {"id": f"other-{row['id']}"}))
    with pytest.raises(DataError, match="id 'other-meme-0' is not in the answer key"):
        Contest(elsewhere, key=planted.key).evaluate(trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": [0]}, "contest.ks"),
        ({"ks": []}, "contest.ks is \\[\\], it must be a list of 1 or more"),
        ({"controls": ["neuron"]}, "contest.controls"),
        ({"n_bootstrap": -1}, "contest.n_bootstrap is -1"),
        ({"kss": [1]}, "did you mean 'ks'"),
    ],
)
def test_wrong_options_are_refused(options, message, planted):
    with pytest.raises(ConfigError, match=message):
        Contest(planted.memes, **options)


def test_a_control_that_cannot_be_trained_is_listed_and_left_out(planted, trained):
    def refuse(*_: Any) -> Any:
        raise Unavailable("its recipe is not known")

    context = Context(
        *(trained, planted.memes, encode(trained, planted.memes), EvaluateOptions(bootstrap=0, stability_seeds=1)),
        train_shuffled=refuse,
        train_seed=refuse,
    )
    contest = Contest.from_context(context)
    assert context.skipped == {
        "contest/shuffled_data": "its recipe is not known",
        "contest/seeds": "its recipe is not known",
    }
    assert contest.shuffled is None
    assert contest.options.n_bootstrap == 0
    unlabelled = make_embeddings({"hook_fused": planted.x})
    with pytest.raises(Unavailable, match="no label has 2 to 10 classes"):
        Contest.from_context(Context(trained, unlabelled, encode(trained, unlabelled), EvaluateOptions()))


def test_the_contest_leads():
    assert names()[0] == "contest"
