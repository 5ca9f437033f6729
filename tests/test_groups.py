"""Memes come in families: what is drawn, moved, tested or split takes them whole."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from arrays import make_embeddings
from datasets import ClassLabel, Dataset, Features, concatenate_datasets
from PIL import Image
from scipy import sparse
from scipy.stats import norm
from source_corpus import source_corpus
from tiny_sae import tiny_sae

from sae_lens_meme.corpus import build_corpus, corpus_notes, export_table, load_rows
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators import ConceptAlignment
from sae_lens_meme.evaluators.cautions import cautions
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.question_set import random_items
from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.fisher import greater_one_a_group, one_a_group, stratified_greater
from sae_lens_meme.metrics.multiple_testing import median_p, rejected
from sae_lens_meme.metrics.ranking import Ranked, auroc, auroc_of_scores
from sae_lens_meme.metrics.resampling import (
    bootstrap_weights,
    count_interval,
    one_each,
    permutation_within,
    subset_weights,
)

STRATA = np.array([0, 0, 1, 1, 0, 0, 2, 2, 2, 1, 0, 0, 0, 1, 1])
GROUPS = np.array([5, 5, 3, 3, 5, 0, 1, 4, 4, 2, 7, 7, 7, 9, 9])
"""Two groups of three in stratum 0, two of two in stratum 1, one of two in stratum 2, and single memes."""


def with_groups(embeddings: Embeddings, groups) -> Embeddings:
    return Embeddings.from_dataset(embeddings.dataset.add_column("group", list(groups)), **embeddings.facts)


@pytest.mark.parametrize("names", [range(500), [f"g{999 - i}" for i in range(500)]])
def test_where_each_meme_is_its_own_group_nothing_changes(names):
    groups = make_embeddings({"hook_fused": np.ones((500, 2), np.float32)})
    groups = with_groups(groups, names).groups
    rng = np.random.default_rng(0)
    strata, order = rng.integers(0, 4, 500), rng.permutation(500)
    for draws in (bootstrap_weights, subset_weights):
        for rows in (np.arange(500), order, order[:80]):
            plain, grouped = (list(draws(strata[rows], 3, 1, groups=g)) for g in (None, groups[rows]))
            np.testing.assert_array_equal(plain, grouped)
    for given in (None, order):
        plain, grouped = (permutation_within(strata, np.random.default_rng(2), given, g) for g in (None, groups))
        np.testing.assert_array_equal(plain, grouped)
    x = np.sin(np.arange(500))
    plain, grouped = (
        count_interval(lambda weights: np.array([weights @ x]), np.array([9.0]), strata, 20, 0, g)
        for g in (None, groups)
    )
    np.testing.assert_array_equal(plain, grouped)
    assert one_a_group(groups) == [None]


def test_resamples_and_subsets_draw_groups():
    weights = np.array([*bootstrap_weights(STRATA, 300, 0, GROUPS)])
    for group in np.unique(GROUPS):
        mine = weights[:, group == GROUPS]
        assert (mine == mine[:, [0]]).all()
    groups_drawn = weights[:, np.unique(GROUPS, return_index=True)[1]]
    np.testing.assert_array_equal(groups_drawn.sum(axis=1), len(np.unique(GROUPS)))
    assert set(np.unique(weights)) >= {0, 1, 2}
    halves = np.array([*subset_weights(STRATA, 300, 0, groups=GROUPS)])
    np.testing.assert_array_equal(halves[:, 0], halves[:, 4])
    np.testing.assert_allclose(halves.mean(axis=0), 0.5, atol=0.1)


def test_the_interval_of_a_mean_is_as_wide_as_the_groups_are_few():
    """400 memes that are 40 templates of ten tell as much as 40 memes."""
    groups, values = np.repeat(np.arange(40), 10), np.random.default_rng(0).normal(size=40)
    means = {
        name: np.std([w @ values[groups] / w.sum() for w in bootstrap_weights(np.zeros(400, int), 500, 1, of)])
        for name, of in (("memes", None), ("groups", groups))
    }
    assert means["groups"] == pytest.approx(values.std() / np.sqrt(40), rel=0.1)
    assert means["groups"] > 2.5 * means["memes"]


def test_a_group_changes_places_with_one_of_its_size_and_stratum():
    moved = set()
    for seed in range(40):
        to = permutation_within(STRATA, np.random.default_rng(seed), groups=GROUPS)
        assert sorted(to) == list(range(len(to)))
        np.testing.assert_array_equal(STRATA[to], STRATA)
        for group in np.unique(GROUPS):
            taken = GROUPS[to[group == GROUPS]]
            assert len(set(taken)) == 1
            assert (taken[0] == GROUPS).sum() == (group == GROUPS).sum()
            moved |= {(group, taken[0])}
    assert {(5, 7), (7, 5), (3, 9), (9, 3)} <= moved
    assert not any(4 in pair for pair in moved - {(4, 4)}), "no other group of two in stratum 2: it stays"


def test_a_group_in_two_strata_moves_with_one_that_is_in_the_same_two():
    strata, groups = np.array([0, 1, 0, 1, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    draws = np.array([permutation_within(strata, np.random.default_rng(seed), groups=groups) for seed in range(20)])
    assert {tuple(to) for to in draws[:, :4]} == {(0, 1, 2, 3), (2, 3, 0, 1)}
    np.testing.assert_array_equal(draws[:, 4:], np.tile(np.arange(4, 8), (20, 1)))


def test_a_draw_of_one_meme_a_group_takes_each_as_often():
    draws = np.array([*one_each(GROUPS, 600, seed=0)])
    sizes = np.bincount(GROUPS)[GROUPS]
    np.testing.assert_array_equal([np.bincount(GROUPS, w)[np.unique(GROUPS)] for w in draws], 1)
    np.testing.assert_allclose(draws.mean(axis=0), 1 / sizes, atol=0.07)


def test_one_draw_is_enough_where_few_memes_have_copies():
    few = np.minimum(np.arange(200), 190)
    (weights,) = one_a_group(few)
    np.testing.assert_array_equal(np.bincount(few, weights), 1)
    assert len(one_a_group(np.arange(200) // 2)) == 5


def test_the_p_of_several_draws_is_valid_however_they_depend():
    rng = np.random.default_rng(0)
    for weight in (0.0, 0.7, 1.0):
        z = np.sqrt(weight) * rng.normal(size=(1, 40_000)) + np.sqrt(1 - weight) * rng.normal(size=(5, 40_000))
        p = np.exp(median_p(norm.logsf(z)))
        for alpha in (0.01, 0.05, 0.2):
            assert (p <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 40_000)
    log_p = np.log([[0.01, np.nan, np.nan], [0.02, 0.01, np.nan], [0.06, np.nan, np.nan]])
    np.testing.assert_allclose(np.exp(median_p(log_p)), [0.03, 1.0, np.nan])


def templates(seed: int, size: int, n: int = 2000) -> tuple[Latents, np.ndarray, np.ndarray, np.ndarray]:
    """Latents, true labels, strata and groups: memes of a template share four fifths of what fires and of the labels.

    Latents 0..9 follow concept 0; nothing else follows anything.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n // size), size)

    def shared(columns: int) -> np.ndarray:
        own, common = rng.random((n, columns)), rng.random((n // size, columns))[groups]
        return np.where(rng.random((n, columns)) < 0.8, common, own)

    true = shared(10) < 0.3
    rate = np.full((n, 100), 0.1)
    rate[:, :10] = np.where(true[:, [0]], 0.6, 0.05)
    fires = shared(100) < rate
    strata = rng.integers(0, 2, n // size)[groups]
    return Latents.from_csr(sparse.csr_matrix(fires.astype(np.float32))), true, strata, groups


@pytest.mark.parametrize("size", [1, 5, 20])
def test_false_discoveries_stay_below_alpha_where_groups_repeat(size):
    """With 100 x 10 pairs of which ten are real: the share of false ones among those found, in 40 corpora."""
    false, naive, power = [], [], []
    for seed in range(40):
        latents, true, strata, groups = templates(seed, size)
        count = Counter(latents.csr(), np.where(true, 2, 1).astype(np.uint8), strata).count
        for log_p, shares in (
            (greater_one_a_group(count, one_a_group(groups), 0.05), false),
            (stratified_greater(count(), 0.05), naive),
        ):
            found = rejected(log_p, 0.05)
            real = int(found[:10, 0].sum())
            shares.append((found.sum() - real) / max(found.sum(), 1))
            if shares is false:
                power.append(real / 10)
    error = np.std(false) / np.sqrt(len(false))
    assert np.mean(false) <= 0.05 + 2 * error
    assert np.mean(power) > 0.8
    if size == 1:
        assert false == naive
    else:
        assert np.mean(naive) > 0.5, "as if every meme were its own, most pairs that are found are not there"


def labelled(size: int, seed: int = 0) -> tuple[Embeddings, Latents]:
    latents, true, strata, groups = templates(seed, size, 1000)
    embeddings = make_embeddings(
        {"hook_fused": np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)},
        sources=[f"source {s}" for s in strata],
        splits=np.array(["train", "validation", "test"])[
            np.random.default_rng(1).choice(3, 1000, p=[0.4, 0.2, 0.4])[groups]
        ].tolist(),
        labels={f"is_{c}": true[:, c].astype(int).tolist() for c in range(10)},
    )
    return with_groups(embeddings, [f"template {g}" for g in groups]), latents


def test_permuted_labels_move_templates_so_that_they_show_what_single_memes_hide():
    """The procedure that takes every meme for its own finds as much with permuted labels: the control now says so."""
    embeddings, latents = labelled(5)
    labels = ConceptLabels.of(embeddings, tuple(Concept.parse(f"is_{c}=1") for c in range(1, 10)))
    found = []
    for groups in (None, labels.groups):
        order = permutation_within(labels.sources, np.random.default_rng(0), groups=groups)
        count = Counter(latents.csr(), labels.known[order], labels.sources).count
        found.append(rejected(stratified_greater(count(), 0.05), 0.05).sum())
    assert found[0] <= 2 < 20 < found[1]
    np.testing.assert_array_equal(labels.permuted(np.random.default_rng(0)).known, labels.known[order])


def test_concept_alignment_reads_groups():
    """Fewer significant pairs and wider intervals than as single memes; the same numbers where each is its own group."""
    embeddings, latents = labelled(5)
    alone = Embeddings.from_dataset(embeddings.dataset.remove_columns("group"))
    own = with_groups(alone, range(1000))
    measured = {
        name: ConceptAlignment(of, protocol="corrected", n_bootstrap=20).measure_latents(of, latents)
        for name, of in (("groups", embeddings), ("alone", alone), ("own", own))
    }
    assert measured["own"].numbers == measured["alone"].numbers
    numbers, naive = measured["groups"].numbers, measured["alone"].numbers
    key = "corrected/n_significant_global"
    assert 10 <= numbers[key] <= 24 < 45 < naive[key]
    wider = [
        (numbers[f"{k}_high"] - numbers[f"{k}_low"]) / (naive[f"{k}_high"] - naive[f"{k}_low"])
        for k in (f"corrected/is_{c}=1/best_f1_test" for c in range(10))
        if numbers.get(f"{k}_high") is not None and numbers[k] == naive[k]
    ]
    assert np.median(wider) > 1.3
    table = {name: result.table for name, result in measured.items()}
    width = {name: (t.auroc_high - t.auroc_low).astype(float) for name, t in table.items()}
    assert np.nanmedian(width["groups"] / width["alone"]) > 1.3


def test_a_caution_counts_the_groups():
    embeddings, _ = labelled(5)
    line = next(
        line for line in cautions(tiny_sae(np.eye(4, dtype=np.float32), d_sae=6, k=2), embeddings) if "groups" in line
    )
    test = embeddings.rows("test")
    assert line.startswith(f"{len(test)} test memes are {len(test) // 5} groups")
    assert not any(
        "groups" in line
        for line in cautions(tiny_sae(np.eye(4, dtype=np.float32), d_sae=6, k=2), source_corpus(200)[0])
    )


@pytest.mark.whole
def test_auroc_over_groups_has_the_error_of_a_bootstrap_of_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 4)
    true, strata = (rng.random(120) < 0.4)[groups], rng.integers(0, 2, 120)[groups]
    scores = np.maximum(rng.normal(size=120)[groups] + 0.5 * true + 0.3 * rng.normal(size=480), 0).astype(np.float32)
    ranked, codes = Ranked.of(sparse.csc_matrix(scores[:, None])), np.where(true, 2, 1).astype(np.uint8)[:, None]
    weights = np.stack([*bootstrap_weights(strata, 2000, 0, groups)], axis=1)
    expected = auroc_of_scores(scores, true, strata, weights).std()
    found, plain = auroc(ranked, codes, strata, groups), auroc(ranked, codes, strata)
    assert found.standard_error[0, 0] == pytest.approx(expected, rel=0.06)
    assert found.value == plain.value
    assert plain.standard_error[0, 0] < 0.7 * expected


def test_items_of_the_question_set_take_one_meme_a_group():
    embeddings, _ = labelled(5)
    items = np.concatenate(random_items(embeddings, np.arange(1000), 400))
    assert len(items) == len(set(embeddings.groups[items])) > 190


def test_groups_are_read_from_any_column(tmp_path):
    x = {"hook_fused": np.ones((6, 2), np.float32)}
    for names, codes in (
        (["b", "a", None, "b", "", "NA"], [0, 1, 2, 0, 3, 4]),
        ([7, 3, None, 7, 3, 3], [0, 1, 2, 0, 1, 1]),
        ([1.0, float("nan"), float("nan"), 1.0, 2.0, 2.0], [0, 1, 2, 0, 3, 3]),
    ):
        embeddings = with_groups(make_embeddings(x), names)
        np.testing.assert_array_equal(embeddings.groups, codes)
        assert "group" not in embeddings.label_names
    np.testing.assert_array_equal(make_embeddings(x).groups, np.arange(6))
    classes = ClassLabel(names=["a", "b"])
    column = Dataset.from_dict({"group": [1, -1, -1, 1, 0, 0]}, features=Features({"group": classes}))
    both = concatenate_datasets([make_embeddings(x).dataset, column], axis=1)
    np.testing.assert_array_equal(Embeddings.from_dataset(both).groups, [0, 1, 2, 0, 3, 3])
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32))
    (tmp_path / "t.csv").write_text("id,group,hate\na,t1,0\nb,,1\nc,t1,1\nd,,0\n")
    embeddings = embed_arrays(out=tmp_path / "out", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy")
    np.testing.assert_array_equal(embeddings.groups, [0, 1, 0, 2])
    assert embeddings.label_names == ("hate",)


def memes(root: Path, rows: list[dict]) -> Path:
    root.mkdir(parents=True)
    for i, row in enumerate(rows):
        seed = row.pop("seed", 1000 + i)
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:03}.png")
        row |= {"image": f"{i:03}.png"}
    (root / "metadata.jsonl").write_text(
        "".join(json.dumps({"text": f"caption {i}"} | r) + "\n" for i, r in enumerate(rows))
    )
    return root


def groups_of(corpus: Path) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    rows = load_rows(corpus)
    for identity, group in zip(rows["id"][:], rows["group"][:], strict=True):
        found[group].add(identity[-7:-4])
    return dict(found)


def test_a_corpus_unites_what_shares_picture_caption_or_column(tmp_path):
    rows: list[dict] = [{"hate": i % 2, "template": None, "group": "everybody"} for i in range(130)]
    rows[1]["seed"] = rows[0]["seed"] = 0  # one picture
    rows[1]["text"], rows[2]["text"] = "One  does not\n simply", "one DOES not simply"  # one caption
    rows[3]["template"] = rows[2]["template"] = rows[4]["template"] = "boromir"
    for row in rows[10:70]:
        row["text"] = "lol"  # of sixty memes: too many to mean anything
    for row in rows[70:80]:
        row["text"] = ""
    folder = memes(tmp_path / "mine", rows)
    build_corpus(tmp_path / "out", folder=folder, columns={"group": "template"}, holdout=0.3, progress=False)
    groups = groups_of(tmp_path / "out")
    assert groups.pop("mine/000.png") == {"000", "001", "002", "003", "004"}
    assert all(len(members) == 1 for members in groups.values())
    assert len(groups) == 125
    build_corpus(tmp_path / "plain", folder=folder, holdout=0.3, progress=False)
    assert groups_of(tmp_path / "plain")["mine/000.png"] == {"000", "001", "002"}, "a column `group` has to be named"


def test_splits_that_we_cut_keep_groups_together_and_given_ones_stay(tmp_path):
    rows = [{"text": f"template {i // 3}", "hate": i % 2} for i in range(150)]
    build_corpus(tmp_path / "cut", folder=memes(tmp_path / "a" / "mine", rows), holdout=0.25, progress=False)
    cut = load_rows(tmp_path / "cut")
    split_of: defaultdict[str, set[str]] = defaultdict(set)
    for group, split in zip(cut["group"][:], cut["split"][:], strict=True):
        split_of[group].add(split)
    assert len(split_of) == 50
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {split for splits in split_of.values() for split in splits} == {"train", "validation", "test"}
    given = [row | {"split": ("train", "test")[i % 2]} for i, row in enumerate(rows)]
    build_corpus(tmp_path / "given", folder=memes(tmp_path / "b" / "mine", given), progress=False)
    kept = load_rows(tmp_path / "given")
    wanted = {f"mine/{i:03}.png": ("train", "test")[i % 2] for i in range(150)}
    assert dict(zip(kept["id"][:], kept["split"][:], strict=True)) == wanted
    assert not any("group" in line for line in corpus_notes(tmp_path / "given")), "the captions say it already"
    export_table(tmp_path / "given", tmp_path / "t.csv")
    assert (
        (tmp_path / "t.csv").read_text().splitlines()[0].replace('"', "").startswith("id,source,split,group,text,hate")
    )
