"""The answer key of planted memes: latents against factors that are known, and classes of latents against their kinds."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from arrays import make_embeddings
from sklearn.metrics import f1_score, roc_auc_score

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import Latents, Unavailable
from sae_lens_meme.evaluators.answer_key import AnswerKeyScores, score_answer_key, score_classes, with_conjunctions

N = 600
KINDS = {"hat": "visual", "topic": "textual", "style": "textual"}


@pytest.fixture(scope="module")
def planted() -> tuple[Embeddings, pd.DataFrame, Latents]:
    """Latent 0 follows hat, latents 1 and 2 two of the three topics; style only names the source."""
    rng = np.random.default_rng(0)
    hat, topic, source = rng.random(N) < 0.4, rng.integers(0, 3, N), rng.integers(0, 2, N)
    rate = np.full((N, 8), 0.1)
    rate[:, 0] = np.where(hat, 0.9, 0.05)
    rate[:, 1:3] = np.where(topic[:, None] == [0, 1], 0.8, 0.05)
    latents = Latents.from_csr(((rng.random((N, 8)) < rate) * (rng.random((N, 8)) + 0.1)).astype(np.float32))
    embeddings = make_embeddings(
        {"hook_fused": rng.standard_normal((N, 4)).astype(np.float32)}, sources=np.array(["s", "t"])[source].tolist()
    )
    names = np.array(["rain", "cats", "[bold]"])
    factors = pd.DataFrame({"id": embeddings.ids, "source": embeddings.sources, "hat": hat, "topic": names[topic]})
    return embeddings, factors.assign(style=factors["source"]), latents


@pytest.mark.whole
def test_scores_are_scikit_learns_on_test_memes(planted):
    embeddings, factors, latents = planted
    result = score_answer_key(latents, embeddings, factors, KINDS)
    assert result.table is not None
    assert result.table["factor"].tolist() == ["hat", "topic", "topic", "topic"], "style only names the source"
    row = result.table.iloc[0]
    assert (row["latent"], row["value"]) == (0, "True")
    test, z = embeddings.splits == "test", latents.csc()[:, [0]].toarray().ravel()
    wins = pairs = 0.0
    for source in ("s", "t"):
        here = test & (embeddings.sources == source)
        weight = factors["hat"][here].sum() * (~factors["hat"][here]).sum()
        wins, pairs = wins + weight * roc_auc_score(factors["hat"][here], z[here]), pairs + weight
    assert row["auroc"] == pytest.approx(wins / pairs)
    choose = embeddings.splits == "validation"
    best = max(f1_score(factors["hat"][choose], z[choose] >= t) for t in np.unique(z[z > 0]))
    reached = [f1_score(factors["hat"][test], z[test] >= t) for t in np.unique(z[z > 0])
               if f1_score(factors["hat"][choose], z[choose] >= t) == best]  # fmt: skip
    assert any(row["f1"] == pytest.approx(value) for value in reached)
    assert result.numbers["topic/auroc"] == pytest.approx(result.table["auroc"][1:].astype(float).mean())
    assert "style/auroc" not in result.numbers


def test_rows_and_verdict(planted):
    embeddings, factors, latents = planted
    result = score_answer_key(latents, embeddings, factors, KINDS)
    rows = {row["measure"]: row for row in result.rows()}
    assert rows.keys() == {"hat (visual)", "topic (textual)"}
    n = result.numbers
    controls = {"permuted": n["hat/auroc_permuted"], "F1": n["hat/f1"], "F1 always on": n["hat/f1_always_on"]}
    assert rows["hat (visual)"]["controls"] == controls
    assert result.sections()[0]["axis"] == "AUROC, test memes (F1: of the same latent)"
    mean, permuted = (np.mean([n[f"{f}/{s}"] for f in ("hat", "topic")]) for s in ("auroc", "auroc_permuted"))
    assert result.verdict == (
        f"The best latents rank 2 planted factors with a mean AUROC of {mean:.2f} on test memes ({permuted:.2f} permuted), "
        f"the worst, topic, {n['topic/auroc']:.2f}."
    )


def test_a_missing_value_is_unknown_and_not_another_value(planted):
    embeddings, factors, latents = planted
    gaps = np.random.default_rng(1).random(N) < 0.3
    holes = factors.assign(topic=factors["topic"].mask(gaps))
    table = score_answer_key(latents, embeddings, holes, KINDS).table
    assert table is not None
    known = int(((embeddings.splits == "test") & ~gaps).sum())
    assert table["n_test"].tolist() == [int((embeddings.splits == "test").sum()), known, known, known]
    assert set(table["value"]) == {"True", "rain", "cats", "[bold]"}


def test_a_key_of_other_memes_is_refused(planted):
    embeddings, factors, latents = planted
    for wrong, message in (
        (factors.iloc[1:], r"id 'meme-0' is not in the answer key \(1 such memes\)"),
        (pd.concat([factors, factors.iloc[:1]]), "id 'meme-0' is in the answer key twice"),
        (factors.drop(columns="hat"), "answer key: has no column 'hat'"),
        (factors.assign(hat=factors["source"], topic="rain"), "no factor of the answer key varies within a source"),
    ):
        with pytest.raises(DataError, match=message):
            score_answer_key(latents, embeddings, wrong, KINDS)
    with pytest.raises(DataError, match="answer key: has no column 'source'"):
        with_conjunctions(factors.drop(columns="source"), KINDS)


def test_without_test_memes_there_are_no_rows_and_reasons(planted):
    embeddings, factors, latents = planted
    memes = Embeddings.from_dataset(embeddings.dataset.remove_columns("split"))
    result = score_answer_key(latents, memes, factors, KINDS)
    assert (result.numbers["hat/auroc"], result.rows(), result.verdict) == (None, [], None)
    assert "no test meme" in result.reasons["hat/auroc"]


def test_the_evaluator_joins_the_agreement_with_the_question_set(planted):
    embeddings, factors, latents = planted
    classes = pd.DataFrame({"latent": range(8), "class": ["visual", "textual", "visual", *[None] * 5]})
    made = AnswerKeyScores(embeddings, factors, KINDS, classes=classes)
    result = made.measure(None, embeddings, latents)
    pairs = score_answer_key(latents, embeddings, *with_conjunctions(factors, KINDS)).table
    expected = score_classes(classes, pairs, min_auroc=0.9)  # type: ignore[arg-type]
    assert {k: v for k, v in result.numbers.items() if k.startswith("question_set/")} == {
        f"question_set/{key}": value for key, value in expected.numbers.items()
    }
    decided = expected.numbers["n_values"] - expected.numbers["n_undecided"]  # type: ignore[operator]
    row = result.rows()[-1]
    assert row["measure"] == f"agreement with the planted kind, factors and conjunctions (of {decided} latents)"
    assert row["controls"] == {"dealt at random": expected.numbers["agreement_permuted"]}
    alone = score_classes(classes, made.measure(None, embeddings, latents).table)  # type: ignore[arg-type]
    assert {k: v for k, v in result.numbers.items() if k.startswith("question_set_factors/")} == {
        f"question_set_factors/{key}": value for key, value in alone.numbers.items()
    }
    assert result.numbers["question_set_factors/n_values"] < result.numbers["question_set/n_values"]  # type: ignore[operator]


def test_rivals_come_from_the_contest_and_are_not_measured_again(planted):
    """Beside each factor the mean over its values of the best unit of each rival, as the contest has it."""
    embeddings, factors, latents = planted
    topics = ["rain", "cats", "[bold]"]
    contest = pd.DataFrame(
        [("planted", "auroc", "neurons", f"topic={t}", v) for t, v in zip(topics, (0.6, 0.7, None), strict=True)]
        + [("planted", "auroc", "shuffled_data", "hat=True", 0.55), ("planted", "f1", "neurons", "topic=rain", 0.1)]
        + [("planted", "auroc", "neurons", "all", 0.9), ("labels", "auroc", "neurons", "topic=1", 0.1)],
        columns=["targets", "estimator", "units", "target", "value"],
    )
    result = AnswerKeyScores(embeddings, factors, KINDS, contest=contest).measure(None, embeddings, latents)
    rows = {row["measure"]: row["controls"] for row in result.rows()}
    assert rows["topic (textual)"]["neurons"] == pytest.approx(0.65)
    assert rows["topic (textual)"]["shuffled"] is None
    assert rows["hat (visual)"]["shuffled"] == 0.55
    assert "from the contest" in result.sections()[0]["note"]
    alone = AnswerKeyScores(embeddings, factors, KINDS).measure(None, embeddings, latents)
    assert "the contest, which was not run" in alone.sections()[0]["note"]


def test_without_a_key_the_evaluator_is_unavailable(planted):
    class Empty:
        answer_key = None

    with pytest.raises(Unavailable, match="--answer-key FOLDER"):
        AnswerKeyScores.from_context(Empty())  # type: ignore[arg-type]


# -- classes of latents against the kinds


def answer_key(rows: list[tuple[str, str, str, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["factor", "kind", "value", "latent", "auroc"])


def test_score_classes_counts_each_latent_once_for_what_it_ranks_best():
    key = answer_key(
        [
            ("hat", "visual", "cap", 0, 0.99),
            ("hat", "visual", "none", 1, 0.95),
            ("topic", "textual", "rain", 2, 1.0),
            ("mood", "textual", "gloomy", 3, 0.91),  # latent 3 is that of the pairing
            ("pairing", "cross-modal", "gloomy, smile", 3, 1.0),
            ("light", "visual", "dark", 4, 0.97),  # without a class
            ("sign", "visual", "up", 9, 0.99),  # not in the table
            ("scene", "visual", "city", 5, 0.89),  # below the bar
        ]
    )
    classes = pd.DataFrame(
        {"latent": range(6), "class": ["visual", "textual", "textual", "cross-modal", None, "textual"]}
    )
    result = score_classes(classes, key)
    numbers = result.numbers
    assert (numbers["n_values"], numbers["n_factors"], numbers["n_undecided"]) == (6, 5, 2)
    assert numbers["agreement"] == 3 / 4
    assert (numbers["visual/agreement"], numbers["textual/agreement"], numbers["cross-modal/agreement"]) == (0.5, 1, 1)
    kinds, labels = ["visual", "visual", "textual", "cross-modal"], ["visual", "textual", "textual", "cross-modal"]
    dealt = [np.mean([k == c for k, c in zip(kinds, p, strict=True)]) for p in permutations(labels)]
    assert numbers["agreement_permuted"] == pytest.approx(np.mean(dealt))
    assert set(result.table["latent"]) == {0, 1, 2, 3, 4, 9}


def test_score_classes_without_any_latent_is_null_with_the_reason():
    key = answer_key([("hat", "visual", "cap", 0, 0.6)])
    result = score_classes(pd.DataFrame({"latent": [0], "class": ["visual"]}), key)
    assert result.numbers["n_values"] == 0
    assert result.numbers["agreement"] is None
    assert "AUROC of 0.9 or more" in result.reasons["agreement"]


def test_score_classes_refuses_other_tables():
    classes, key = pd.DataFrame({"latent": [0], "class": ["visual"]}), answer_key([("h", "visual", "c", 0, 1.0)])
    with pytest.raises(DataError, match=r"classes: has no column 'class'; give the table of QuestionSet"):
        score_classes(classes.drop(columns="class"), key)
    with pytest.raises(DataError, match="answer_key: has no column 'auroc'"):
        score_classes(classes, key.drop(columns="auroc"))
    with pytest.raises(DataError, match="kind 'audible'"):
        score_classes(classes, key.assign(kind="audible"))
    with pytest.raises(ConfigError, match=r"min_auroc is 0\.3"):
        score_classes(classes, key, min_auroc=0.3)


def test_each_value_of_a_factor_that_holds_several_is_true_or_false(planted):
    embeddings, factors, latents = planted
    held = factors["topic"].map(lambda topic: (topic,) if topic != "rain" else ("cats", "rain"))
    key, kinds = factors.assign(prop=held), {**KINDS, "prop": "visual"}
    table = score_answer_key(latents, embeddings, key, kinds).table
    assert table is not None
    props = table[table["factor"] == "prop"]
    assert props["value"].tolist() == ["[bold]", "cats", "rain"]
    wanted = table[(table["factor"] == "topic") & (table["value"] == "rain")].iloc[0]
    assert props.iloc[2][["latent", "auroc", "f1"]].tolist() == wanted[["latent", "auroc", "f1"]].tolist()
    assert not any("prop" in pair for pair in with_conjunctions(key, kinds)[1] if "&" in pair)


def test_conjunctions_pair_every_picture_with_every_caption_but_not_with_the_source():
    factors = pd.DataFrame(
        {
            "id": list("wxyz"),
            "source": ["s", "s", "t", "t"],
            "hat": ["cap", "none", "cap", "none"],
            "topic": ["rain", "rain", "cats", "rain"],
            "style": ["s", "s", "t", "t"],
        }
    )
    kinds = {"hat": "visual", "topic": "textual", "style": "textual"}
    both, all_kinds = with_conjunctions(factors, kinds)
    assert all_kinds == {**kinds, "hat & topic": "cross-modal"}
    assert both["hat & topic"].tolist() == ["cap & rain", "none & rain", "cap & cats", "none & rain"]
    assert list(factors) == ["id", "source", "hat", "topic", "style"], "the factors given were changed"
