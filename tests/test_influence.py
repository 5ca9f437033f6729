# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
from __future__ import annotations

import json

import hostile
import numpy as np
import pandas as pd
import pytest
import torch
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.evaluators import EvaluateOptions, Latents, encode
from sae_lens_meme.evaluators.classifiers import Probe, fit_embedding_probes, fit_latent_probe, probabilities
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.influence import (
    CosineHead,
    CosineRoute,
    Influence,
    Resampling,
    blocks,
    decoder_rows,
    effects_of,
    embedding_route,
    firing_rate_matched,
    head_of,
    latent_route,
    steer_through_model,
)
from sae_lens_meme.evaluators.influence.evaluator import _verdict
from sae_lens_meme.evaluators.result import Control, Measure

N, D, MULTIPLIERS = 300, 24, (0.0, 5.0, 0.5, -2.0)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = anisotropic(N, D, rng)
    z = (x - x.mean(0)) / x.std(0)
    labels = {
        "hate": (z[:, 0] + rng.standard_normal(N) > 0).astype(int).tolist(),
        "stance": np.digitize(z[:, 7] + rng.standard_normal(N), [-0.5, 0.5]).tolist(),
    }
    embeddings = make_embeddings({"hook_fused": x}, labels=labels, sources=["a", "b", "b"] * (N // 3))
    return x, embeddings, tiny_sae(x)


@pytest.fixture(scope="module")
def result(data):
    return Influence(data[1], multipliers=(0, 5), n_bootstrap=50).evaluate(data[2])


def random_latents(seed: int, n: int = 60, d_sae: int = 30, density: float = 0.15) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    z = rng.exponential(size=(n, d_sae)) * (rng.random((n, d_sae)) < density)
    z[:, 3] = 0  # never fires
    z[0] = 0  # nothing fires
    z[1] = np.eye(d_sae)[5]  # one latent alone
    z[2] = 1e-9 * np.eye(d_sae)[6] + 1e3 * np.eye(d_sae)[7]  # one latent is nearly the whole row
    return sparse.csr_matrix(z)


def random_probe(n_classes: int, d: int, seed: int = 0, normalise: bool = True) -> Probe:
    rng = np.random.default_rng(seed)
    outputs = 1 if n_classes == 2 else n_classes
    return Probe(
        "task", tuple(range(n_classes)), 3 * rng.normal(size=(outputs, d)), rng.normal(size=outputs), normalise
    )


def no_directions(d: int) -> np.ndarray:
    return np.zeros((0, d))


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_latent_route_is_the_brute_force_loop_over_scikit_learn(n_classes):
    """Change z, normalise again, ask scikit-learn's own model: every latent, multiplier and class."""
    z = random_latents(n_classes)
    rng = np.random.default_rng(1)
    y = rng.integers(0, n_classes, z.shape[0])
    model = LogisticRegression(C=1, solver="newton-cg", tol=1e-10).fit(normalize(z), y)
    probe = Probe("task", tuple(model.classes_), model.coef_, model.intercept_, normalise=True)
    effects = effects_of(route := latent_route(probe, z, no_directions(z.shape[1])), MULTIPLIERS, n_random=0)
    dense, before = z.toarray(), model.predict_proba(normalize(z.toarray()))
    for latent in range(z.shape[1]):
        fires = dense[:, latent] != 0
        assert effects.n_active[latent] == fires.sum()
        for m, multiplier in enumerate(MULTIPLIERS):
            changed = dense.copy()
            changed[:, latent] *= multiplier
            delta = (model.predict_proba(normalize(changed)) - before)[:, -route.n_outputs :]
            np.testing.assert_allclose(effects.delta_all[latent, m], delta.mean(0), atol=1e-12)
            if fires.any():
                np.testing.assert_allclose(effects.delta_active[latent, m], delta[fires].mean(0), atol=1e-12)
    assert np.isnan(effects.delta_active[3]).all()
    assert (effects.delta_all[3] == 0).all()


def test_row_that_loses_its_only_latent_has_the_logits_of_the_bias():
    z = sparse.csr_matrix([[0, 2.0, 0], [1.0, 0, 0]])
    probe = random_probe(3, 3)
    deltas = latent_route(probe, z, no_directions(3)).deltas(0, 2, np.array([0.0]))
    expected = probabilities(probe.intercept[None]) - probe.predict_proba(z)
    np.testing.assert_allclose(deltas[:, 0], expected, atol=1e-15)


def test_a_latent_that_is_nearly_the_whole_row_leaves_the_others_exactly():
    """n^2 - z^2 would keep no digit of the other latents here."""
    z = sparse.csr_matrix([[1e-9, 3e-9, 1e3]])
    probe = random_probe(2, 3)
    deltas = latent_route(probe, z, no_directions(3)).deltas(0, 1, np.array([0.0]))
    expected = probe.predict_proba(sparse.csr_matrix([[1e-9, 3e-9, 0]])) - probe.predict_proba(z)
    assert deltas[2, 0, 0] == pytest.approx(expected[0, 1], abs=1e-13)


@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_attached_but_unchanged_is_exactly_zero(seed, n_classes):
    z = random_latents(seed)
    latent = latent_route(random_probe(n_classes, z.shape[1], seed), z, no_directions(z.shape[1]))
    assert not latent.deltas(0, z.shape[0], np.ones(1)).any()
    assert effects_of(latent, (0, 5), n_random=0).attached_no_change == 0


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_permuting_or_doubling_memes_changes_no_mean(seed):
    z = random_latents(seed)
    probe = random_probe(3, z.shape[1], seed)

    def deltas(z):
        return effects_of(latent_route(probe, z, no_directions(z.shape[1])), (0, 5), n_random=0)

    first = deltas(z)
    for other in (z[np.random.default_rng(seed).permutation(z.shape[0])], sparse.csr_matrix(sparse.vstack([z, z]))):
        np.testing.assert_allclose(deltas(other).delta_all, first.delta_all, atol=1e-14)
        np.testing.assert_allclose(deltas(other).delta_active, first.delta_active, atol=1e-13)


def test_blocks_hold_every_row_once():
    z = random_latents(0)
    for pairs in (1, 7, 50, 10**6):
        parts = [np.arange(*block) for block in blocks(z, pairs)]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(z.shape[0]))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_embedding_route_is_the_brute_force_loop(data, n_classes):
    x, embeddings, sae = data
    rows = embeddings.rows("test")
    label = embeddings.label("hate" if n_classes == 2 else "stance")
    (probe,) = fit_embedding_probes("task", x, label.values)
    z = sparse.csr_matrix(encode(sae, embeddings, rows=rows).csr(), dtype=np.float64)
    decoder, h = decoder_rows(sae), x[rows].astype(np.float64)
    route = embedding_route(probe, z, embeddings, "hook_fused", rows, decoder, no_directions(D))
    effects = effects_of(route, MULTIPLIERS, n_random=0)
    for latent in range(z.shape[1]):
        for m, multiplier in enumerate(MULTIPLIERS):
            moved = h + (multiplier - 1) * z[:, [latent]].toarray() * decoder[latent]
            delta = (probe.predict_proba(moved) - probe.predict_proba(h))[:, -route.n_outputs :]
            np.testing.assert_allclose(effects.delta_all[latent, m], delta.mean(0), atol=1e-12)
    assert effects.attached_no_change == 0


def cosine_head(rng: np.random.Generator, d: int = D, hidden: int = 40) -> CosineHead:
    W1, b1 = 20 * rng.normal(size=(hidden, d)), 0.1 * rng.normal(size=hidden)
    return CosineHead("hate", (0, 1), W1, b1, rng.normal(size=(2, hidden)))


def test_cosine_route_is_the_brute_force_loop_over_torch(data):
    x, embeddings, sae = data
    rows, head = embeddings.rows("test"), cosine_head(np.random.default_rng(3))
    z = sparse.csr_matrix(encode(sae, embeddings, rows=rows).csr(), dtype=np.float64)
    decoder, h = decoder_rows(sae), torch.from_numpy(x[rows]).double()
    W1, b1, classes = (torch.from_numpy(a) for a in (head.W1, head.b1, head.classifier))

    def torch_probabilities(h):
        hidden = torch.nn.functional.normalize(torch.relu(h @ W1.T + b1), dim=-1)
        return torch.softmax(30 * hidden @ torch.nn.functional.normalize(classes, dim=-1).T, dim=-1).numpy()

    route = CosineRoute(head, z, embeddings, "hook_fused", rows, decoder, no_directions(D))
    effects = effects_of(route, MULTIPLIERS, n_random=0)
    for latent in range(z.shape[1]):
        for m, multiplier in enumerate(MULTIPLIERS):
            moved = h + torch.from_numpy((multiplier - 1) * z[:, [latent]].toarray() * decoder[latent])
            delta = torch_probabilities(moved) - torch_probabilities(h)
            np.testing.assert_allclose(effects.delta_all[latent, m], delta.mean(0), atol=1e-11)
    assert effects.attached_no_change == 0
    ablated = h - torch.from_numpy(z @ decoder)
    np.testing.assert_allclose(
        route.all_ablated(), (torch_probabilities(ablated) - torch_probabilities(h)).mean(0), atol=1e-11
    )


@pytest.mark.parametrize("kind", ["latent", "embedding", "cosine"])
def test_random_direction_control_is_a_step_of_equal_norm(data, kind):
    x, embeddings, sae = data
    rng, rows = np.random.default_rng(5), embeddings.rows("test")
    z = sparse.csr_matrix(encode(sae, embeddings, rows=rows).csr(), dtype=np.float64)
    decoder, dense = decoder_rows(sae), z.toarray()
    space = dense if kind == "latent" else x[rows].astype(np.float64)
    u = rng.normal(size=(3, space.shape[1]))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    head = cosine_head(rng) if kind == "cosine" else random_probe(3, space.shape[1], 1, kind == "latent")
    if kind == "latent":
        route = latent_route(head, z, u)
    else:
        make = CosineRoute if kind == "cosine" else embedding_route
        route = make(head, z, embeddings, "hook_fused", rows, decoder, u)
    effects = effects_of(route, MULTIPLIERS, n_random=3)
    before = head.predict_proba(space)
    for latent in (0, 7, 20):
        for m, multiplier in enumerate(MULTIPLIERS):
            norm = abs(multiplier - 1) * dense[:, latent] * (1 if kind == "latent" else np.linalg.norm(decoder[latent]))
            deltas = [np.abs((head.predict_proba(space + norm[:, None] * d) - before).mean(0)) for d in u]
            np.testing.assert_allclose(effects.delta_random[latent, m], np.mean(deltas, axis=0), atol=1e-11)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_orthogonal_step_moves_no_logit_but_the_length(data, n_classes):
    """Equal norm, the latent's own direction without its part in the span of the probe: a loop over memes."""
    _, embeddings, sae = data
    z = sparse.csr_matrix(encode(sae, embeddings, rows=embeddings.rows("test")).csr(), dtype=np.float64)
    dense, probe = z.toarray(), random_probe(n_classes, z.shape[1], 1)
    effects = effects_of(latent_route(probe, z, np.eye(z.shape[1])[:1]), MULTIPLIERS, n_random=1)
    span = np.linalg.svd(probe.coef, full_matrices=False)[2]
    before = probe.predict_proba(dense)
    for latent in (0, 7, 20):
        v = np.eye(z.shape[1])[latent]
        v -= span.T @ (span @ v)
        v /= np.linalg.norm(v)
        for m, multiplier in enumerate(MULTIPLIERS):
            moved = dense + (multiplier - 1) * dense[:, [latent]] * v
            np.testing.assert_allclose(moved @ probe.coef.T, dense @ probe.coef.T, atol=1e-9)
            expected = np.abs((probe.predict_proba(moved) - before).mean(0))[-effects.delta_all.shape[2] :]
            np.testing.assert_allclose(effects.delta_orthogonal[latent, m], expected, atol=1e-9)


def test_steering_a_latent_that_the_probe_does_not_read_is_all_renormalisation():
    z = random_latents(3)
    probe = random_probe(3, z.shape[1])
    probe.coef[:, 8] = 0
    effects = effects_of(latent_route(probe, z, np.eye(z.shape[1])[:1]), MULTIPLIERS, n_random=1)
    np.testing.assert_allclose(effects.delta_orthogonal[8], np.abs(effects.delta_all[8]), atol=1e-12)
    assert effects.delta_orthogonal[8].max() > 1e-3


def test_a_classifier_that_is_not_linear_has_no_orthogonal_step(data):
    _, embeddings, sae = data
    head = cosine_head(np.random.default_rng(3))
    result = Influence(embeddings, tasks=["hate"], routes=["embedding"], heads=[head], n_bootstrap=0).evaluate(sae)
    assert result.numbers["ablation/embedding/model/hate/largest_orthogonal"] is None
    assert "not linear" in result.reasons["ablation/embedding/model/hate/largest_orthogonal"]
    assert result.numbers["ablation/embedding/hate/largest_orthogonal"] == 0, "no length counts there"


def test_ablating_every_active_latent_is_decoding_zeros(data, result):
    x, embeddings, sae = data
    rows = embeddings.rows("test")
    z = encode(sae, embeddings, rows=rows)
    h = torch.from_numpy(x[rows])
    with torch.no_grad():
        dense = torch.from_numpy(z.csr().toarray())
        zeros = h - sae.decode(dense) + sae.decode(torch.zeros_like(dense))  # the error term kept
    by_latents = h.numpy() - z.csr() @ decoder_rows(sae)
    np.testing.assert_allclose(by_latents, zeros.numpy(), atol=1e-7)
    train = embeddings.rows("train")
    (probe,) = fit_embedding_probes("hate", x[train], embeddings.label("hate").values[train])
    change = probe.predict_proba(zeros.numpy()) - probe.predict_proba(x[rows])
    assert result.numbers["ablation/embedding/hate/all_latents"] == pytest.approx(abs(change[:, 1].mean()), abs=1e-5)
    latent_probe = fit_latent_probe(
        "hate", encode(sae, embeddings).csr()[train], embeddings.label("hate").values[train]
    )
    change = latent_probe.predict_proba(sparse.csr_matrix(z.csr().shape)) - latent_probe.predict_proba(z.csr())
    assert result.numbers["ablation/latent/hate/all_latents"] == pytest.approx(abs(change[:, 1].mean()), abs=1e-12)


@pytest.mark.parametrize("cfg", [{}, {"rescale_acts_by_decoder_norm": True}])
def test_decoder_rows_are_what_decode_adds(data, cfg):
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=6, d_sae=20, k=3, **cfg))
    with torch.no_grad():
        sae.W_dec.mul_(torch.rand(20, 1) + 0.5)
        sae.b_dec.normal_()
        z = torch.rand(5, 20)
        expected = (sae.decode(z) - sae.decode(torch.zeros_like(z))).numpy()
    np.testing.assert_allclose(z.numpy() @ decoder_rows(sae), expected, atol=1e-5)


def test_decoder_that_is_neither_is_asked_latent_by_latent(data):
    class Doubled(torch.nn.Module):
        def __init__(self, sae):
            super().__init__()
            self.sae, self.cfg, self.W_dec, self.device, self.dtype = sae, sae.cfg, sae.W_dec, sae.device, sae.dtype

        def decode(self, z):
            return 2 * self.sae.decode(z)

    np.testing.assert_allclose(decoder_rows(Doubled(data[2])), 2 * decoder_rows(data[2]), atol=1e-6)


def test_normalising_sae_has_no_embedding_route_but_a_reason(data):
    x, embeddings, _ = data
    result = Influence(embeddings, tasks=["hate"], n_bootstrap=0, n_random=0).evaluate(
        tiny_sae(x, normalize_activations="layer_norm")
    )
    assert "layer_norm" in result.reasons["ablation/embedding"]
    assert set(result.table["route"]) == {"latent"}


@pytest.mark.parametrize("whole", [False, True])
def test_intervals_are_those_of_a_plain_bootstrap(whole):
    z = random_latents(4)
    n = z.shape[0]
    strata = np.arange(n) % 2
    route = latent_route(random_probe(3, z.shape[1]), z, no_directions(z.shape[1]))
    groups = np.maximum(np.arange(n) - 20, 0) if whole else None  # one group of 21 memes, drawn whole
    resampling = Resampling.of(z, strata, 40, seed=7, groups=groups)
    drawn = resampling.weights.sum(0, dtype=int)
    assert (len(set(drawn)) > 1) == whole
    effects = effects_of(route, (0, 5), resampling, n_random=0)
    deltas, dense = np.zeros((n, z.shape[1], 2, 3)), z.toarray()
    deltas[z.nonzero()] = route.deltas(0, n, np.array([0.0, 5.0]))
    for latent in (0, 5, 12):
        replicates = np.einsum("nb,nmc->bmc", resampling.weights, deltas[:, latent])
        active = resampling.weights[dense[:, latent] != 0].sum(0)
        low, high = np.quantile(replicates / drawn[:, None, None], [0.025, 0.975], axis=0)
        np.testing.assert_allclose(effects.delta_all_interval[0][latent], low, atol=1e-6)
        np.testing.assert_allclose(effects.delta_all_interval[1][latent], high, atol=1e-6)
        low, high = np.quantile(replicates[active > 0] / active[active > 0, None, None], [0.025, 0.975], axis=0)
        np.testing.assert_allclose(effects.delta_active_interval[0][latent], low, atol=1e-6)
        np.testing.assert_allclose(effects.delta_active_interval[1][latent], high, atol=1e-6)


def test_firing_rate_matched_is_the_mean_of_the_neighbours():
    rng = np.random.default_rng(0)
    magnitude, n_active = rng.random((40, 2)), rng.integers(0, 30, 40)
    matched = firing_rate_matched(magnitude, n_active, each_side=3)
    order = [f for f in np.argsort(n_active, kind="stable") if n_active[f]]
    for place, f in enumerate(order):
        others = [g for g in order[max(place - 3, 0) : place + 4] if g != f]
        np.testing.assert_allclose(matched[f], magnitude[others].mean(0))
    assert np.isnan(matched[n_active == 0]).all()


def test_table_is_the_contract(data, result, tmp_path):
    table = result.table
    assert {"latent", "task", "class", "kind", "multiplier", "delta_all", "delta_active", "n_active"} <= set(
        table.columns
    )
    assert set(zip(table["kind"], table["multiplier"], strict=True)) == {("ablation", 0.0), ("steering", 5.0)}
    keys = ["latent", "task", "class", "kind", "multiplier", "route", "head"]
    assert not table.duplicated(keys).any()
    assert len(table) == 48 * 2 * 2 * (2 + 3)
    sums = table.groupby([k for k in keys if k != "class"])["delta_all"].sum()
    assert sums.abs().max() < 1e-12  # probabilities of all classes sum to 1
    assert (table["delta_all_low"] <= table["delta_all_high"]).all()
    inside = table["delta_all"].between(table["delta_all_low"] - 1e-7, table["delta_all_high"] + 1e-7)
    assert inside.mean() > 0.95
    np.testing.assert_allclose(
        table["delta_all"] * table["n"], (table["delta_active"] * table["n_active"]).fillna(0), atol=1e-12
    )
    table.to_parquet(tmp_path / "influence.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "influence.parquet"), table, check_dtype=False)


def test_numbers_stand_beside_their_controls(data, result):
    """The latent is the largest on validation memes, the numbers are its own on test memes."""
    _, embeddings, sae = data
    without_test = embeddings.dataset.select(np.flatnonzero(embeddings.splits != "test"))
    chooser = Influence(Embeddings.from_dataset(without_test), multipliers=(0, 5), n_bootstrap=0).evaluate(sae)
    numbers, key = result.numbers, ["latent", "class"]
    for group in ("ablation/latent/hate", "steering/x5/latent/stance", "ablation/embedding/hate"):
        assert numbers[f"{group}/attached_no_change"] == 0
        kind, *_, route, task = group.split("/")
        choice, mine = (
            table[(table["kind"] == kind) & (table["route"] == route) & (table["task"] == task)].set_index(key)
            for table in (chooser.table, result.table)
        )
        first = choice["delta_all"].abs().idxmax()
        best = mine.loc[first]
        assert numbers[f"{group}/largest_latent"] == first[0]
        assert numbers[f"{group}/largest"] == pytest.approx(abs(best["delta_all"]), rel=1e-9)
        assert abs(numbers[f"{group}/largest_signed"]) == numbers[f"{group}/largest"]
        assert numbers[f"{group}/largest_random"] == pytest.approx(best["delta_random"], rel=1e-9)
        assert numbers[f"{group}/largest_matched"] == pytest.approx(best["delta_matched"], rel=1e-9)
        assert numbers[f"{group}/random_maximum"] >= mine["delta_random"].max()
        ends = sorted((abs(best["delta_all_low"]), abs(best["delta_all_high"])))
        if best["delta_all_low"] * best["delta_all_high"] > 0:
            assert [numbers[f"{group}/largest_low"], numbers[f"{group}/largest_high"]] == pytest.approx(ends)
    json.dumps(result.to_dict(), allow_nan=False)


def test_silent_latents_are_null(data):
    _, embeddings, sae = data
    silent = Latents(
        np.zeros((len(embeddings), 1), np.int32), np.zeros((len(embeddings), 1), np.float32), sae.cfg.d_sae
    )
    result = Influence(embeddings, tasks=["hate"], routes=["embedding"], n_bootstrap=5).evaluate(sae, latents=silent)
    for key in ("largest", "largest_latent", "largest_low", "largest_matched", "random_maximum"):
        assert result.numbers[f"ablation/embedding/hate/{key}"] is None
    assert "no latent fires" in result.reasons["ablation/embedding/hate/largest"]


def test_published_is_positive_class_or_signed_largest(result):
    found = result.table[result.table["published"]].set_index(["task", "kind", "latent"])
    table = result.table[result.table["route"] == "latent"]
    for latent in range(0, 48, 7):
        mine = table[(table["latent"] == latent) & (table["kind"] == "ablation")]
        hate = mine[(mine["task"] == "hate") & (mine["class"] == "1")]["delta_all"].item()
        stance = mine[mine["task"] == "stance"]["delta_all"].to_numpy()
        assert found.loc[("hate", "ablation", latent), "delta_all"] == hate
        assert found.loc[("stance", "ablation", latent), "delta_all"] == stance[np.abs(stance).argmax()]
    assert len(found) == 48 * 2 * 2


def test_evaluation_is_repeatable_and_leaves_its_arguments(data, result):
    _, embeddings, sae = data
    weights = {name: p.clone() for name, p in sae.state_dict().items()}
    sae.train()
    again = Influence(embeddings, multipliers=(0, 5), n_bootstrap=50).evaluate(sae)
    assert sae.training
    sae.eval()
    pd.testing.assert_frame_equal(again.table, result.table)
    assert again.numbers == result.numbers
    assert all(torch.equal(weights[name], p) for name, p in sae.state_dict().items())


def test_all_rows_and_train_only_embeddings(data):
    x, embeddings, sae = data
    assert Influence(embeddings, rows="all", tasks=["hate"], n_bootstrap=0).evaluate(sae).numbers["n"] == N
    only = make_embeddings(
        {"hook_fused": x}, splits=["train"] * N, labels={"hate": embeddings.label("hate").values.tolist()}
    )
    result = Influence(only, n_bootstrap=0, n_random=0).evaluate(sae)
    assert "none are held out" in result.explain["n"]
    assert "delta_random" not in result.table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"routes": ["pixels"]}, r"influence\.routes\.0 is 'pixels', it must be 'latent' or 'embedding'"),
        ({"routes": []}, r"influence\.routes is \[\], it must be a list of 1 or more"),
        ({"rows": "some"}, r"influence\.rows is 'some', it must be 'held_out' or 'all'"),
        ({"multipliers": [float("nan")]}, r"influence\.multipliers\.0 is nan, it must be a finite number"),
        ({"multipliers": []}, "a list of 1 or more"),
        ({"multipliers": [5, 5.0]}, r"influence\.multipliers is \[5, 5\.0\], it must be numbers that differ"),
        ({"multipliers": [0.0, -0.0]}, "it must be numbers that differ"),
        ({"n_bootstrap": -1}, r"influence\.n_bootstrap is -1, it must be 0 or more"),
        ({"seed": -1}, r"influence\.seed is -1, it must be 0 or more"),
        ({"n_randoms": 4}, "influence: unknown key 'n_randoms'; did you mean 'n_random'"),
        ({"heads": 2 * [Probe("hate", (0, 1), np.zeros((1, D)), np.zeros(1))]}, "two heads are of one task"),
    ],
)
def test_wrong_arguments_are_refused(data, arguments, message):
    with pytest.raises(ConfigError, match=message):
        Influence(data[1], **arguments)


def test_head_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"W1 \(4, 3\), b1 \(4,\) and classifier \(2, 5\)"):
        CosineHead("hate", (0, 1), np.zeros((4, 3)), np.zeros(4), np.zeros((2, 5)))


def test_a_head_that_cannot_be_used_is_refused(data):
    _, embeddings, sae = data
    narrow = Probe("hate", (0, 1), np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(DataError, match="head of 'hate': reads 3 dimensions, hook_fused has 24"):
        Influence(embeddings, heads=[narrow], n_bootstrap=0).evaluate(sae)
    with pytest.raises(NonFiniteError, match="head of 'hate': a weight is NaN"):
        CosineHead("hate", (0, 1), np.full((4, 3), np.nan), np.zeros(4), np.zeros((2, 4)))
    zero = CosineHead("hate", (0, 1), np.ones((4, 3)), np.zeros(4), np.zeros((2, 4)))
    np.testing.assert_array_equal(zero.predict_proba(np.ones((1, 3))), [[0.5, 0.5]])


def test_a_damaged_decoder_is_named(data):
    x, embeddings, _ = data
    sae = tiny_sae(x)
    with torch.no_grad():
        sae.W_dec[7, 2] = float("nan")
    with pytest.raises(NonFiniteError, match="latent 7: its row of W_dec has NaN or infinity"):
        Influence(embeddings, n_bootstrap=0).evaluate(sae)


def test_labels_named_like_other_keys_stay_apart(data):
    x, _, sae = data
    turns = [i % 2 for i in range(N)]
    labels = {"a": turns, "a/largest": [1] * N, "embedding/a": turns, "model/hate": turns}
    embeddings = make_embeddings({"hook_fused": x}, labels=labels)
    numbers = Influence(embeddings, n_bootstrap=0).evaluate(sae).numbers
    assert numbers["ablation/latent/a/largest"] == numbers["ablation/latent/embedding/a/largest"]
    assert numbers["ablation/latent/a/largest/largest"] is None
    head = Probe("hate", (0, 1), np.ones((1, D)), np.zeros(1))
    with pytest.raises(DataError, match="'model/hate' is also the name of a head in the result; rename the label"):
        Influence(embeddings, heads=[head], n_bootstrap=0).evaluate(sae)


def test_rows_stand_beside_their_controls(result):
    rows, numbers = result.rows(), result.numbers
    latent = numbers["steering/x5/latent/hate/largest_latent"]
    (row,) = [row for row in rows if row["measure"] == f"hate: steering x5, latent {latent}"]
    group = "steering/x5/latent/hate"
    assert (row["value"], row["low"], row["high"]) == tuple(
        numbers[f"{group}/{key}"] for key in ("largest", "largest_low", "largest_high")
    )
    assert row["controls"] == {
        "random maximum": numbers[f"{group}/random_maximum"],
        "random": numbers[f"{group}/largest_random"],
        "orthogonal": numbers[f"{group}/largest_orthogonal"],
        "matched": numbers[f"{group}/largest_matched"],
        "attached": 0,
    }
    assert len(rows) == 4
    assert "on 45 validation rows" in result.section.note
    assert result.section.title.endswith("45 test rows")


def test_the_verdict_counts_what_beats_random_steps(data, result):
    """By the lower end of the interval, so that it says no where chance may have said yes."""
    beats, as_much, median = [], [], []
    for edit in ("ablation", "steering/x5"):
        groups = [f"{edit}/latent/{task}" for task in ("hate", "stance")]
        value, low, rival, length = (
            np.array([result.numbers[f"{g}/{key}"] for g in groups])
            for key in ("largest", "largest_low", "random_maximum", "largest_orthogonal")
        )
        beats.append((low > rival).sum())
        as_much.append((length >= low).sum())
        median.append(np.median(length / value))
    assert result.verdict == (
        f"One latent beats the largest random step (lower end of 95 %): ablation for {beats[0]}, steering x5 for {beats[1]} "
        "of 2 labels. Renormalisation alone (a step orthogonal to the probe) does as much: "
        f"ablation for {as_much[0]} (median {median[0]:.0%}), steering x5 for {as_much[1]} (median {median[1]:.0%})."
    )
    _, embeddings, sae = data
    assert Influence(embeddings, n_bootstrap=0, n_random=0).evaluate(sae).verdict is None
    assert "lower end" not in Influence(embeddings, n_bootstrap=0).evaluate(sae).verdict


def test_the_verdict_does_not_take_an_unknown_step_for_none():
    """Of a classifier that is not linear there is no step orthogonal to it."""
    controls = (Control("random maximum", 0.1, "a rival"), Control("orthogonal", None, "a rival"))
    measure = Measure("ablation/embedding/hate/largest", 0.2, "of a latent", controls=controls)
    verdict = _verdict([measure], False)
    assert verdict is not None
    assert "ablation for 1 of 1 labels" in verdict
    assert "0%" not in verdict


def test_a_latent_that_fires_alone_has_no_other_of_its_rate(data):
    _, embeddings, sae = data
    alone = Latents(np.full((N, 1), 5, np.int32), np.ones((N, 1), np.float32), sae.cfg.d_sae)
    result = Influence(embeddings, tasks=["hate"], routes=["embedding"], n_bootstrap=0).evaluate(sae, latents=alone)
    assert result.numbers["ablation/embedding/hate/largest_latent"] == 5
    assert result.numbers["ablation/embedding/hate/largest_matched"] is None
    assert "no other latent fires" in result.reasons["ablation/embedding/hate/largest_matched"]


def test_a_latent_chosen_on_the_rows_that_measure_it_is_said_to_be(data):
    x, embeddings, sae = data
    only = make_embeddings(
        {"hook_fused": x}, splits=["train"] * N, labels={"hate": embeddings.label("hate").values.tolist()}
    )
    result = Influence(only, n_bootstrap=5).evaluate(sae)
    assert "validation" not in result.section.note
    assert "largest change on the same rows, which flatters it" in result.section.note
    assert result.verdict.endswith("; chosen on the same memes.")


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(lambda embeddings: Influence(embeddings, n_bootstrap=5, n_random=2), case)


def test_in_an_evaluation_the_models_own_head_is_measured(tmp_path):
    from sae_lens_meme.hooks import MemeCLIPHeads
    from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint, save_memeclip_heads

    torch.manual_seed(0)
    rng, heads = np.random.default_rng(0), MemeCLIPHeads(16, 16, 2, d_map=32).eval()
    image, text = (rng.standard_normal((60, 16)).astype(np.float32) for _ in range(2))
    with torch.no_grad():
        fused = heads.fuse(torch.from_numpy(image), torch.from_numpy(text)).numpy()
    hooks = {"hook_image_embed": image, "hook_text_embed": text, "hook_fused": fused}
    embeddings = make_embeddings(hooks, labels={"hate": [i % 2 for i in range(60)]}, fusion="memeclip")
    save_memeclip_heads(MemeCLIPCheckpoint(heads, "hate", (0, 1)), tmp_path / "heads.safetensors")
    sae = tiny_sae(fused, d_sae=40, k=5)
    options = EvaluateOptions(bootstrap=3, seed=2, evaluators={"influence": {"n_random": 1}})
    context = Context(sae, embeddings, encode(sae, embeddings), options, heads=tmp_path / "heads.safetensors")
    made = Influence.from_context(context)
    assert [type(head) for head in made.heads] == [CosineHead]
    assert (made.options.n_bootstrap, made.options.n_random, made.options.seed) == (3, 1, 2)
    assert made.fitted is context.embedding_probes
    result = made.evaluate(sae, embeddings, context.latents)
    assert {*result.table["head"]} == {"probe", "model"}
    sae.cfg.metadata.hook_name = "hook_image_embed"
    assert Influence.from_context(context).heads == (), "the head does not read what this SAE reads"


def test_steering_the_running_model_agrees_with_the_closed_form(data):
    from sae_lens_meme.hooks import HookedMemeCLIP

    _, embeddings, sae = data
    model = HookedMemeCLIP.from_embeddings(embeddings, task="stance")
    rows = embeddings.rows("test")
    result = Influence(
        embeddings, tasks=["stance"], routes=["embedding"], heads=[head_of(model)], n_bootstrap=0
    ).evaluate(sae)
    table = result.table[result.table["head"] == "model"].set_index(["kind", "latent"])
    firing = table[table["n_active"] > 0].index.get_level_values("latent").unique()
    for latent in firing[:4]:
        for kind, multiplier in (("ablation", 0.0), ("steering", 5.0)):
            change = steer_through_model(model, sae, rows, int(latent), multiplier, batch_size=16)
            np.testing.assert_allclose(table.loc[(kind, latent), "delta_all"], change.mean(0), atol=1e-5)
            assert np.abs(change).max() > 1e-4
    assert not np.abs(steer_through_model(model, sae, rows, int(firing[0]), 1.0)).any()
    with pytest.raises(DataError, match=r"latent 48 is outside 0\.\.47"):
        steer_through_model(model, sae, rows, 48, 0.0)


def test_steering_through_memeclips_own_head_agrees_with_the_closed_form(data):
    from sae_lens_meme.hooks import HookedMemeCLIP, MemeCLIPHeads
    from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image, text = (rng.standard_normal((60, 16)).astype(np.float32) for _ in range(2))
    heads = MemeCLIPHeads(16, 16, 2, d_map=32).eval()
    with torch.no_grad():
        fused = heads.fuse(torch.from_numpy(image), torch.from_numpy(text)).numpy()
    embeddings = make_embeddings(
        {"hook_image_embed": image, "hook_text_embed": text, "hook_fused": fused},
        labels={"hate": [i % 2 for i in range(60)]},
    )
    model = HookedMemeCLIP.from_embeddings(embeddings, heads=MemeCLIPCheckpoint(heads, "hate", (0, 1)))
    sae = tiny_sae(fused, d_sae=40, k=5)
    head = head_of(model)
    assert isinstance(head, CosineHead)
    result = Influence(embeddings, heads=[head], routes=["embedding"], rows="all", n_bootstrap=0).evaluate(sae)
    table = result.table[result.table["head"] == "model"].set_index(["kind", "latent"])
    firing = table[table["n_active"] > 5].index.get_level_values("latent").unique()
    for latent in firing[:3]:
        for kind, multiplier in (("ablation", 0.0), ("steering", 5.0)):
            change = steer_through_model(model, sae, np.arange(60), int(latent), multiplier)
            np.testing.assert_allclose(table.loc[(kind, latent), "delta_all"], change.mean(0), atol=1e-5)


def test_as_saelens_evaluator(data):
    from sae_lens.training.activation_scaler import ActivationScaler

    x, embeddings, sae = data
    factor = 7.0
    scaled = tiny_sae(x)
    with torch.no_grad():
        scaled.W_enc.div_(factor)
        scaled.W_dec.mul_(factor)
        scaled.b_dec.mul_(factor)
    evaluator = Influence(embeddings, tasks=["hate"], n_bootstrap=0, n_random=0)
    log = evaluator(scaled, iter(()), ActivationScaler(scaling_factor=factor))
    numbers = evaluator.evaluate(sae).numbers
    for key in ("ablation/latent/hate/largest", "steering/x5/embedding/hate/largest"):
        assert log[f"meme/{key}"] == pytest.approx(numbers[key], abs=1e-5)
