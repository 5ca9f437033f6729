"""The table against naive loops over memes, the contract, the null tests, the invariances."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from source_corpus import CONCEPTS, FOLLOWS_HATE, FOLLOWS_SOURCE, source_corpus
from statsmodels.stats.proportion import proportion_confint
from tiny_sae import tiny_sae

from sae_lens_meme.embed import save_embeddings
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import EvaluateOptions, Latents, Result, Unavailable, encode
from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment, association, concept_alignment, measure_pairs
from sae_lens_meme.evaluators.concept_alignment import significant as significant_pairs
from sae_lens_meme.evaluators.concept_alignment.compute import f1_interval
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.opened import load_others
from sae_lens_meme.metrics.association import FALSE, TRUE, Counter, f1_bounds_at_ends

CONTRACT = [
    "latent",
    "concept",
    "protocol",
    "n",
    "a",
    "b",
    "c",
    "d",
    "odds_ratio",
    "p",
    "q_concept",
    "q_global",
    "auroc",
    "threshold",
    "f1_validation",
    "f1_test",
    "precision_test",
    "recall_test",
    "f1_always_on",
]


def align(embeddings: Embeddings, latents: Latents, **options: object) -> pd.DataFrame:
    options = {"concepts": CONCEPTS, "n_bootstrap": 0} | options
    table = ConceptAlignment(embeddings, **options).measure_latents(embeddings, latents).table  # type: ignore[arg-type]
    assert table is not None
    return table


@pytest.fixture(scope="module")
def corpus():
    return source_corpus()


@pytest.fixture(scope="module")
def table(corpus):
    return align(*corpus)


def pair(table: pd.DataFrame, latent: int, concept: str, protocol: str = "corrected") -> pd.Series:
    rows = table[(table.latent == latent) & (table.concept == concept) & (table.protocol == protocol)]
    assert len(rows) == 1
    return rows.iloc[0]


def activations(latents: Latents, latent: int) -> np.ndarray:
    return latents.csc()[:, [latent]].toarray().ravel()


@pytest.mark.parametrize("concept", CONCEPTS)
@pytest.mark.parametrize("latent", [0, 1, 2, 61, 100])
def test_a_row_equals_a_loop_over_memes(corpus, table, latent, concept):
    embeddings, latents = corpus
    row, z = pair(table, latent, concept), activations(latents, latent)
    known, true = Concept.parse(concept).truth(embeddings.label(Concept.parse(concept).label))
    cells = [z > 0, z <= 0]
    counts = [int((known & fires & (true == t)).sum()) for fires in cells for t in (True, False)]
    assert [row.n, row.a, row.b, row.c, row.d] == [known.sum(), *counts]
    on = {split: known & (embeddings.splits == split) for split in ("validation", "test")}
    x, y = z[on["validation"]], true[on["validation"]]
    thresholds = np.unique(x[x > 0])
    scores = [f1_score(y, x >= t) for t in thresholds]
    assert row.f1_validation == pytest.approx(max(scores))
    assert row.threshold in thresholds[np.isclose(scores, max(scores))]
    x, y = z[on["test"]] >= row.threshold, true[on["test"]]
    assert row.f1_test == pytest.approx(f1_score(y, x))
    expected = precision_score(y, x) if x.any() else None  # nothing reaches the threshold: undefined, not 0
    assert (None if pd.isna(row.precision_test) else row.precision_test) == pytest.approx(expected)
    assert row.recall_test == pytest.approx(recall_score(y, x))
    assert row.f1_always_on == pytest.approx(f1_score(y, np.ones_like(y)))
    assert row.winners_curse == pytest.approx(row.f1_validation - row.f1_test)
    wins = pairs = 0.0
    for source in np.unique(embeddings.sources):
        here = on["test"] & (embeddings.sources == source)
        n_pairs = (true & here).sum() * (~true & here).sum()
        if n_pairs:
            wins, pairs = wins + n_pairs * roc_auc_score(true[here], z[here]), pairs + n_pairs
    assert row.auroc == pytest.approx(wins / pairs)


@pytest.mark.parametrize("concept", ["hate=0", "sentiment<=-1", "sentiment>=1"])
def test_a_published_row_equals_interlvms_procedure(corpus, table, concept):
    embeddings, latents = corpus
    label = embeddings.label(Concept.parse(concept).label)
    numbers = np.where(label.known, label.values, -1)
    true = {"hate=0": numbers == 0, "sentiment<=-1": numbers <= -1, "sentiment>=1": numbers >= 1}[concept]
    p = []
    for latent in range(latents.d_sae):
        z = activations(latents, latent)
        counts = [[(fires & t).sum() for t in (true, ~true)] for fires in (z > 0, z <= 0)]
        p.append(stats.fisher_exact(counts, alternative="greater").pvalue)
    rows = table[(table.concept == concept) & (table.protocol == "published")].sort_values("latent")
    np.testing.assert_allclose(rows.p.to_numpy(float), p, rtol=1e-8)
    np.testing.assert_allclose(rows.q_concept.to_numpy(float), stats.false_discovery_control(p), rtol=1e-8)
    assert (rows.n == len(embeddings)).all()
    z = activations(latents, 7)
    row = pair(table, 7, concept, "published")
    assert row.auroc == pytest.approx(roc_auc_score(true, z))
    assert row.f1_validation == pytest.approx(max(f1_score(true, z >= t) for t in np.unique(z[z > 0])))
    assert rows[["f1_test", "precision_test", "recall_test"]].isna().all(axis=None)


def test_the_table_keeps_the_contract(corpus, table, tmp_path):
    assert list(table.columns[: len(CONTRACT)]) == CONTRACT
    assert len(table) == corpus[1].d_sae * len(CONCEPTS) * 2
    table.to_parquet(tmp_path / "table.parquet")
    back = pd.read_parquet(tmp_path / "table.parquet")
    assert set(back.protocol) == {"corrected", "published"}
    pd.testing.assert_frame_equal(back[CONTRACT].astype(table[CONTRACT].dtypes), table[CONTRACT])


def significant(table: pd.DataFrame, protocol: str, q: str) -> pd.DataFrame:
    return table[(table.protocol == protocol) & (table[q] < 0.05)]


def test_a_latent_that_follows_its_source_only(table):
    published, corrected = significant(table, "published", "q_concept"), significant(table, "corrected", "q_global")
    assert published.latent.isin(FOLLOWS_SOURCE).sum() > 100
    assert corrected.latent.isin(FOLLOWS_SOURCE).sum() <= 2


def test_a_latent_that_follows_a_concept_is_found(table):
    found = significant(table, "corrected", "q_global")
    assert set(found[found.concept == "hate=1"].latent) == set(FOLLOWS_HATE)
    assert (found[found.latent.isin(FOLLOWS_HATE)].odds_ratio_low > 1).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labels_that_mean_nothing(corpus, seed):
    embeddings, latents = corpus
    targets = ConceptLabels.of(embeddings, tuple(Concept.parse(c) for c in CONCEPTS))
    shuffled = targets.permuted(np.random.default_rng(seed))
    q = {p: measure_pairs(latents, shuffled, p).columns for p in ("corrected", "published")}
    assert (q["corrected"]["q_global"] < 0.05).sum() <= 1
    assert (q["published"]["q_concept"] < 0.05).sum() > 100


def test_labels_that_mean_nothing_are_seldom_called_significant(corpus):
    """With nothing to find, a false-discovery rate is the share of draws with any discovery; the p-values are not idle."""
    embeddings, latents = corpus
    targets, rng = ConceptLabels.of(embeddings, tuple(Concept.parse(c) for c in CONCEPTS)), np.random.default_rng(0)
    any_global, any_concept, below = [], [], []
    for _ in range(100):
        shuffled = targets.permuted(rng)
        log_p = association(Counter(latents.csc(), shuffled.known, shuffled.sources).count, shuffled, "corrected")
        found = significant_pairs(log_p, 0.05)
        any_global.append(found["global"].any())
        any_concept.append(found["concept"].any(axis=0))
        below.append((np.exp(log_p) < 0.05).mean())
    assert np.mean(any_global) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean(any_concept) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)
    assert 0.03 < np.mean(below) <= 0.05, "an exact test is a little conservative, not blind"


def test_f1_of_a_rule_that_reads_the_source_alone(corpus):
    """Against every subset of the sources, chosen on validation rows; a latent that names a source reaches it."""
    embeddings, latents = corpus
    numbers = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=0).measure_latents(embeddings, latents).numbers
    for name in CONCEPTS:
        known, true = Concept.parse(name).truth(embeddings.label(Concept.parse(name).label))
        on = {split: known & (embeddings.splits == split) for split in ("validation", "test")}
        score = {}
        for subset in itertools.product([False, True], repeat=3):
            fires = np.array(subset)[np.unique(embeddings.sources, return_inverse=True)[1]]
            score[subset] = [f1_score(true[rows], fires[rows], zero_division=0) for rows in on.values()]
        chosen = max(score.values(), key=lambda pair: pair[0])[0]
        expected = [test for validation, test in score.values() if validation == chosen]
        assert any(numbers[f"corrected/{name}/f1_source_only"] == pytest.approx(value) for value in expected)
    assert numbers["corrected/hate=1/f1_source_only"] > numbers["corrected/hate=1/best_f1_always_on"]
    assert "published/hate=1/f1_source_only" not in numbers


def test_permuting_keeps_every_margin_within_its_source(corpus):
    targets = ConceptLabels.of(corpus[0], tuple(Concept.parse(c) for c in CONCEPTS))
    shuffled = targets.permuted(np.random.default_rng(0))
    for source in range(3):
        here = targets.sources == source
        assert sorted(map(tuple, targets.known[here])) == sorted(map(tuple, shuffled.known[here]))
    assert not np.array_equal(targets.known, shuffled.known)


def small(seed: int, n: int = 120) -> tuple[Embeddings, Latents]:
    embeddings, latents = source_corpus(n, seed)
    return embeddings, Latents.from_csr(latents.csr()[:, [0, 1, 60, 61, 110]])


def take(embeddings: Embeddings, rows: np.ndarray) -> Embeddings:
    return Embeddings.from_dataset(embeddings.dataset.select(rows))


def assert_same(left: pd.DataFrame, right: pd.DataFrame, columns: list[str]) -> None:
    for column in columns:
        a, b = (t[column].astype(float).to_numpy(na_value=np.nan) for t in (left, right))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=column)


NUMBERS = [c for c in CONTRACT if c not in ("latent", "concept", "protocol")]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_invariances(seed):
    embeddings, latents = small(seed)
    base = align(embeddings, latents)
    order = np.random.default_rng(seed).permutation(len(embeddings))
    assert_same(align(take(embeddings, order), latents.rows(order)), base, NUMBERS)
    twice = np.concatenate([order, order])
    scores = [
        "f1_validation",
        "f1_test",
        "precision_test",
        "recall_test",
        "auroc",
        "threshold",
        "f1_always_on",
        "odds_ratio",
    ]
    assert_same(align(take(embeddings, twice), latents.rows(twice)), base, scores)
    scaled = Latents(latents.indices, latents.values * np.float32(8), latents.d_sae)
    assert_same(align(embeddings, scaled), base, [c for c in NUMBERS if c != "threshold"])


def test_a_latent_that_never_fires_has_no_numbers(corpus):
    embeddings, latents = corpus
    matrix = latents.csr()[:, :3].tolil()
    matrix[:, 1] = 0
    table = align(embeddings, Latents.from_csr(matrix.tocsr()))
    dead = table[(table.latent == 1) & (table.protocol == "corrected")]
    undefined = [c for c in NUMBERS if c not in ("n", "a", "b", "c", "d", "f1_always_on")]
    assert dead[undefined].isna().all(axis=None)
    assert not table[(table.latent == 0) & (table.protocol == "corrected")][undefined].isna().any(axis=None)


def sae_corpus(n: int = 400) -> tuple[np.ndarray, Embeddings]:
    rng = np.random.default_rng(0)
    x = anisotropic(n, 16, rng)
    hate = [int(v) if i % 5 else None for i, v in enumerate(x[:, 4] + x[:, 5] > x[:, 4].mean() + x[:, 5].mean())]
    return x, make_embeddings({"hook_fused": x}, labels={"hate": hate, "humor": rng.integers(0, 4, n).tolist()})


def test_numbers_and_intervals():
    x, embeddings = sae_corpus()
    result = ConceptAlignment(embeddings, n_bootstrap=50).evaluate(tiny_sae(x, d_sae=24, k=4))
    table, numbers = result.table, result.numbers
    assert table is not None
    corrected = table[table.protocol == "corrected"]
    assert numbers["corrected/n_significant_global"] == (corrected.q_global < 0.05).sum()
    assert numbers["corrected/n_latents_concept"] == corrected[corrected.q_concept < 0.05].latent.nunique()
    assert numbers["corrected/n_pairs_tested"] == corrected.p.notna().sum()
    assert (
        numbers["corrected/hate=1/n_significant_concept"]
        == (corrected[corrected.concept == "hate=1"].q_concept < 0.05).sum()
    )
    best = corrected[corrected.concept == "hate=1"].sort_values("f1_validation", ascending=False).iloc[0]
    assert numbers["corrected/hate=1/best_latent"] == best.latent
    assert numbers["corrected/hate=1/best_f1_test"] == best.f1_test
    low, high = (numbers[f"corrected/hate=1/best_f1_test_{end}"] for end in ("low", "high"))
    assert low < best.f1_test < high
    count = numbers["corrected/n_significant_global"]
    assert numbers["corrected/n_significant_global_low"] <= count <= numbers["corrected/n_significant_global_high"]
    assert numbers["published/median_best_f1_test"] is None
    assert "holds no rows out" in result.reasons["published/median_best_f1_test"]


@pytest.mark.parametrize(
    ("splits", "null", "threshold_split"),
    [
        (["train", "test"], [], "train"),
        (["train", "validation"], ["f1_test", "precision_test", "recall_test", "auroc", "f1_always_on"], "validation"),
        (["test"], ["f1_test", "threshold", "f1_validation"], None),
    ],
)
def test_splits_that_are_not_there(splits, null, threshold_split):
    x, embeddings = sae_corpus(300)
    cycled = [splits[i % len(splits)] for i in range(300)]
    embeddings = Embeddings.from_dataset(embeddings.dataset.remove_columns("split").add_column("split", cycled))  # type: ignore[call-arg]
    result = ConceptAlignment(embeddings, protocol="corrected", n_bootstrap=10).evaluate(tiny_sae(x, d_sae=24, k=4))
    assert result.table is not None
    row = result.table[result.table.concept == "hate=1"].dropna(subset="p").iloc[0]
    for column in null:
        assert row[column] is pd.NA
    assert not pd.isna(row.p)
    assert (row.threshold_split == threshold_split) if threshold_split else pd.isna(row.threshold_split)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_latent_one_concept():
    x, embeddings = sae_corpus()
    sae = tiny_sae(x, d_sae=24, k=4)
    table = ConceptAlignment(embeddings, n_bootstrap=0).evaluate(sae).table
    assert table is not None
    latent = int(table[table.concept == "hate=1"].dropna(subset="f1_test").sort_values("p").latent.iloc[0])
    got, row = (
        concept_alignment(latent=latent, concept="hate=1", sae=sae, embeddings=embeddings),
        pair(table, latent, "hate=1"),
    )
    fields = {"f1": "f1_test", "precision": "precision_test", "recall": "recall_test", "q": "q_global"}
    for name in ("f1", "f1_always_on", "precision", "recall", "p", "q", "odds_ratio", "auroc", "n"):
        value = row[fields.get(name, name)]
        assert getattr(got, name) == (None if pd.isna(value) else pytest.approx(value)), name
    z = activations(encode(sae, embeddings), latent)
    assert [value for _, value in got.top_memes] == sorted(z, reverse=True)[:10]
    assert got.top_memes[0][0] == embeddings.ids[z.argmax()]


def test_a_question_of_folders_and_of_an_sae_that_names_no_hook(tmp_path):
    x, embeddings = sae_corpus()
    sae = tiny_sae(x, d_sae=24, k=4)
    expected = concept_alignment(latent=np.int64(3), concept="hate=1", sae=sae, embeddings=embeddings)  # type: ignore[arg-type]
    sae.cfg.metadata.hook_name = None
    sae.save_model(tmp_path / "sae")
    save_embeddings(embeddings, tmp_path / "embeddings")
    with pytest.raises(ConfigError, match="this SAE names no hook; pass hook=, one of hook_fused"):
        concept_alignment(latent=3, concept="hate=1", sae=sae, embeddings=embeddings)
    folders = {"sae": tmp_path / "sae", "embeddings": tmp_path / "embeddings"}
    assert concept_alignment(latent=3, concept="hate=1", hook="hook_fused", **folders) == expected
    others = load_others([tmp_path / "sae"], "hook_fused")
    assert others["sae"][1].cfg.metadata.hook_name == "hook_fused"


def test_an_undefined_answer_has_a_reason():
    x, embeddings = sae_corpus()
    sae = tiny_sae(x, d_sae=24, k=4)
    sae.b_enc.data[3] = -1e6
    got = concept_alignment(latent=3, concept="humor>=2", sae=sae, embeddings=embeddings)
    undefined = {f.name for f in dataclasses.fields(got) if getattr(got, f.name) is None}
    assert undefined == {"f1", "precision", "recall", "p", "q", "odds_ratio", "auroc"} == got.reasons.keys()
    assert got.reasons["p"] == "the latent fires on no meme with a known label"
    assert got.top_memes == ()


def test_one_class_is_null_with_a_reason_and_not_an_error():
    x, _ = sae_corpus()
    embeddings = make_embeddings({"hook_fused": x}, labels={"hate": [1] * 400})
    result = ConceptAlignment(embeddings, n_bootstrap=3).evaluate(tiny_sae(x, d_sae=24, k=4))
    assert result.numbers["corrected/n_pairs_tested"] == 0
    assert result.numbers["corrected/median_best_auroc"] is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_bad_questions():
    x, embeddings = sae_corpus()
    sae = tiny_sae(x, d_sae=24, k=4)
    with pytest.raises(ConfigError, match="there is no label 'stance'; these embeddings have hate, humor"):
        concept_alignment(latent=0, concept="stance=support", sae=sae, embeddings=embeddings)
    with pytest.raises(DataError, match=r"latent 24 is outside 0..23 of this SAE"):
        concept_alignment(latent=24, concept="hate=1", sae=sae, embeddings=embeddings)
    for wrong, message in (
        ({"latent": 7.0}, "latent is 7.0, it must be an integer"),
        ({"latent": True}, "latent is True, it must be an integer"),
        ({"top": -1}, "top is -1, it must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            concept_alignment(**{"latent": 0, "concept": "hate=1", "sae": sae, "embeddings": embeddings} | wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="protocol is 'right', it must be 'corrected', 'published' or 'both'"):
        ConceptAlignment(embeddings, protocol="right")
    with pytest.raises(ConfigError, match="alpha is 5"):
        ConceptAlignment(embeddings, alpha=5.0)


def test_the_size_of_the_effect_stands_beside_the_count(corpus):
    embeddings, latents = corpus
    result = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=5).measure_latents(embeddings, latents)
    assert result.table is not None
    of = result.table[result.table.protocol == "corrected"].reset_index(drop=True)
    rest = np.flatnonzero(embeddings.splits != "test")
    without = align(
        Embeddings.from_dataset(embeddings.dataset.select(rest)),
        Latents.from_csr(latents.csr()[rest]),
        protocol="corrected",
    )
    pairs = of[without.q_global < 0.05]
    n, numbers = int((of.q_global < 0.05).sum()), result.numbers
    assert numbers["corrected/n_significant_without_test_global"] == len(pairs)
    assert numbers["corrected/median_auroc_significant_global"] == pytest.approx(pairs.auroc.astype(float).median())
    assert numbers["corrected/n_auroc_above_half_significant_global"] == (pairs.auroc_low > 0.5).sum()
    low, high = (pairs[end].dropna().astype(float) for end in ("auroc_low", "auroc_high"))
    share = ((low <= 0.5) & (high >= 0.5)).mean()
    assert numbers["corrected/share_auroc_holding_half_significant_global"] == pytest.approx(share)
    row = next(row for row in result.rows() if row["measure"].startswith("corrected protocol (of"))
    assert row["measure"] == f"corrected protocol (of {numbers['corrected/n_pairs_tested']} pairs tested)"
    assert (row["value"], row["low"] is None) == (n, False)
    assert row["controls"] == {
        "without test memes": len(pairs),
        "median AUROC": numbers["corrected/median_auroc_significant_global"],
        "share with .5 in its interval": numbers["corrected/share_auroc_holding_half_significant_global"],
        "above always on, of 6 concepts": numbers["corrected/n_concepts_above_always_on"],
    }
    assert result.verdict == (
        f"{n} of {numbers['corrected/n_pairs_tested']} latent x concept pairs are significant; those found without the test "
        f"memes ({len(pairs)}) have a median AUROC of {row['controls']['median AUROC']:.2f} on them, {share:.0%} indistinguishable from .5; the best latent beats always-on for "
        f"{numbers['corrected/n_concepts_above_always_on']} of 6 concepts."
    )
    assert "no measure of quality" in result.section.note


def test_test_memes_choose_no_pair_whose_effect_they_measure():
    """Latents of one true AUROC of .52: those found with the help of the test memes have .529 there."""
    rng = np.random.default_rng(0)
    true, splits = rng.random(2_000) < 0.5, np.array(["train", "test"] * 1_000)
    fires = rng.random((2_000, 600)) < np.where(true, 0.34, 0.30)[:, None]
    latents = Latents.from_csr(sparse.csr_matrix(fires.astype(np.float32)))
    x = {"hook_fused": np.zeros((2_000, 2), np.float32)}
    embeddings = make_embeddings(x, labels={"hate": true.astype(int).tolist()}, splits=splits.tolist())
    given = {"concepts": ["hate=1"], "protocol": "corrected", "n_bootstrap": 0}
    numbers = ConceptAlignment(embeddings, **given).measure_latents(embeddings, latents).numbers
    assert numbers["corrected/median_auroc_significant_global"] == pytest.approx(0.52, abs=0.004)
    rest = make_embeddings(x, labels={"hate": true.astype(int).tolist()}, splits=["train"] * 2_000)
    result = ConceptAlignment(rest, **given).measure_latents(rest, latents)
    keys = [
        f"corrected/{q}_significant_global" for q in ("median_auroc", "n_auroc_above_half", "share_auroc_holding_half")
    ]
    assert [result.numbers[key] for key in keys] == [None] * 3
    assert all("no test memes" in result.reasons[key] for key in keys)


@pytest.mark.parametrize(("fired", "true"), [(0, 7), (5, 7), (40, 3), (1, 1)])
def test_an_f1_of_0_or_1_has_the_bounds_of_its_binomial_share(fired, true):
    """Clopper and Pearson's, by statsmodels, of tp / (tp + fp + fn); F1 = 2 J / (1 + J)."""
    low, high = f1_bounds_at_ends(np.array(0), np.array(fired), np.array(true))
    share = proportion_confint(0, fired + true, method="beta")[1]
    assert (low, high) == (0, pytest.approx(2 * share / (1 + share)))
    low, high = f1_bounds_at_ends(np.array(true), np.array(true), np.array(true))
    share = proportion_confint(true, true, method="beta")[0]
    assert (low, high) == (pytest.approx(2 * share / (1 + share)), 1)
    assert np.isnan(f1_bounds_at_ends(np.array(1), np.array(5), np.array(7))).all(), "the bootstrap serves elsewhere"
    assert np.isnan(f1_bounds_at_ends(np.array(0), np.array(5), np.array(0))).all(), "no meme is true: there is no F1"


@pytest.mark.parametrize("share", [0.005, 0.02, 0.98, 0.995])
def test_the_interval_of_an_f1_near_0_or_1_covers_it(share):
    """400 draws of 60 memes that are true or fire, of which `share` do both; at an F1 of 0 the bootstrap says 0 to 0."""
    rng = np.random.default_rng(0)
    both = rng.random((60, 400)) < share
    fires = both | (rng.random(both.shape) < 0.5)
    codes = np.where(both | ~fires, TRUE, FALSE).astype(np.uint8)
    low, high = f1_interval(fires, codes, np.zeros(60, int), 200, 0)
    ends = f1_score_of(both, fires, codes) == (0 if share < 0.5 else 1)
    assert ends.any()
    assert (low < high)[ends].all()
    f1 = 2 * share / (1 + share)
    assert np.mean((low <= f1) & (f1 <= high)) >= 0.93


def f1_score_of(both: np.ndarray, fires: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return 2 * both.sum(axis=0) / (fires.sum(axis=0) + (codes == TRUE).sum(axis=0))


def test_a_latent_that_fails_on_test_memes_has_an_interval_above_0():
    """It follows the concept on validation memes alone."""
    true, splits = np.arange(120) % 2 == 0, ["train", "validation", "test"] * 40
    embeddings = make_embeddings(
        {"hook_fused": np.eye(120, 4, dtype=np.float32)}, labels={"hate": true.astype(int).tolist()}, splits=splits
    )
    fires = np.where(np.array(splits) == "test", ~true, true)
    latents = Latents.from_csr(fires[:, None].astype(np.float32))
    result = ConceptAlignment(embeddings, ["hate=1"], n_bootstrap=20).measure_latents(embeddings, latents)
    best = next(measure for measure in result.measures if measure.key == "corrected/hate=1/best_f1_test")
    assert (best.value, best.interval.low) == (0, 0)  # type: ignore[union-attr]
    assert best.interval.high == pytest.approx(0.168, abs=0.01)  # type: ignore[union-attr]
    assert "Clopper and Pearson" in result.explain["corrected/hate=1/best_f1_test_high"]


def rows_of(result: Result, section: str) -> list[str]:
    return [row["measure"] for row in result.rows() if section in row["section"]]


def with_splits(embeddings: Embeddings, splits: list[str]) -> Embeddings:
    return Embeddings.from_dataset(embeddings.dataset.remove_columns("split").add_column("split", splits))  # type: ignore[call-arg]


def test_the_page_says_which_split_chose_the_best_latents():
    x, embeddings = sae_corpus()
    sae, evaluator = tiny_sae(x, d_sae=24, k=4), ConceptAlignment(embeddings, n_bootstrap=0, protocol="corrected")
    notes = {}
    for name in ("validation", "train"):
        memes = with_splits(embeddings, [("train", name, "test")[i % 3] for i in range(400)])
        result = evaluator.evaluate(sae, memes)
        notes[name] = " ".join(f"{section['title']} {section['note']}" for section in result.sections())
        (split,) = result.table["threshold_split"].dropna().unique()  # type: ignore[index]
        assert split == name
        pair = concept_alignment(latent=3, concept="hate=1", sae=sae, embeddings=memes)
        assert pair.threshold_split == name
    assert "chosen on validation memes;" in notes["validation"]
    assert "chosen on train memes (no concept is true of a validation meme)" in notes["train"]
    assert "on validation memes" not in notes["train"]


def test_a_concept_of_which_validation_knows_nothing_is_named():
    x, embeddings = sae_corpus()
    known = [None if split == "validation" else int(i % 3 == 0) for i, split in enumerate(embeddings.splits)]
    memes = make_embeddings({"hook_fused": x}, labels={"hate": known, "humor": [i % 4 for i in range(400)]})
    result = ConceptAlignment(memes, n_bootstrap=0).evaluate(tiny_sae(x, d_sae=24, k=4))
    note = result.sections()[1]["note"]
    assert "chosen on validation memes (train memes for hate=1, hate=0: true of no validation meme)" in note


def test_a_concept_without_test_memes_says_so_with_its_counts():
    x, embeddings = sae_corpus()
    known = [None if split == "test" else int(i % 3 == 0) for i, split in enumerate(embeddings.splits)]
    memes = make_embeddings({"hook_fused": x}, labels={"hate": known, "humor": [i % 4 for i in range(400)]})
    result = ConceptAlignment(memes, n_bootstrap=5).evaluate(tiny_sae(x, d_sae=24, k=4))
    shown = rows_of(result, "best latent of each concept")
    assert any("hate=1" in row and "label known for 280 train, 60 validation, 0 test memes" in row for row in shown)
    assert not any("humor" in row and "known for" in row for row in shown)
    reason = result.reasons["corrected/hate=1/best_f1_test"]
    assert "the label is known for 280 train, 60 validation, 0 test memes" in reason
    assert "the concept is true of" in reason


def test_without_test_memes_there_is_no_column_of_dashes(corpus):
    embeddings, latents = corpus
    memes = with_splits(embeddings, ["train", "validation"] * 1500)
    result = ConceptAlignment(memes, CONCEPTS, n_bootstrap=0).measure_latents(memes, latents)
    assert not rows_of(result, "best latent of each concept")
    assert (result.verdict or "").endswith(
        "pairs are significant; there are no test memes to say how large the effects are."
    )


def test_a_count_of_0_has_no_interval_of_0_to_0():
    rng = np.random.default_rng(0)
    embeddings = make_embeddings(
        {"hook_fused": np.eye(200, 4, dtype=np.float32)}, labels={"hate": rng.integers(0, 2, 200).tolist()}
    )
    latents = Latents.from_csr((rng.random((200, 3)) < 0.1).astype(np.float32))
    result = ConceptAlignment(embeddings, n_bootstrap=20).measure_latents(embeddings, latents)
    assert result.numbers["corrected/n_significant_global"] == 0
    assert result.numbers["corrected/n_significant_global_high"] is None
    assert "gives 0: its spread is not known" in result.reasons["corrected/n_significant_global_high"]
    assert result.verdict == "Not one of 6 latent x concept pairs is significant."


def test_without_a_label_for_concepts_the_evaluator_is_unavailable_and_a_question_is_answered():
    x, _ = sae_corpus()
    memes = make_embeddings({"hook_fused": x}, labels={"author": [i % 20 for i in range(400)]})
    sae = tiny_sae(x, d_sae=24, k=4)
    context = Context(sae, memes, encode(sae, memes), EvaluateOptions())
    for evaluator in (ConceptAlignment, Baselines):
        with pytest.raises(Unavailable, match="no label has 2 to 10 classes"):
            evaluator.from_context(context)
    assert concept_alignment(latent=3, concept="author=7", sae=sae, embeddings=memes).n == 400
