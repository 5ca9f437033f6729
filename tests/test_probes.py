# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
from __future__ import annotations

import json

import hostile
import numpy as np
import pytest
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from tiny_sae import tiny_sae

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import Probes
from sae_lens_meme.evaluators.classifiers import (
    Probe,
    SharedProbes,
    fit_embedding_probes,
    fit_latent_probe,
    fit_latent_probes,
    tasks_of,
    thinned,
)
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.probes import permute_within, scores
from sae_lens_meme.evaluators.rows import resampled

N, D = 600, 32


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = anisotropic(N, D, rng)
    z = (x - x.mean(0)) / x.std(0)
    sources = np.where(rng.random(N) < 0.4, "a", "b")
    hate = (z[:, 0] + z[:, 5] + 0.5 * rng.standard_normal(N) > 0).astype(int)
    stance = np.digitize(z[:, 7] + 0.5 * rng.standard_normal(N), [-0.5, 0.5])
    labels = {
        "hate": [int(v) if s == "a" or i % 3 else None for i, (v, s) in enumerate(zip(hate, sources, strict=True))],
        "stance": [int(v) for v in stance],
        "shade": [int(v) for v in np.where(sources == "a", rng.random(N) < 0.9, rng.random(N) < 0.1)],
        "always": [1] * N,
        "number": list(range(N)),
    }
    return x, make_embeddings({"hook_fused": x}, sources=sources.tolist(), labels=labels), tiny_sae(x)


@pytest.fixture(scope="module")
def result(data):
    return Probes(data[1]).evaluate(data[2])


@pytest.mark.parametrize("classes", [2, 3])
def test_probe_is_scikit_learns_and_converged(classes):
    rng = np.random.default_rng(classes)
    z = sparse.csr_matrix(rng.exponential(size=(300, 80)) * (rng.random((300, 80)) < 0.1)).astype(np.float32)
    y = rng.integers(0, classes, 300) * 2 - 1
    probe = fit_latent_probe("task", z, y)
    reference = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12).fit(
        normalize(z.toarray().astype(float)), y
    )
    np.testing.assert_allclose(
        probe.predict_proba(z), reference.predict_proba(normalize(z.toarray().astype(float))), atol=1e-8
    )
    assert probe.gradient_norm < 1e-6
    assert probe.converged
    assert probe.classes == tuple(np.unique(y).tolist())


@pytest.mark.parametrize("classes", [2, 4])
def test_embedding_probe_equals_scaling_then_regression(classes):
    rng = np.random.default_rng(0)
    x = anisotropic(300, 20, rng)
    y = rng.integers(0, classes, 300)
    (probe,) = fit_embedding_probes("task", x, y)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12))
    np.testing.assert_allclose(
        probe.predict_proba(x), model.fit(x.astype(float), y).predict_proba(x.astype(float)), atol=1e-8
    )


def test_dense_fit_converges_on_badly_scaled_and_constant_columns():
    rng = np.random.default_rng(0)
    x = anisotropic(200, 60, rng)  # not z-scored: the columns differ by orders of magnitude
    x[:, 5] = 0.25
    x[:, 6] = x[:, 7]
    for classes in (2, 3):
        (probe,) = fit_embedding_probes("task", x, rng.integers(0, classes, 200))
        assert probe.converged
        assert np.isfinite(probe.coef).all()


def test_separable_classes_converge():
    x = np.linspace(-1, 1, 40)[:, None]
    assert fit_embedding_probes("task", x, (x[:, 0] > 0).astype(int))[0].converged


def test_default_tolerance_would_not_do():
    rng = np.random.default_rng(0)
    z = normalize(sparse.csr_matrix(rng.exponential(size=(3000, 500)) * (rng.random((3000, 500)) < 0.05)))
    y = (np.asarray(z @ rng.normal(size=500)) * 8 + rng.standard_normal(3000) > 0).astype(int)
    loose = LogisticRegression(C=1).fit(z, y).predict_proba(z)
    assert np.abs(loose - fit_latent_probe("task", z, y).predict_proba(z)).max() > 1e-4


@pytest.mark.parametrize(("task", "space"), [("hate", "latents"), ("stance", "latents"), ("hate", "embedding")])
def test_scores_agree_with_scikit_learn(data, result, task, space):
    x, embeddings, sae = data
    label, z = embeddings.label(task), encode(sae, embeddings).csr()
    train, test = (rows[label.known[rows]] for rows in (embeddings.rows("train"), embeddings.rows("test")))
    features = (
        normalize(z.toarray().astype(float))
        if space == "latents"
        else StandardScaler().fit(x[train].astype(float)).transform(x.astype(float))
    )
    C = result.numbers[f"{task}/{space}/C"]
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(features[train], label.values[train])
    p, y = model.predict_proba(features[test]), label.values[test]
    predicted = model.predict(features[test])
    binary = {"y_score": p[:, 1]} if p.shape[1] == 2 else {"y_score": p, "multi_class": "ovr", "average": "macro"}
    expected = {
        "auroc": roc_auc_score(y, **binary),
        "balanced_accuracy": balanced_accuracy_score(y, predicted),
        "accuracy": accuracy_score(y, predicted),
        "log_loss": log_loss(y, p),
    }
    row = result.table.set_index(["task", "space"]).loc[(task, space)]
    for key, value in expected.items():
        assert row[key] == pytest.approx(value, abs=1e-6)
        assert result.numbers[f"{task}/{space}/{key}"] == row[key]
    assert (row["n_train"], row["n_held_out"], row["split"]) == (len(train), len(test), "test")


@pytest.mark.parametrize("space", ["latents", "embedding"])
def test_validation_memes_choose_C_for_each_space(data, space):
    """By scikit-learn: of the grid the C with the best AUROC within source on validation memes, which do not measure."""
    x, embeddings, sae = data
    grid = (0.003, 0.1, 30.0)
    found = Probes(embeddings, latents_C=grid, embedding_C=grid, n_permutations=0, n_bootstrap=0).evaluate(sae).numbers
    z = normalize(encode(sae, embeddings).csr().toarray().astype(float)) if space == "latents" else x.astype(float)
    chosen = {}
    for task in ("hate", "stance", "shade"):
        label = embeddings.label(task)
        train, choose = (rows[label.known[rows]] for rows in map(embeddings.rows, ("train", "validation")))
        features = z if space == "latents" else StandardScaler().fit(z[train]).transform(z)
        best = []
        for C in grid:
            model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(
                features[train], label.values[train]
            )
            probabilities = model.predict_proba(features[choose])
            best.append(scores(model.classes_, probabilities, label.values[choose], embeddings.sources[choose])[0])
        chosen[task] = grid[int(np.argmax([score["auroc_within_source"] for score in best]))]
        assert found[f"{task}/{space}/C"] == chosen[task]
    assert space == "embedding" or len(set(chosen.values())) > 1, "one C would not do for every label"


def test_memes_that_measure_choose_nothing(data):
    """Without test memes the validation memes measure: C is 1."""
    _, embeddings, sae = data
    splits = ["validation" if split == "test" else "train" for split in embeddings.splits]
    memes = embeddings.dataset.remove_columns("split").add_column("split", splits)
    found = Probes(type(embeddings).from_dataset(memes), tasks=["stance"], n_permutations=0).evaluate(sae).numbers
    assert {found[f"stance/{space}/C"] for space in ("latents", "embedding", "reconstruction")} == {1.0}


def test_validation_memes_of_one_class_choose_nothing(data):
    """They define no AUROC: C is 1, not the first of the grid."""
    _, embeddings, sae = data
    label = embeddings.label("stance")
    kept = np.flatnonzero((embeddings.splits != "validation") | (label.values == label.values[0]))
    memes = type(embeddings).from_dataset(embeddings.dataset.select(kept))
    assert len(memes.rows("validation"))
    found = Probes(memes, tasks=["stance"], n_permutations=0, n_bootstrap=0).evaluate(sae).numbers
    assert {found[f"stance/{space}/C"] for space in ("latents", "embedding", "reconstruction")} == {1.0}


def test_latents_and_embedding_are_compared_on_the_same_resamples_of_groups(data):
    """Against a loop that writes the drawn groups out; copies of a meme make the interval no narrower."""
    _, embeddings, sae = data
    widths = {}
    for copies in (1, 3):
        rows = np.repeat(np.arange(N), copies)
        dataset = embeddings.dataset.select(rows)
        dataset = dataset.remove_columns("id").add_column("id", [f"meme-{i:05}" for i in range(len(rows))])
        memes = type(embeddings).from_dataset(dataset.add_column("group", rows.tolist()))
        made = Probes(memes, tasks=["stance"], spaces=["latents", "embedding"], n_permutations=0, n_bootstrap=300)
        result = made.evaluate(sae)
        key = "stance/latents_minus_embedding/auroc_within_source"
        value, low, high = (result.numbers[key + end] for end in ("", "_low", "_high"))
        assert value == pytest.approx(
            result.numbers["stance/latents/auroc_within_source"]
            - result.numbers["stance/embedding/auroc_within_source"]
        )
        assert low < value < high
        widths[copies] = high - low
        (row,) = [row for row in result.rows() if "minus that of the embedding" in row["section"]]
        assert (row["value"], row["low"], row["high"]) == (value, low, high)
        assert row["controls"]["C latents"] == result.numbers["stance/latents/C"]
        assert row["controls"]["C embedding"] == result.numbers["stance/embedding/C"]
        alone = [
            result.numbers[f"stance/{s}/auroc_within_source_{end}"]
            for s in ("latents", "embedding")
            for end in ("low", "high")
        ]
        assert high - low < (alone[1] - alone[0]) + (alone[3] - alone[2]), "pairing takes out what both share"
    assert widths[3] == pytest.approx(widths[1], rel=0.25)


def test_a_paired_interval_is_that_of_resamples_written_out(data):
    _, embeddings, sae = data
    made = Probes(
        embeddings, tasks=["stance"], spaces=["latents", "embedding"], n_permutations=0, n_bootstrap=60, seed=3
    )
    found = made.evaluate(sae).numbers
    (task,), _ = tasks_of(embeddings, ["stance"])
    z, x, y, sources = (
        encode(sae, embeddings).csr(),
        embeddings.take("hook_fused", np.arange(N)),
        task.label.values,
        embeddings.sources,
    )
    (latents,) = fit_latent_probes("stance", z[task.train], [y[task.train]], [found["stance/latents/C"]])
    (dense,) = fit_embedding_probes("stance", x[task.train], y[task.train], [found["stance/embedding/C"]])
    weights = resampled(embeddings, task.held_out, 60, 3)
    apart = []
    for drawn in weights.T[1:]:
        rows = np.repeat(task.held_out, drawn)
        both = [
            scores(p.classes, p.predict_proba(of[rows]), y[rows], sources[rows])[0]
            for p, of in ((latents, z), (dense, x))
        ]
        apart.append(both[0]["auroc_within_source"] - both[1]["auroc_within_source"])
    key = "stance/latents_minus_embedding/auroc_within_source"
    np.testing.assert_allclose(
        [found[f"{key}_low"], found[f"{key}_high"]], np.quantile(apart, [0.025, 0.975]), atol=1e-9
    )


def test_the_z_scores_are_of_the_known_train_rows_of_the_task(result):
    assert "z-scored on the known train rows of the task" in result.explain["hate/embedding/auroc"]


def test_majority_is_scikit_learns_prior(data, result):
    _, embeddings, _ = data
    label = embeddings.label("stance")
    train, test = embeddings.rows("train"), embeddings.rows("test")
    prior = DummyClassifier(strategy="prior").fit(train[:, None], label.values[train])
    assert result.numbers["stance/majority/auroc"] == 0.5
    assert result.numbers["stance/majority/accuracy"] == pytest.approx(prior.score(test[:, None], label.values[test]))
    expected = log_loss(label.values[test], prior.predict_proba(test[:, None]))
    assert result.numbers["stance/majority/log_loss"] == pytest.approx(expected)


def test_control_tells_a_real_label_from_one_that_follows_the_source(result):
    numbers = result.numbers
    assert numbers["hate/embedding/auroc"] > 0.9
    assert numbers["hate/latents/auroc"] > numbers["hate/latents_permuted/auroc"] + 0.15
    assert abs(numbers["hate/latents_permuted/auroc"] - 0.5) < 0.2


@given(st.integers(0, 1000), st.integers(2, 4))
@settings(deadline=None, max_examples=30)
def test_auroc_within_source_counts_the_pairs_of_each_source(seed, n_classes):
    rng = np.random.default_rng(seed)
    y, sources = rng.integers(0, n_classes, 40), rng.integers(0, 3, 40)
    p = np.round(rng.dirichlet(np.ones(n_classes), 40) * 5) + 1  # with ties
    p /= p.sum(1, keepdims=True)
    each = []
    for c in [1] if n_classes == 2 else range(n_classes):
        won = [
            (p[i, c] > p[j, c]) + 0.5 * (p[i, c] == p[j, c])
            for i in range(40)
            for j in range(40)
            if y[i] == c and y[j] != c and sources[i] == sources[j]
        ]
        each += [np.mean(won)] if won else []
    found, _ = scores(range(n_classes), p, y, sources)
    assert found["auroc_within_source"] == pytest.approx(np.mean(each))


def test_a_label_that_follows_the_source_is_read_from_the_source_alone():
    """The pooled AUROC is high, so is that of labels permuted within source; within source nothing is read."""
    rng = np.random.default_rng(0)
    second = rng.random(2000) < 0.5
    x = rng.standard_normal((2000, 12)).astype(np.float32)
    x[:, :3] += 4 * second[:, None]
    labels = {"shade": (rng.random(2000) < np.where(second, 0.9, 0.1)).astype(int).tolist()}
    embeddings = make_embeddings({"hook_fused": x}, sources=np.where(second, "b", "a").tolist(), labels=labels)
    numbers = Probes(embeddings).evaluate(tiny_sae(x, k=8)).numbers
    for space in ("latents", "embedding", "latents_permuted"):
        assert numbers[f"shade/{space}/auroc"] > 0.85
        assert abs(numbers[f"shade/{space}/auroc_within_source"] - 0.5) < 0.1


def test_the_control_is_the_mean_over_its_draws(data):
    _, embeddings, sae = data
    evaluator = Probes(embeddings, tasks=["stance"], spaces=["latents"], n_permutations=3, seed=5)
    result = evaluator.evaluate(sae)
    (task,), _ = tasks_of(embeddings, ["stance"])
    z, y, rng = encode(sae, embeddings).csr(), task.label.values, np.random.default_rng(5)
    each = []
    for _ in range(3):
        permuted = permute_within(y[task.train], embeddings.sources[task.train], rng)
        (probe,) = fit_latent_probes("stance", z[task.train], [permuted], [result.numbers["stance/latents/C"]])
        p = probe.predict_proba(z[task.held_out])
        each.append(roc_auc_score(y[task.held_out], p, multi_class="ovr", average="macro"))
    assert len(set(each)) == 3
    assert result.numbers["stance/latents_permuted/auroc"] == pytest.approx(np.mean(each))
    assert "stance/latents_permuted/auroc" not in Probes(embeddings, n_permutations=0).evaluate(sae).numbers


def test_labels_that_cannot_be_tasks_are_named(result):
    assert result.numbers["always/latents/auroc"] is None
    assert result.reasons["always/latents/auroc"] == "label 'always' has 1 class among its 420 known train rows"
    assert "label 'number' has 420 classes" in result.reasons["number/latents/auroc"]
    assert set(result.table["task"]) == {"hate", "stance", "shade"}
    json.dumps(result.to_dict(), allow_nan=False)


def test_same_result_twice(data, result):
    again = Probes(data[1]).evaluate(data[2])
    assert again.numbers == result.numbers


def test_string_labels_work_like_numbers():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((80, 3))
    y = np.where(x[:, 0] > 0, "yes", "no").astype(object)
    (probe,) = fit_embedding_probes("mood", x, y)
    assert probe.classes == ("no", "yes")
    found, reasons = scores(probe.classes, probe.predict_proba(x), y, np.array(["a", "b"] * 40))
    assert found["auroc"] > 0.99
    assert reasons == {}


def test_one_class_among_held_out_rows_leaves_auroc_undefined():
    p = np.array([[0.3, 0.7], [0.6, 0.4]])
    found, reasons = scores((0, 1), p, np.array([1, 1]), np.array(["a", "a"]))
    assert found["auroc"] is found["auroc_within_source"] is None
    assert reasons["auroc"] == "all 2 held-out rows are of one class"
    assert reasons["auroc_within_source"] == "the 2 held-out rows of each source are of one class"
    assert found["balanced_accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(-np.log([0.7, 0.4]).mean())


def test_no_held_out_rows_gives_reasons():
    found, reasons = scores((0, 1), np.empty((0, 2)), np.empty(0, dtype=int), np.empty(0, dtype=str))
    assert set(found.values()) == {None}
    assert set(reasons) == set(found)


def test_validation_rows_measure_where_the_test_rows_have_no_label():
    x = anisotropic(100, 8, np.random.default_rng(0))
    embeddings = make_embeddings(
        {"hook_fused": x}, labels={"hate": [i % 2 if i % 20 < 17 else None for i in range(100)]}
    )
    tasks, _ = tasks_of(embeddings)
    assert tasks[0].split == "validation"
    assert set(embeddings.splits[tasks[0].held_out]) == {"validation"}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40), st.integers(0, 99))
@settings(deadline=None)
def test_permuting_within_keeps_each_group(pairs, seed):
    groups, values = (np.array(column) for column in zip(*pairs, strict=True))
    permuted = permute_within(values, groups, np.random.default_rng(seed))
    for group in set(groups.tolist()):
        assert sorted(permuted[groups == group]) == sorted(values[groups == group])


def test_probes_on_the_embedding_are_shared_and_fitted_once(data, monkeypatch):
    from sae_lens_meme.evaluators import Influence, classifiers

    x, embeddings, sae = data
    asked, fit = [], classifiers.fit_embedding_probes
    monkeypatch.setattr(classifiers, "fit_embedding_probes", lambda task, *a: asked.append(task) or fit(task, *a))
    fitted, tasks = SharedProbes(), ["hate", "stance"]
    shared = Influence(embeddings, tasks=tasks, fitted=fitted, n_bootstrap=0)
    numbers = [Probes(embeddings, tasks=tasks, fitted=fitted).evaluate(sae).numbers, shared.evaluate(sae).numbers]
    assert sorted(asked) == tasks
    alone = [Probes(embeddings, tasks=tasks), Influence(embeddings, tasks=tasks, n_bootstrap=0)]
    for ours, theirs in zip(numbers, (evaluator.evaluate(sae).numbers for evaluator in alone), strict=True):
        norms = {key for key in theirs if key.endswith("gradient_norm")}  # of a fit that stopped elsewhere on its way
        assert {k: v for k, v in ours.items() if k not in norms} == pytest.approx(
            {k: v for k, v in theirs.items() if k not in norms}, rel=1e-6, abs=1e-9
        )
    shared.evaluate(sae, make_embeddings({"hook_fused": x + 1}, labels={t: [0, 1] * (N // 2) for t in tasks}))
    assert sorted(asked) == sorted(tasks * 4), "other memes have probes of their own"


def test_thinning_never_loses_a_class():
    values = np.zeros(1000, dtype=int)
    assert len(thinned(np.arange(1000), values, 10, 0)) == 10
    values[0] = 1
    assert len(thinned(np.arange(1000), values, 10, 0)) == 1000


def test_named_task_must_be_one(data):
    with pytest.raises(DataError, match="'always' has 1 class among its 420 known train rows"):
        Probes(data[1], tasks=["always"]).evaluate(data[2])
    with pytest.raises(DataError, match="label 'hat' is not in these embeddings; they have"):
        Probes(data[1], tasks=["hat"]).evaluate(data[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"spaces": ["pixels"]},
            r"probes\.spaces\.0 is 'pixels', it must be 'latents', 'embedding' or 'reconstruction'",
        ),
        ({"n_permutations": -4}, r"probes\.n_permutations is -4, it must be 0 or more"),
        ({"latents_C": [0.0]}, r"probes\.latents_C is 0\.0, it must be above 0"),
        ({"seed": 0.5}, r"probes\.seed is 0\.5, it must be an integer"),
        ({"task": ["hate"]}, "probes: unknown key 'task'; did you mean 'tasks'"),
        ({"tasks": "hate"}, r"probes\.tasks is 'hate', it must be"),
    ],
)
def test_wrong_options_are_refused(data, wrong, message):
    with pytest.raises(ConfigError, match=message):
        Probes(data[1], **wrong)


def test_probe_of_wrong_shape_is_refused():
    with pytest.raises(DataError, match="3 classes need 3 rows of weights"):
        Probe("stance", (0, 1, 2), np.zeros((1, 4)), np.zeros(1))


def test_a_label_without_test_rows_says_so_with_its_counts():
    x = anisotropic(100, 8, np.random.default_rng(0))
    known = [i % 2 if i % 20 < 14 else None for i in range(100)]
    other_class = [(i % 2 if i % 20 < 14 else 7) for i in range(100)]
    embeddings = make_embeddings({"hook_fused": x}, labels={"hate": known, "mood": other_class})
    result = Probes(embeddings).evaluate(tiny_sae(x))
    for task in ("hate", "mood"):
        assert result.numbers[f"{task}/latents/auroc"] is None
        assert result.reasons[f"{task}/latents/auroc"] == (
            f"label {task!r}: none of 15 test and 15 validation rows has a class that its 70 known train rows have"
        )
    assert result.rows() == []
    assert "left out" not in result.section.note or "hate, mood" in result.section.note
    assert result.verdict is None


def test_rows_carry_their_n_and_split(data, result):
    shown = {row["measure"]: row for row in result.rows() if "minus" not in row["section"]}
    numbers, table = result.numbers, result.table.set_index(["task", "space"])
    n = table.loc[("hate", "latents"), "n_held_out"]
    row = shown[f"hate ({n} test memes)"]
    assert row["value"] == numbers["hate/latents/auroc"]
    assert row["controls"] == {
        "permuted": numbers["hate/latents_permuted/auroc"],
        "within source": numbers["hate/latents/auroc_within_source"],
        "permuted, within source": numbers["hate/latents_permuted/auroc_within_source"],
        "embedding": numbers["hate/embedding/auroc"],
        "reconstruction": numbers["hate/reconstruction/auroc"],
    }
    assert len(shown) == 3, "labels that are no tasks have no row of dashes"
    assert "left out, reasons in evaluation.json: always, number" in result.section.note
    assert result.section.axis == "AUROC, held-out memes"


def test_the_note_explains_the_columns_that_are_there(data):
    _, embeddings, sae = data
    section = Probes(embeddings, tasks=["hate"], spaces=["latents"], n_permutations=0).evaluate(sae).section
    assert "permuted" not in section.note
    assert "reconstruction" not in section.note


def test_the_verdict_names_the_worst_label_and_the_rivals(result):
    within = {task: result.numbers[f"{task}/latents/auroc_within_source"] for task in ("hate", "stance", "shade")}
    worst = min(within, key=within.get)
    assert f"a median AUROC of {np.median([*within.values()]):.2f} within source (embedding 0." in result.verdict
    assert f"worst of 3 labels: {worst}, {within[worst]:.2f}." in result.verdict


def test_a_dimension_that_does_not_vary_has_no_weight():
    """Its rounding, divided by its own deviation, is as large as any other dimension."""
    rng = np.random.default_rng(0)
    x = anisotropic(300, 20, rng)
    y = (rng.random(300) < 0.5).astype(int)
    (without,) = fit_embedding_probes("task", np.delete(x, 5, axis=1), y)
    for column in (0.25, 4e-33 * y, 3e-10 * y):
        x[:, 5] = column
        (probe,) = fit_embedding_probes("task", x, y)
        assert not probe.coef[:, 5].any()
        np.testing.assert_allclose(np.delete(probe.coef, 5, axis=1), without.coef, rtol=1e-5)


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(Probes, case)
