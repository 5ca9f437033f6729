"""The audit of subgroups against scikit-learn, scipy and naive loops, on planted bias, and where there is none."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import hostile
import numpy as np
import pandas as pd
import pytest
import torch
from arrays import make_embeddings
from sae_lens import TopKSAE, TopKSAEConfig
from scipy.stats import fisher_exact
from sklearn.metrics import f1_score, roc_auc_score
from tiny_sae import tiny_sae

from sae_lens_meme.config import apply_overrides
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import encode
from sae_lens_meme.evaluators.classifiers import SharedProbes, tasks_of
from sae_lens_meme.evaluators.influence import decoder_rows
from sae_lens_meme.evaluators.subgroups import (
    Subgroups,
    ablated,
    audit,
    caption_holds,
    carried,
    gap_log_p,
    matched_draws,
    questions_of,
    subgroups_of,
)
from sae_lens_meme.evaluators.subgroups.audits import q_of, repeats_of
from sae_lens_meme.evaluators.subgroups.questions import Subgroup

UNKNOWN, FALSE, TRUE = 0, 1, 2
N, D = 3_000, 16
QUICK: dict[str, Any] = {"n_bootstrap": 50, "n_permutations": 5, "columns": ["group_of"]}


# one classifier, one subgroup


@pytest.fixture
def scored() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    true, member = rng.random(600) < 0.4, rng.random(600) < 0.3
    scores = np.round(true + 0.7 * member + rng.standard_normal(600), 1)  # with ties
    return SimpleNamespace(true=true, member=member, scores=scores)


def test_it_agrees_with_scikit_learn(scored):
    true, member, scores = scored.true, scored.member, scored.scores
    found = audit(scores, true, member, threshold=0.5).values
    bpsn, bnsp = (member & ~true) | (~member & true), (member & true) | (~member & ~true)
    for key, rows in (("subgroup_auroc", member), ("bpsn_auroc", bpsn), ("bnsp_auroc", bnsp)):
        assert found[key][0] == pytest.approx(roc_auc_score(true[rows], scores[rows])), key
    inside, outside = ((scores[rows & ~true] >= 0.5).mean() for rows in (member, ~member))
    assert found["fpr_subgroup"][0] == pytest.approx(inside)
    assert found["fpr_background"][0] == pytest.approx(outside)
    assert found["fpr_gap"][0] == pytest.approx(inside - outside)


def test_a_weight_is_a_copy_of_the_meme(scored):
    weights = np.random.default_rng(1).integers(0, 4, (600, 2)).astype(np.uint8)
    found = audit(scored.scores, scored.true, scored.member, 0.5, weights)
    for draw in range(2):
        copies = np.repeat(np.arange(600), weights[:, draw])
        alone = audit(scored.scores[copies], scored.true[copies], scored.member[copies], 0.5)
        for key, values in found.values.items():
            assert values[draw] == pytest.approx(alone.values[key][0]), key


def test_too_few_memes_of_a_kind_are_a_reason_and_not_a_number(scored):
    member = np.zeros(600, dtype=bool)
    member[np.flatnonzero(scored.true)[:30]] = True
    member[np.flatnonzero(~scored.true)[:19]] = True
    found = audit(scored.scores, scored.true, member, 0.5)
    assert found.reasons["fpr_gap"].startswith("19 subgroup negatives and ")
    assert "needs 20 of each" in found.reasons["bpsn_auroc"]
    assert set(found.reasons) == {"subgroup_auroc", "bpsn_auroc", "fpr_subgroup", "fpr_background", "fpr_gap"}
    assert np.isnan(found.values["fpr_gap"][0])
    assert found.values["bnsp_auroc"][0] > 0
    assert not audit(scored.scores, scored.true, member, 0.5, min_support=19).reasons


def test_copies_are_no_support(scored):
    groups = np.where(scored.member & ~scored.true, 0, np.arange(600) + 1)
    found = audit(scored.scores, scored.true, scored.member, 0.5, groups=groups)
    assert "1 subgroup negatives (one per group); it needs 20" in found.reasons["bpsn_auroc"]
    assert found.n_subgroup_negative > 20
    assert "bnsp_auroc" not in found.reasons


def test_the_test_of_a_gap_is_fishers_within_source():
    rng = np.random.default_rng(2)
    flagged, member = rng.random(80) < 0.3, rng.random(80) < 0.5
    codes = np.where(member, TRUE, FALSE).astype(np.uint8)
    codes[:10] = UNKNOWN
    found = gap_log_p(flagged, codes[:, None], np.zeros(80, np.int64))
    known = np.arange(80) >= 10
    table = [[(flagged & member & known).sum(), (flagged & ~member & known).sum()]]
    table += [[(~flagged & member & known).sum(), (~flagged & ~member & known).sum()]]
    sides = [fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    assert np.exp(found.log_p[0]) == pytest.approx(min(1, 2 * min(sides)))
    gap = flagged[member & known].mean() - flagged[~member & known].mean()
    assert found.within[0] == pytest.approx(gap)


def test_copies_are_no_evidence():
    flagged = np.repeat([True, False, False, True, False, False], 30)
    codes = np.repeat([TRUE, TRUE, TRUE, FALSE, FALSE, FALSE], 30).astype(np.uint8)[:, None]
    flagged[:60] = True
    strata, groups = np.zeros(180, np.int64), np.repeat(np.arange(6), 30)
    assert gap_log_p(flagged, codes, strata).log_p[0] < np.log(1e-4)
    assert gap_log_p(flagged, codes, strata, groups).log_p[0] > np.log(0.2)


def test_without_a_gap_few_tests_are_significant():
    rng = np.random.default_rng(3)
    strata = np.repeat([0, 1], 150)
    rate, share = np.where(strata == 0, 0.1, 0.5), np.where(strata == 0, 0.2, 0.7)  # the source confounds the two
    codes = np.where(rng.random((300, 400)) < share[:, None], TRUE, FALSE).astype(np.uint8)
    found = gap_log_p(rng.random(300) < rate, codes, strata)
    assert (found.log_p < np.log(0.05)).mean() < 0.06
    pooled = gap_log_p(rng.random(300) < rate, codes, np.zeros(300, np.int64))
    assert (pooled.log_p < np.log(0.05)).mean() > 0.5, "the source should fool a test that pools"


# subgroups


def test_words_are_found_whole_in_whatever_case_and_captions_that_lack_are_unknown():
    texts = np.array(["The CAT sat", "concatenate", "a trans  woman's hat", None, "", "ＣＡＴ!"], dtype=object)
    assert caption_holds(texts, "pets", ["cat"]).tolist() == [TRUE, FALSE, FALSE, UNKNOWN, FALSE, TRUE]
    assert caption_holds(texts, "x", ["Trans woman's", "sat"]).tolist() == [TRUE, FALSE, TRUE, UNKNOWN, FALSE, FALSE]
    for words in ([], ["cat", "!?"]):
        with pytest.raises(ConfigError, match=r"subgroups\.words\.pets is .*; give words that have a letter"):
            caption_holds(texts, "pets", words)


def test_subgroups_are_values_of_labels_and_sources_and_words():
    labels = {"target": [0, 1, None, 1], "one": [1, 1, 1, 1], "author": [*range(4)], "hate": [0, 1, 0, 1]}
    memes = make_embeddings(
        {"hook_fused": np.eye(4)}, labels=labels, sources=["a", "b", "a", "b"], texts=["x", "y", None, "x y"]
    )
    found = {s.name: s for s in subgroups_of(memes, words={"x": ["x"]})}
    names = ["target=0", "target=1", *(f"author={i}" for i in range(4)), "hate=0", "hate=1"]
    assert list(found) == [*names, "source=a", "source=b", "caption=x"]
    assert found["target=1"].codes.tolist() == [FALSE, TRUE, UNKNOWN, TRUE]
    assert found["source=b"].codes.tolist() == [FALSE, TRUE, FALSE, TRUE]
    assert found["caption=x"].codes.tolist() == [TRUE, FALSE, UNKNOWN, TRUE]
    assert [s.name for s in subgroups_of(memes, columns=["one"])] == ["one=1"]
    with pytest.raises(DataError, match="label 'colour' is not in these embeddings"):
        subgroups_of(memes, columns=["colour"])
    with pytest.raises(DataError, match="no captions"):
        subgroups_of(make_embeddings({"hook_fused": np.eye(4)}), words={"x": ["x"]})


def test_two_subgroups_never_share_a_name():
    labels = {"a": ["b=c", "x", "x", "x"], "a=b": ["c", "y", "y", "y"]}
    memes = make_embeddings({"hook_fused": np.eye(4)}, labels=labels)
    names = [s.name for s in subgroups_of(memes)]
    assert len(set(names)) == len(names) == 4
    assert "'a': a=b=c" in names


def test_a_mirrored_subgroup_is_no_test_of_its_own():
    codes = np.array([[1, 2, 2, 0, 2], [2, 1, 1, 0, 1], [1, 2, 1, 0, 1], [2, 1, 1, 0, 1], [1, 1, 2, 2, 2]], np.uint8)
    columns = ["a", "a", "b", "source", "source"]
    subgroups = [Subgroup(str(i), column, of) for i, (column, of) in enumerate(zip(columns, codes, strict=True))]
    question = SimpleNamespace(test=np.arange(4))
    assert repeats_of(question, subgroups) == [0, 1, 0, 0, 0]
    log_p = np.log([0.01, 0.01, 0.5, 0.5, np.nan])
    found = [SimpleNamespace(log_p=p, repeats=r) for p, r in zip(log_p, [0, 1, 0, 0, 0], strict=True)]
    np.testing.assert_allclose(q_of(found), [0.03, 0.03, 0.5, 0.5, np.nan])


# planted bias


def world(biased: bool, seed: int = 0) -> SimpleNamespace:
    """A class and a group, each along a direction of its own; `biased`: in the class the group is more frequent."""
    rng = np.random.default_rng(seed)
    true = rng.random(N) < 0.4
    member = rng.random(N) < (np.where(true, 0.8, 0.2) if biased else 0.5)
    directions = np.linalg.qr(rng.standard_normal((D, D)))[0]
    x = np.outer(true * 1.2, directions[0]) + np.outer(member * 1.5, directions[1]) * biased
    x += 0.6 * rng.standard_normal((N, D))
    values = [["in", "out"][int(not m)] if i % 7 else None for i, m in enumerate(member)]
    splits = [("train", "train", "validation", "test", "test")[i % 5] for i in range(N)]
    labels = {"hate": true.astype(int).tolist(), "group_of": values}
    memes = make_embeddings({"hook_fused": x}, labels=labels, sources=["a", "b"] * (N // 2), splits=splits)
    return SimpleNamespace(memes=memes, sae=axis_sae(directions), true=true, member=member, x=x, directions=directions)


def axis_sae(directions: np.ndarray) -> TopKSAE:
    """Latent i is the positive part of direction i."""
    sae = TopKSAE(TopKSAEConfig(d_in=D, d_sae=D, k=D, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False))
    sae.cfg.metadata.hook_name = "hook_fused"
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(directions.T))
        sae.W_dec.copy_(torch.from_numpy(directions))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae.eval()


@pytest.fixture(scope="module")
def biased() -> SimpleNamespace:
    found = world(biased=True)
    found.result = Subgroups(found.memes, tasks=["hate"], **QUICK).evaluate(found.sae)
    return found


def test_planted_bias_is_found_with_the_latent_that_carries_it(biased):
    numbers, table = biased.result.numbers, biased.result.table
    assert numbers["n_pairs"] == numbers["n_pairs_with_gap"] == 1, "of two values each is outside of the other"
    assert sorted(set(table[table["n_ablated"] == 0]["subgroup"])) == ["group_of=in", "group_of=out"]
    assert numbers["n_pairs_with_gap_permuted"] <= 0.5
    assert numbers["hate=1/group_of=in/fpr_gap"] > 0.12
    assert numbers["hate=1/group_of=in/fpr_gap_low"] > 0.08
    assert numbers["hate=1/group_of=in/fpr_gap_permuted"] < 0.1
    assert numbers["hate=1/group_of=in/bpsn_auroc"] < numbers["hate=1/group_of=in/subgroup_auroc"] - 0.1
    (row,) = table[(table["subgroup"] == "group_of=in") & (table["n_ablated"] == 0)].to_dict("records")
    assert row["latents"].startswith("1 (+"), "direction 1 is the group's"
    assert row["chosen"]
    assert re.search(
        r"worst: hate=1 wrongly said of \d+% in group_of=in, \d+% outside \(within source \+0.\d\d\); "
        rf"5 latents close 0.\d\d of the gap of {numbers['hate=1/group_of=in/fpr_gap']:.2f} \(matched",
        biased.result.verdict,
    )


def test_without_that_latent_the_gap_closes_and_without_matched_ones_it_does_not(biased):
    numbers = biased.result.numbers
    one = "hate=1/group_of=in/ablate_1"
    assert numbers[f"{one}/closed"] > 0.5 * numbers["hate=1/group_of=in/fpr_gap"]
    assert numbers[f"{one}/closed"] > numbers[f"{one}/closed_matched_95"]
    assert abs(numbers[f"{one}/closed_matched"]) < 0.05


def test_a_printed_section_holds_one_scale(biased):
    """Rates beside rates, AUROCs beside AUROCs: a chart of a section has one axis."""
    controls = {}
    for row in biased.result.rows():
        controls.setdefault(row["section"], set()).update(row["controls"])
    assert controls["Subgroups: false positives in the subgroup minus outside"] == {
        "permuted",
        "within source",
        "in subgroup",
        "outside",
    }
    assert controls["Subgroups: AUROC in the subgroup and across its border"] == {"BPSN", "BNSP"}
    closed, lost = (name for name in controls if name.endswith("set to zero"))
    assert controls[closed] == controls[lost] == {"matched", "matched, 95 %"}


def test_where_there_is_no_bias_none_is_found():
    fair = [world(biased=False, seed=seed) for seed in range(6)]
    found = [Subgroups(w.memes, tasks=["hate"], **QUICK).evaluate(w.sae).numbers["n_pairs_with_gap"] for w in fair]
    assert sum(found) <= 1, found


def test_every_number_of_the_audit_agrees_with_naive_loops(biased):
    probe = SharedProbes().of(tasks_of(biased.memes, ["hate"])[0][0], biased.memes, "hook_fused")
    logits = probe.logits(biased.x.astype(np.float32))[:, 0]
    splits, group = biased.memes.splits, biased.memes.label("group_of")
    validation, test = splits == "validation", splits == "test"
    thresholds = np.sort(logits[validation])
    f1 = [f1_score(biased.true[validation], logits[validation] >= t) for t in thresholds]
    threshold = thresholds[int(np.argmax(f1))]
    rows = test & group.known
    member = group.values[rows] == "in"
    expected = audit(logits[rows], biased.true[rows], member, threshold)
    for key, values in expected.values.items():
        assert biased.result.numbers[f"hate=1/group_of=in/{key}"] == pytest.approx(values[0], abs=2e-3), key
    table = biased.result.table
    assert table["n_subgroup_negative"].iloc[0] == (member & ~biased.true[rows]).sum()


def test_an_ablation_is_that_of_the_embedding(biased):
    memes, latents = biased.memes, encode(biased.sae, biased.memes)
    probe = SharedProbes().of(tasks_of(memes, ["hate"])[0][0], memes, "hook_fused")
    gain = decoder_rows(biased.sae) @ probe.coef[0]
    chosen = np.array([1, 4])
    edited = biased.x - latents.csr().toarray()[:, chosen] @ biased.directions[chosen]
    (question,) = questions_of(*tasks_and_probes(memes, probe), memes, "hook_fused")
    after = probe.logits(edited)[:, 0]
    np.testing.assert_allclose(question.logits - latents.csc()[:, chosen] @ gain[chosen], after, rtol=1e-4, atol=1e-4)
    negatives = question.test[~biased.true[question.test]]
    group = memes.label("group_of")
    sides = [negatives[group.known[negatives] & (group.values[negatives] == v)] for v in ("in", "out")]
    found = ablated(
        question.logits,
        question.logits - after,
        question.threshold,
        question.threshold_rows,
        question.test,
        question.true,
        *sides,
    )
    kept = (question.logits[question.threshold_rows] >= question.threshold).sum()
    moved = np.sort(after[question.threshold_rows])[-kept]
    assert found.gap[0] == pytest.approx((after[sides[0]] >= moved).mean() - (after[sides[1]] >= moved).mean())
    assert found.auroc == pytest.approx(roc_auc_score(biased.true[question.test], after[question.test]))


def tasks_and_probes(memes: Embeddings, probe: Any) -> tuple[list[Any], list[Any]]:
    return tasks_of(memes, ["hate"])[0], [probe]


def test_contributions_and_the_error_add_up_to_the_gap_of_the_logits(biased):
    memes, latents = biased.memes, encode(biased.sae, biased.memes)
    probe = SharedProbes().of(tasks_of(memes, ["hate"])[0][0], memes, "hook_fused")
    gain, logits = decoder_rows(biased.sae) @ probe.coef[0], probe.logits(biased.x)[:, 0]
    error = (biased.x - latents.csr().toarray() @ biased.directions) @ probe.coef[0]
    first, second = biased.member & ~biased.true, ~biased.member & ~biased.true
    total = carried(latents.csr(), gain, first, second).sum() + error[first].mean() - error[second].mean()
    assert total == pytest.approx(logits[first].mean() - logits[second].mean(), abs=1e-4)


def test_test_memes_choose_nothing(biased):
    """Their labels and groups may be anything: subgroup, latents and threshold stay."""
    table = biased.memes.dataset.to_pandas()
    test = biased.memes.splits == "test"
    rng = np.random.default_rng(0)
    labels = {
        "hate": np.where(test, rng.integers(0, 2, N), table["hate"]).astype(int).tolist(),
        "group_of": [rng.choice(["in", "out"]) if t else v for t, v in zip(test, table["group_of"], strict=True)],
    }
    other = make_embeddings(
        {"hook_fused": biased.x},
        labels=labels,
        sources=biased.memes.sources.tolist(),
        splits=biased.memes.splits.tolist(),
    )
    found = Subgroups(other, tasks=["hate"], **QUICK).evaluate(biased.sae).table
    before = biased.result.table
    for column in ("subgroup", "chosen", "latents", "selection_gap"):
        audited = [t[t["n_ablated"] == 0].sort_values("subgroup")[column].tolist() for t in (found, before)]
        assert audited[0] == audited[1], column


def test_a_meme_whose_group_is_unknown_is_in_neither(biased):
    unknown = ~biased.memes.label("group_of").known & (biased.memes.splits == "test")
    kept = Embeddings.from_dataset(biased.memes.dataset.select(np.flatnonzero(~unknown)))
    found = Subgroups(kept, tasks=["hate"], **QUICK).evaluate(biased.sae).numbers
    for key in ("subgroup_auroc", "bpsn_auroc", "bnsp_auroc", "fpr_subgroup", "fpr_background", "fpr_gap"):
        assert found[f"hate=1/group_of=in/{key}"] == biased.result.numbers[f"hate=1/group_of=in/{key}"]


def test_a_label_of_several_classes_is_asked_class_by_class():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((600, 8))
    mood = x[:, :3].argmax(axis=1)
    memes = make_embeddings({"hook_fused": x}, labels={"mood": mood.tolist()}, sources=["a", "b"] * 300)
    tasks, _ = tasks_of(memes)
    probe = SharedProbes().of(tasks[0], memes, "hook_fused")
    questions = questions_of(tasks, [probe], memes, "hook_fused")
    assert [q.name for q in questions] == ["mood=0", "mood=1", "mood=2"]
    raw = probe.logits(memes.take("hook_fused", np.arange(600)))
    for c, question in enumerate(questions):
        np.testing.assert_allclose(question.logits, raw[:, c] - raw.mean(axis=1), atol=1e-6)
        assert question.true.tolist() == (mood == c).tolist()


def test_matched_latents_are_others_of_like_rate():
    n_active = np.arange(60) ** 2
    found = matched_draws([30, 31], n_active, 50, np.random.default_rng(0))
    assert found.shape == (50, 2)
    assert not np.isin(found, [30, 31]).any()
    assert (found[:, 0] != found[:, 1]).all()
    for column, latent in enumerate((30, 31)):
        nearest = sorted(set(range(1, 60)) - {30, 31}, key=lambda other: abs(other**2 - latent**2))[:20]
        assert set(found[:, column]) <= set(nearest)
    assert matched_draws([1, 2], np.array([0, 4, 4, 0, 1]), 5, np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"words": {"women": "woman"}}, r"subgroups\.words\.women is 'woman', it must be a list"),
        ({"ablated": [0]}, r"subgroups\.ablated is 0, it must be 1 or more"),
        ({"colums": ["a"]}, "unknown key 'colums'; did you mean 'columns'"),
        ({"min_support": 0}, r"subgroups\.min_support is 0"),
    ],
)
def test_wrong_options_are_refused(given, message, biased):
    with pytest.raises(ConfigError, match=message):
        Subgroups(biased.memes, **given)


def test_words_come_from_the_command_line():
    given = apply_overrides({}, ["subgroups.words={women: [woman, girl]}", "subgroups.ablated=[1, 3]"])
    assert Subgroups.Options(**given["subgroups"]).words == {"women": ["woman", "girl"]}


def test_words_make_subgroups_of_captions():
    rng = np.random.default_rng(0)
    said = rng.random(800) < 0.5
    x = rng.standard_normal((800, 8))
    true = x[:, 0] + 0.5 * rng.standard_normal(800) > 0
    texts = [None if i % 10 == 0 else "A Cat!" if s else "rain" for i, s in enumerate(said)]
    memes = make_embeddings({"hook_fused": x}, labels={"hate": true.astype(int).tolist()}, texts=texts)
    evaluator = Subgroups(memes, words={"pets": ["cat"]}, columns=[], n_bootstrap=0, n_matched=0, n_permutations=0)
    result = evaluator.evaluate(tiny_sae(x.astype(np.float32), d_sae=12, k=3))
    test = memes.splits == "test"
    captioned = np.array([text is not None for text in texts])
    (row,) = result.table[result.table["n_ablated"] == 0].to_dict("records")
    assert row["subgroup"] == "caption=pets"
    assert row["n_subgroup_negative"] == (test & captioned & said & ~true).sum()
    assert row["n_background_negative"] == (test & captioned & ~said & ~true).sum()
    assert result.numbers["n_pairs_with_gap_permuted"] is None


def test_with_too_few_memes_it_says_so():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 8))
    memes = make_embeddings(
        {"hook_fused": x}, labels={"hate": (x[:, 0] > 0).astype(int).tolist()}, sources=["a", "b"] * 50
    )
    found = Subgroups(memes, n_bootstrap=0).evaluate(tiny_sae(x.astype(np.float32), d_sae=12, k=3))
    assert found.numbers["n_pairs"] == 0
    assert found.numbers["n_pairs_left_out"] == 1
    assert "nothing can be said" in found.verdict
    assert found.table["reason"].str.contains("it needs 20 of each").all()
    assert isinstance(found.table, pd.DataFrame)


def test_where_the_decoder_has_no_fixed_rows_the_audit_stays_and_the_ablation_says_why(biased):
    sae = axis_sae(biased.directions)
    sae.cfg.normalize_activations = "layer_norm"
    found = Subgroups(biased.memes, tasks=["hate"], **QUICK).evaluate(sae, latents=encode(biased.sae, biased.memes))
    assert found.numbers["hate=1/group_of=in/fpr_gap"] == biased.result.numbers["hate=1/group_of=in/fpr_gap"]
    assert found.numbers["hate=1/group_of=in/ablate_1/closed"] is None
    assert "no fixed rows" in found.reasons["hate=1/group_of=in/ablate_1/closed"]


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(lambda memes: Subgroups(memes, min_support=2, n_bootstrap=5, n_matched=2, n_permutations=2), case)
