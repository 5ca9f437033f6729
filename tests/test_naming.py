"""Names of latents: the paper's log-odds by hand, held-out scores by scikit-learn, planted words, nulls, outside namers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic, make_embeddings
from conformance import check_evaluator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import Latents, Naming, Result
from sae_lens_meme.evaluators.naming import word_log_odds
from sae_lens_meme.evaluators.naming.compute import PairCounter, activation_auroc, scores
from sae_lens_meme.evaluators.naming.statements import Statements, words_of
from sae_lens_meme.metrics.association import Counter, phi_within
from sae_lens_meme.metrics.ranking import Ranked, auroc

SOURCES = np.array(["alpha", "beta", "gamma"])
ON_CAT, ON_HATE, ON_SOURCE, SILENT, RARE, NOISE = 0, 1, 2, 3, 4, range(5, 40)


def with_texts(embeddings: Embeddings, texts: list[str | None]) -> Embeddings:
    return Embeddings.from_dataset(embeddings.dataset.add_column("text", texts))  # type: ignore[call-arg]


def captioned_corpus(n: int = 3000, seed: int = 0) -> tuple[Embeddings, Latents]:
    """Sources with vocabularies of their own; latents that fire on a word, on a label, on a source, never, at random."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 3, n)
    hate = rng.random(n) < np.array([0.2, 0.6, 0.4])[source]
    cat = rng.random(n) < 0.12
    words = np.where(rng.random((n, 8)) < 0.5, "own", "shared")
    kinds = rng.integers(0, 30, (n, 8))
    texts: list[str | None] = [
        " ".join([f"{SOURCES[s]}ish{'abcdefghijklmnopqrstuvwxyzäöüé'[k]}" if w == "own" else f"word{'abcdefghij'[k % 10]}" for w, k in zip(ws, ks, strict=True)]) + (" Cat!" if c else "")
        for s, ws, ks, c in zip(source, words, kinds, cat, strict=True)
    ]  # fmt: skip
    without = rng.random(n) < 0.1
    texts = [None if missing else text for text, missing in zip(texts, without, strict=True)]
    rate = np.full((n, 40), 0.1)
    rate[:, ON_CAT] = np.where(cat, 0.7, 0.03)
    rate[:, ON_HATE] = np.where(hate, 0.6, 0.05)
    rate[:, ON_SOURCE] = np.where(source == 0, 0.6, 0.02)
    rate[:, SILENT] = 0
    rate[:, RARE] = 0.0005
    fires = rng.random(rate.shape) < rate
    latents = Latents.from_csr(sparse.csr_matrix(fires * (rng.random(rate.shape) + 0.1)))
    embeddings = make_embeddings(
        {"hook_fused": rng.standard_normal((n, 4)).astype(np.float32)},
        sources=SOURCES[source].tolist(),
        splits=rng.choice(["train", "validation", "test"], n, p=[0.6, 0.1, 0.3]).tolist(),
        labels={"hate": [None if rng.random() < 0.2 else int(h) for h in hate]},
    )
    return with_texts(embeddings, texts), latents


def name(embeddings: Embeddings, latents: Latents, **options: object) -> Result:
    options = {"n_bootstrap": 0} | options
    return Naming(embeddings, **options).measure_latents(embeddings, latents)  # type: ignore[arg-type]


def rows_of(result: Result) -> pd.DataFrame:
    assert result.table is not None
    return result.table


@pytest.fixture(scope="module")
def corpus() -> tuple[Embeddings, Latents]:
    return captioned_corpus()


@pytest.fixture(scope="module")
def result(corpus) -> Result:
    return name(*corpus, n_bootstrap=40)


def reordered(embeddings: Embeddings, latents: Latents, order: np.ndarray) -> tuple[Embeddings, Latents]:
    return Embeddings.from_dataset(embeddings.dataset.select(order)), latents.rows(order)


def test_log_odds_are_the_papers(corpus):
    embeddings, latents = corpus
    words = words_of(embeddings.texts, embeddings.rows("train"), embeddings.rows("test"), embeddings.strata)
    rows, occurs = words.selection.rows, words.selection.true.toarray().astype(float)
    strata = np.unique(embeddings.sources[rows], return_inverse=True)[1]
    active = latents.csr()[rows].tocsc()
    found = word_log_odds(active, words.selection.true.tocsr(), strata, alpha_0=300.0, top=4)
    for latent in (ON_CAT, ON_HATE, ON_SOURCE, NOISE[0]):
        fires = active[:, [latent]].toarray().ravel() > 0
        delta, z = naive_log_odds(occurs, fires, strata, 300.0)
        best = np.argsort(-z)[:4]
        np.testing.assert_array_equal(found.word[latent], best)
        np.testing.assert_allclose(found.z[latent], z[best], rtol=1e-10)
        np.testing.assert_allclose(found.log_odds[latent], delta[best], rtol=1e-10)
    assert (found.word[SILENT] == -1).all()
    assert np.isnan(found.z[SILENT]).all()


def naive_log_odds(occurs, fires, strata, alpha_0):
    """Monroe et al. (2008), equations 15, 16, 19, 20 and 22, word by word; sources weighted by 1 / variance."""
    delta, z = np.full(occurs.shape[1], np.nan), np.full(occurs.shape[1], np.nan)
    for word in range(occurs.shape[1]):
        deltas, variances = [], []
        for s in np.unique(strata):
            y_i, y_j = (occurs[(strata == s) & (fires == side), word].sum() for side in (True, False))
            n_i, n_j = (occurs[(strata == s) & (fires == side)].sum() for side in (True, False))
            alpha = alpha_0 * (y_i + y_j) / (n_i + n_j)
            if alpha == 0 or n_i == 0 or n_j == 0:
                continue
            omega_i = (y_i + alpha) / (n_i + alpha_0 - y_i - alpha)
            omega_j = (y_j + alpha) / (n_j + alpha_0 - y_j - alpha)
            deltas.append(np.log(omega_i) - np.log(omega_j))
            variances.append(1 / (y_i + alpha) + 1 / (y_j + alpha))
        weights = 1 / np.array(variances)
        delta[word] = (weights * deltas).sum() / weights.sum()
        z[word] = delta[word] / np.sqrt(1 / weights.sum())
    return delta, z


def test_equal_z_are_ordered_by_the_word():
    """Two words that occur in the same captions, with the memes in either order."""
    occurs = sparse.csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 6))
    active = sparse.csc_matrix(np.array([[0.0], [1.0]] * 6, dtype=np.float32))
    for order in (np.arange(12), np.arange(12)[::-1]):
        found = word_log_odds(active[order], occurs[order], np.zeros(12, int), top=3)
        assert found.word[0].tolist() == [2, 3, -1]


def test_the_only_word_of_a_source_says_nothing():
    found = word_log_odds(sparse.csc_matrix([[1.0], [0.0]]), sparse.csr_matrix([[1], [1]]), np.zeros(2, int))
    assert (found.word == -1).all()


def test_planted_names(result):
    table = rows_of(result)
    assert table.loc[ON_CAT, ["name", "kind", "holds"]].tolist() == ["cat", "word", True]
    assert table.loc[ON_HATE, ["name", "kind", "holds"]].tolist() == ["hate=1", "concept", True]
    assert table["auroc_low"][ON_CAT] > 0.7
    assert table["words"][ON_CAT].split(", ")[0] == "cat"
    others = table.loc[[ON_SOURCE, SILENT, RARE, *NOISE]]
    assert others["name"].isna().all()
    assert others["auroc"].isna().all()
    assert table["reason"][SILENT] == "fires on no selection row"
    assert table["reason"][RARE] == "fires on fewer than 5 selection rows"
    assert "no word or concept is associated" in table["reason"][ON_SOURCE]
    assert table.loc[SILENT, ["word", "word_z", "word_auroc", "concept", "concept_q"]].isna().all()
    assert result.numbers["names/n_named"] == result.numbers["names/n_hold"] == 2
    assert result.numbers["names/n_hold_low"] == pytest.approx(2, abs=1)


def test_a_latent_that_follows_a_source_is_not_named_by_its_vocabulary(corpus, result):
    """Without the control for source it is: that is what the control is for."""
    embeddings, latents = corpus
    pooled = Embeddings.from_dataset(embeddings.dataset.remove_columns("source"))
    naive = rows_of(name(pooled, latents)).loc[ON_SOURCE]
    assert naive["word"].startswith("alphaish")
    assert naive["holds"]
    assert rows_of(result)["word_q_selection"][ON_SOURCE] > 0.05


def test_permuted_latents_have_no_names_that_hold(corpus):
    embeddings, latents = corpus
    found = [name(embeddings, latents, seed=seed).numbers for seed in range(8)]
    assert sum(numbers["permuted/names/n_named"] for numbers in found) <= 2, "of 320; alpha is .05 a draw"
    assert sum(numbers["permuted/names/n_hold"] for numbers in found) == 0
    assert min(numbers["permuted/word/mean_auroc_selection"] for numbers in found) > 0.51, "the best of many words"
    for score in ("word/mean_auroc", "word/mean_auroc_activation", "concept/mean_auroc"):
        assert np.mean([numbers[f"permuted/{score}"] for numbers in found]) == pytest.approx(0.5, abs=0.005)


def test_held_out_scores_are_scikit_learns_and_of_test_rows(corpus):
    embeddings, latents = corpus
    embeddings = Embeddings.from_dataset(embeddings.dataset.remove_columns("source"))
    table = rows_of(name(embeddings, latents))
    test = [row for row in embeddings.rows("test") if embeddings.texts[row] is not None]  # type: ignore[index]
    says = np.array([table["word"][ON_CAT] in str(embeddings.texts[row]).casefold() for row in test])  # type: ignore[index]
    values = latents.csr()[test][:, [ON_CAT]].toarray().ravel()
    check_scores(table.loc[ON_CAT], "word_", says, values)
    label = embeddings.label("hate")
    known = embeddings.rows("test")[label.known[embeddings.rows("test")]]
    values = latents.csr()[known][:, [ON_HATE]].toarray().ravel()
    check_scores(table.loc[ON_HATE], "concept_", label.values[known] == 1, values)
    check_scores(table.loc[ON_HATE], "", label.values[known] == 1, values)


def check_scores(row: pd.Series, prefix: str, says: np.ndarray, values: np.ndarray) -> None:
    fires = values > 0
    expected = {
        "auroc": roc_auc_score(fires, says),
        "auroc_activation": roc_auc_score(says, values),
        "f1": f1_score(fires, says),
        "f1_always_on": f1_score(fires, np.ones_like(fires)),
        "precision": precision_score(fires, says),
        "recall": recall_score(fires, says),
        "correlation": np.corrcoef(fires, says)[0, 1],
        "n": len(fires),
        "support": fires.sum(),
        "n_true": says.sum(),
    }
    assert {key: row[f"{prefix}{key}"] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_scores_within_strata(seed):
    """Against DeLong's by `ranking.auroc` on the indicator, and correlation of indicators centred within stratum."""
    rng = np.random.default_rng(seed)
    n, strata = 120, rng.integers(0, 4, 120)
    active = sparse.random(n, 3, 0.3, format="csc", random_state=rng, dtype=np.float32)
    true, known = rng.random((n, 2)) < 0.3, rng.random((n, 2)) < 0.8
    statements = Statements(np.arange(n), sparse.csc_matrix(true & known), sparse.csc_matrix(known), strata)
    chosen, weights = np.array([1, -1, 0]), rng.integers(0, 3, n)
    active.sort_indices()
    tables = PairCounter(active, statements, chosen).count()
    found = scores(tables)
    assert np.isnan([values[1] for values in found.values()]).all()
    activation = activation_auroc(active, statements, chosen)
    for latent, statement in ((0, 1), (2, 0)):
        rows = known[:, statement]
        fires, says = active[:, [latent]].toarray().ravel()[rows] > 0, true[rows, statement]
        indicator = Ranked.of(sparse.csc_matrix(says[:, None].astype(np.float32)))
        value, error = auroc(indicator, np.where(fires, 2, 1).astype(np.uint8)[:, None], strata[rows])
        assert found["auroc"][latent] == pytest.approx(value[0, 0])
        assert found["auroc_high"][latent] - found["auroc"][latent] == pytest.approx(1.96 * error[0, 0], rel=1e-4)
        centred = [x - np.array([x[strata[rows] == s].mean() for s in strata[rows]]) for x in (fires, says)]
        assert found["correlation"][latent] == pytest.approx(np.corrcoef(*centred)[0, 1])
        direct = auroc(Ranked.of(active), statements.codes(statement), strata)
        assert activation[0][latent] == pytest.approx(direct.value[latent, 0])
        whole = Counter(active, statements.codes(statement), strata).count(weights)
        mine = PairCounter(active, statements, chosen).count(weights)
        for part in ("fires_true", "fires"):
            np.testing.assert_array_equal(getattr(mine, part)[0, latent], getattr(whole, part)[latent, 0])
        np.testing.assert_array_equal(mine.true[latent], whole.true[0])
        np.testing.assert_array_equal(mine.n[latent], whole.n[0])
    assert phi_within(tables.n, tables.fires, tables.true, tables.fires_true).shape == (1, 3)


def test_one_meme_that_fires_gives_no_interval():
    statements = Statements(np.arange(4), sparse.csc_matrix([[1], [0], [0], [1]]), None, np.zeros(4, int))
    active = sparse.csc_matrix([[1.0], [0], [0], [0]])
    found = scores(PairCounter(active, statements, np.array([0])).count())
    assert found["auroc"][0] == pytest.approx((1 + 1 + 0.5) / 3)
    assert np.isnan(found["auroc_low"][0])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_order_of_memes_and_scale_of_latents_do_not_matter(seed, scale):
    embeddings, latents = captioned_corpus(400, seed)
    first = name(embeddings, latents, min_df=3)
    order = np.random.default_rng(seed).permutation(400)
    second = name(*reordered(embeddings, latents, order), min_df=3)
    pd.testing.assert_frame_equal(rows_of(first), rows_of(second))
    assert first.to_dict() == second.to_dict()
    scaled = Latents(latents.indices, latents.values * np.float32(scale), latents.d_sae)
    pd.testing.assert_frame_equal(rows_of(first), rows_of(name(embeddings, scaled, min_df=3)))


def test_the_printed_rows_say_of_how_many_and_on_which_memes(result):
    rows = {row["measure"]: row for row in result.rows()}
    assert "latents with a name, of 39 that fire (1 by a word, 1 by a concept)" in rows
    hold = rows["names that hold on test memes, q < 0.05 (of 2)"]
    assert (hold["value"], hold["low"]) == (2, pytest.approx(2, abs=1))
    candidates = result.numbers["word/n_candidates"]
    word = rows[f"AUROC of firing by the best word, test memes, mean of {candidates} latents"]
    assert word["controls"] == {"permuted": result.numbers["permuted/word/mean_auroc"]}
    named, auroc = (result.numbers[key] for key in ("permuted/names/n_named", "names/median_auroc_hold"))
    assert result.verdict == (
        f"2 of 39 latents have a name ({named} of permuted latents); 2 of 2 names hold on test memes, and predict firing with a "
        f"median AUROC of {auroc:.2f}; 2 reach 0.6, the others are printed as 'no name'."
    )


def test_the_names_that_hold_are_summed_up_and_weak_ones_are_printed_as_no_name():
    """A latent that follows a word a little: the name holds, and tells firing hardly better than a guess."""
    embeddings, latents = captioned_corpus(6000)
    has_cat = np.array([text is not None and "Cat" in text for text in embeddings.texts])  # type: ignore[union-attr]
    matrix, weak = latents.csr().tolil(), NOISE[0]
    fires = np.random.default_rng(3).random(6000) < np.where(has_cat, 0.36, 0.18)
    matrix[:, weak] = np.where(fires, 1.0, 0.0)[:, None]
    result = name(embeddings, Latents.from_csr(matrix.tocsr()))
    table, numbers = rows_of(result), result.numbers
    assert (table["name"][weak], bool(table["holds"][weak]), table["printed"][weak]) == ("cat", True, "no name")
    assert table["auroc"][weak] < 0.6
    assert table["printed"][ON_CAT] == "cat"
    assert table["printed"][SILENT] == "no name"
    hold = table["auroc"][table["holds"].fillna(False)].astype(float)
    assert numbers["names/median_auroc_hold"] == pytest.approx(hold.median())
    assert numbers["names/least_auroc_hold"] == pytest.approx(hold.min())
    assert numbers["names/n_good"] == (hold >= 0.8).sum()
    assert (
        numbers["names/n_printed"]
        == (table["printed"] != "no name").sum()
        == (table["auroc"].astype(float) >= 0.6).sum()
    )
    rows = [row["measure"] for row in result.rows()]
    assert "AUROC of firing by a name that holds, test memes, median" in rows
    assert any("the others are printed as 'no name'" in row for row in rows)


def test_where_there_is_no_test_split_the_rows_say_validation(corpus):
    embeddings, latents = corpus
    rows = np.flatnonzero(embeddings.splits != "test")
    found = name(*reordered(embeddings, latents, rows))
    assert any("names that hold on validation memes" in row["measure"] for row in found.rows())
    assert "validation memes" in (found.verdict or "")


def test_a_word_that_all_firing_memes_hold_has_no_interval_of_no_width():
    """Kinds that are apart: DeLong's error is 0, which is not known and not certain."""
    active = sparse.csc_matrix(np.array([[1.0], [1], [0], [0]]))
    statements = Statements(np.arange(4), sparse.csc_matrix([[1], [1], [0], [0]]), None, np.zeros(4, int))
    found = scores(PairCounter(active, statements, np.array([0])).count())
    assert (found["auroc"][0], found["auroc_high"][0], found["few"][0]) == (1, 1, 1)
    assert 0.3 < found["auroc_low"][0] < 0.5, "two memes of each kind tell next to nothing"


def test_without_captions_or_labels_the_other_part_works(corpus):
    embeddings, latents = corpus
    without = name(Embeddings.from_dataset(embeddings.dataset.remove_columns("text")), latents)
    assert without.reasons["word/n_statements"] == "these embeddings have no captions (no column 'text')"
    assert "word" not in rows_of(without).columns
    assert rows_of(without)["name"][ON_HATE] == "hate=1"
    unlabelled = Embeddings.from_dataset(embeddings.dataset.remove_columns("hate"))
    words = name(unlabelled, latents)
    assert "no label has 2 to" in words.reasons["concept/n_statements"]
    assert rows_of(words)["name"][ON_CAT] == "cat"
    nothing = name(Embeddings.from_dataset(unlabelled.dataset.remove_columns("text")), latents)
    assert nothing.numbers["names/n_named"] == 0
    assert "no captions" in rows_of(nothing)["reason"][ON_CAT]
    empty = with_texts(
        Embeddings.from_dataset(embeddings.dataset.remove_columns("text")), ["" if i % 2 else None for i in range(3000)]
    )
    assert "no word is in 5 captions" in name(empty, latents).reasons["word/n_statements"]


def test_without_held_out_rows_there_are_names_and_no_scores(corpus):
    embeddings, latents = corpus
    result = name(Embeddings.from_dataset(embeddings.dataset.remove_columns("split")), latents, n_bootstrap=10)
    assert rows_of(result)["name"][ON_CAT] == "cat"
    assert rows_of(result).loc[ON_CAT, ["auroc", "holds", "q", "word_auroc"]].isna().all()
    assert result.numbers["names/n_hold"] is None
    assert result.reasons["names/n_hold"] == "there are no held-out rows (test or validation)"
    assert [row["measure"][:19] for row in result.rows()] == ["latents with a name"], "no rows of dashes"
    assert (result.verdict or "").endswith("no held-out memes test it.")


def test_held_out_rows_choose_nothing(corpus):
    """Captions of test memes exchanged for others: the choice is the same, the scores are not."""
    embeddings, latents = corpus
    texts = embeddings.texts.tolist()  # type: ignore[union-attr]
    for row in embeddings.rows("test"):
        texts[row] = "unheard of" if texts[row] is not None else None
    other = with_texts(Embeddings.from_dataset(embeddings.dataset.remove_columns("text")), texts)
    first, second = rows_of(name(embeddings, latents)), rows_of(name(other, latents))
    chosen = ["name", "kind", "words", "word_z", "word_q_selection", "word_auroc_selection"]
    pd.testing.assert_frame_equal(first[chosen], second[chosen])
    assert second["holds"].isna()[ON_CAT], "a word that no held-out caption holds cannot be tested"


def test_words_of_any_script():
    texts = np.array(["Don’t STOP हिन्दी_2020 Ｆｏｏ", "don't stop हिन्दी foo", None, ""], dtype=object)
    rows = (np.arange(4), np.array([1]), np.zeros(4, int))
    words = words_of(texts, *rows, min_df=2)
    assert words.names.tolist() == ["don't", "foo", "stop", "हिन्दी"]
    assert words.selection.rows.tolist() == [0, 1, 3]
    assert words.selection.true.toarray().tolist() == [[1] * 4, [1] * 4, [0] * 4]
    assert words.held_out.true.toarray().tolist() == [[1] * 4]
    left = words_of(texts, *rows, min_df=2, stop_words={"stop"})
    assert left.names.tolist() == ["don't", "foo", "हिन्दी"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, r"naming\.alpha is 0"),
        ({"alpha_0": -1.0}, r"naming\.alpha_0 is -1\.0"),
        ({"min_df": 0}, r"naming\.min_df is 0"),
        ({"stop_words": "german"}, r"naming\.stop_words is 'german'"),
        ({"min_suport": 3}, "naming: unknown key 'min_suport'; did you mean 'min_support'"),
        ({"concepts": ["love=1"]}, "there is no label 'love'"),
    ],
)
def test_wrong_options(corpus, options, message):
    with pytest.raises(ConfigError, match=message):
        name(*corpus, **options)


def test_memes_that_are_all_held_out_are_refused(corpus):
    embeddings, latents = corpus
    rows = embeddings.rows("test")
    with pytest.raises(DataError, match="all memes are test rows"):
        name(*reordered(embeddings, latents, rows))


def test_it_conforms_with_captions():
    rng = np.random.default_rng(0)
    x = anisotropic(300, 16, rng)
    embeddings = make_embeddings({"hook_fused": x}, labels={"hate": rng.integers(0, 2, 300).tolist()})
    texts: list[str | None] = [
        f"{'high' if v > np.median(x[:, 4]) else 'low'} {rng.choice(['a', 'b'])}" for v in x[:, 4]
    ]
    check_evaluator(lambda e: Naming(e, n_bootstrap=5), tiny_sae(x, d_sae=24, k=4), with_texts(embeddings, texts))
