# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false
"""Selection by score, filtered datasets, and what a probe learns from what is kept, against plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from arrays import make_embeddings
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.classifiers import fit_latent_probe, tasks_of
from sae_lens_meme.evaluators.cross_modal import (
    CrossModal,
    ItemScores,
    cross_modal_weights,
    filter_dataset,
    item_scores,
    select,
)
from sae_lens_meme.evaluators.cross_modal.comparison import FilterOptions, compare
from sae_lens_meme.evaluators.cross_modal.selection import best, kept_again, random_overlap
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.probes import scores as probe_scores
from sae_lens_meme.metrics.ranking import auroc_of_scores
from sae_lens_meme.metrics.resampling import bootstrap_weights

N, D, D_SAE, SHARE = 400, 12, 30, 0.4


@pytest.fixture(scope="module")
def data() -> tuple[Embeddings, Latents]:
    rng = np.random.default_rng(0)
    sources = rng.choice(["a", "b", "c"], N, p=[0.5, 0.3, 0.2])
    shared = rng.standard_normal((N, D))
    hooks = {f"hook_{side}_embed": shared + rng.standard_normal((N, D)) for side in ("image", "text")}
    z = rng.exponential(size=(N, D_SAE)) * (rng.random((N, D_SAE)) < 0.3)
    signal = z @ rng.standard_normal(D_SAE) + (sources == "a") + rng.standard_normal(N)
    labels = {
        "hate": [int(v > 0.5) if rng.random() < 0.9 else None for v in signal],
        "stance": np.digitize(signal, [-0.5, 1.0]).tolist(),
    }
    embeddings = make_embeddings(hooks, sources=sources.tolist(), labels=labels)
    return embeddings, Latents.from_csr(sparse.csr_matrix(z))


@pytest.fixture(scope="module")
def weights(data):
    return cross_modal_weights(*data, n_bootstrap=25)


@pytest.fixture(scope="module")
def scores(data, weights) -> ItemScores:
    return item_scores(*data, weights)


def made(values, ids=None, sources=None, train=None) -> ItemScores:
    values = np.asarray(values, dtype=float)
    ids = np.array(ids if ids is not None else [f"m{i}" for i in range(len(values))])
    train = np.arange(len(values)) if train is None else np.asarray(train)
    sources = np.array(sources if sources is not None else ["one"] * len(values))
    by_id = train[np.argsort(ids[train])]
    groups = np.arange(len(values))
    return ItemScores(ids, sources, by_id, values, values, values, np.zeros(len(values), int), groups)


# Selection


@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")]), min_size=1, max_size=40),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 99),
    within=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_the_best_share_is_kept_and_ties_go_to_the_smaller_id(values, share, seed, within):
    rng = np.random.default_rng(seed)
    n = len(values)
    ids, sources = rng.permutation([f"m{i:02}" for i in range(n)]), rng.choice(["a", "b"], n)
    scores = made(values, ids, sources)
    expected = []
    for source in set(sources) if within else {None}:
        mine = [i for i in range(n) if source in (None, sources[i])]
        mine.sort(key=lambda i: (np.isnan(values[i]), -np.nan_to_num(values[i]), ids[i]))
        expected += mine[: max(1, round(share * len(mine)))]
    assert select(scores, share, within_source=within).tolist() == sorted(expected)


def test_only_train_memes_are_chosen_from(scores, data):
    kept = select(scores, 0.5, by="clip")
    assert set(kept) < set(data[0].rows("train"))
    assert len(kept) == round(0.5 * len(data[0].rows("train")))
    left = np.setdiff1d(data[0].rows("train"), kept)
    assert scores.clip[kept].min() > scores.clip[left].max()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_bad_share_is_refused(scores, data, share):
    with pytest.raises(ConfigError, match=r"share is .*; give the share of train memes to keep"):
        select(scores, share)
    with pytest.raises(ConfigError, match=r"cross_modal.shares.1 is"):
        CrossModal(data[0], shares=(0.5, share))


def test_an_unknown_score_is_refused(scores):
    with pytest.raises(DataError, match="score 'l1' is not one of sum, mean, clip, l0"):
        select(scores, 0.5, by="l1")


# Filtered datasets


def test_the_dataset_of_embeddings_is_filtered_without_a_copy(data, scores):
    embeddings, _ = data
    filtered = filter_dataset(embeddings.dataset, scores, SHARE, by="mean")
    kept = set(embeddings.ids[select(scores, SHARE, by="mean")]) | set(embeddings.ids[embeddings.splits != "train"])
    assert filtered["id"][:] == [meme for meme in embeddings.ids if meme in kept]
    row_of = {meme: row for row, meme in enumerate(embeddings.ids)}
    assert filtered["cross_modal_score"][:] == [scores.mean[row_of[meme]] for meme in filtered["id"]]
    assert addresses(filtered) == addresses(embeddings.dataset)
    assert "cross_modal_score" not in embeddings.dataset.column_names
    again = Embeddings.from_dataset(filtered)
    np.testing.assert_array_equal(
        again.take("hook_text_embed", [3]), embeddings.take("hook_text_embed", [row_of[again.ids[3]]])
    )


def addresses(dataset: Dataset) -> list[int]:
    """Where the vectors lie in memory."""
    return [
        chunk.storage.flatten().flatten().buffers()[1].address
        for chunk in dataset.data.column("hook_text_embed").chunks
    ]


def test_a_corpus_with_splits_keeps_its_other_splits(data, scores):
    embeddings, _ = data
    shuffled = embeddings.dataset.shuffle(seed=1)
    parts = {
        name: shuffled.filter(lambda row, name=name: row["split"] == name) for name in ("train", "validation", "test")
    }
    filtered = filter_dataset(DatasetDict(parts), scores, SHARE, within_source=True, column="omega")
    kept = set(embeddings.ids[select(scores, SHARE, within_source=True)])
    assert filtered["train"]["id"][:] == [meme for meme in parts["train"]["id"] if meme in kept]
    for name in ("validation", "test"):
        assert filtered[name]["id"][:] == parts[name]["id"][:]
    sums = dict(zip(embeddings.ids, scores.sum, strict=True))
    for part in filtered.values():
        assert part["omega"][:] == [sums[meme] for meme in part["id"]]
    assert addresses(filtered["train"]) == addresses(parts["train"])
    only = filter_dataset(parts["train"], scores, SHARE, within_source=True, column="omega")
    assert only["id"][:] == filtered["train"]["id"][:]


def test_a_meme_without_a_score_has_null():
    filtered = filter_dataset(Dataset.from_dict({"id": ["m0", "m1", "m2"]}), made([1, np.nan, 2], train=[0, 2]), 0.5)
    assert filtered[:] == {"id": ["m1", "m2"], "cross_modal_score": [None, 2.0]}


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"id": ["m0", "m1", "x"]}, DataError, "meme 'x' has no score; give the dataset that the embeddings were made"),
        ({"id": ["m0", "m1"]}, DataError, "meme 'm2' is to be kept but is not in this dataset"),
        ({"id": ["m0", "m1", "m2", "m1"]}, DataError, "meme 'm1' is in this dataset more than once"),
        ({"name": ["m0"]}, DataError, "no column 'id'; it has name"),
        ({"id": ["m0"], "cross_modal_score": [1.0]}, ConfigError, "has a column 'cross_modal_score' already"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(columns, error, message):
    with pytest.raises(error, match=message):
        filter_dataset(Dataset.from_dict(columns), made([0, 1, 2]), 0.5)


# Comparison


@given(seed=st.integers(0, 500), ties=st.booleans())
@settings(max_examples=30, deadline=None)
def test_resampled_auroc_is_scikit_learns_on_the_drawn_memes(seed, ties):
    rng = np.random.default_rng(seed)
    score = np.sort(np.round(rng.random(40), 1 if ties else 9))
    true, strata = rng.random(40) < 0.4, rng.integers(0, 3, 40)
    draws = np.array([np.ones(40), *bootstrap_weights(strata, 4, seed)], np.uint8)
    for groups in (np.zeros(40, int), strata):
        found = auroc_of_scores(score, true, groups, draws.T.copy())
        for value, times in zip(found, draws, strict=True):
            s, t, g = (np.repeat(x, times) for x in (score, true, groups))
            pairs = [(t[g == k].sum() * (~t[g == k]).sum(), k) for k in np.unique(g)]
            each = [(n, roc_auc_score(t[g == k], s[g == k])) for n, k in pairs if n]
            expected = np.average([a for _, a in each], weights=[n for n, _ in each]) if each else np.nan
            assert value == pytest.approx(expected, nan_ok=True)


@pytest.fixture(scope="module")
def result(data):
    return CrossModal(data[0], shares=(SHARE,), n_bootstrap=25, n_random=3).measure(None, *data)


def kept_of(task, scores, by, share) -> np.ndarray:
    """Known train memes with the largest score."""
    order = sorted(task.train, key=lambda row: (-scores.by(by)[row], scores.ids[row]))
    return np.array(order[: round(share * len(order))])


def fitted(task, latents, kept):
    return fit_latent_probe(task.name, latents.csr()[kept], task.label.values[kept])


def aurocs(task, embeddings, latents, probe, rows=None) -> list[float]:
    """By the probe and the scores of `Probes`."""
    rows = task.held_out if rows is None else rows
    p = probe.predict_proba(latents.csr()[rows])
    found, _ = probe_scores(probe.classes, p, task.label.values[rows], embeddings.sources[rows])
    return [found["auroc"], found["auroc_within_source"]]


@pytest.mark.parametrize("number", [0, 1])
def test_the_filters_are_compared_by_the_probe_of_probes(data, scores, result, number):
    embeddings, latents = data
    task = tasks_of(embeddings)[0][number]
    at, levels = f"{task.name}/keep_{SHARE}", ("auroc", "auroc_within_source")
    everything = aurocs(task, embeddings, latents, fitted(task, latents, task.train))
    assert [result.numbers[f"{task.name}/all/{level}"] for level in levels] == pytest.approx(everything, abs=1e-9)
    train = np.array(sorted(task.train, key=lambda row: embeddings.ids[row]))
    rng = np.random.default_rng([0, 3])
    draws = [train[best(rng.random(len(train)), SHARE)] for _ in range(3)]
    random = [aurocs(task, embeddings, latents, fitted(task, latents, kept)) for kept in draws]
    for i, level in enumerate(levels):
        each = [draw[i] for draw in random]
        assert result.numbers[f"{at}/random/{level}"] == pytest.approx(np.mean(each), abs=1e-9)
        assert result.numbers[f"{at}/random/{level}_lowest"] == pytest.approx(min(each), abs=1e-9)
        assert result.numbers[f"{at}/random/{level}_highest"] == pytest.approx(max(each), abs=1e-9)
        for by in ("sum", "mean", "clip", "l0"):
            kept = kept_of(task, scores, by, SHARE)
            mine = aurocs(task, embeddings, latents, fitted(task, latents, kept))[i]
            assert result.numbers[f"{at}/{by}/{level}"] == pytest.approx(mine, abs=1e-9)
            assert result.numbers[f"{at}/{by}/{level}_minus_random"] == pytest.approx(mine - np.mean(each), abs=1e-9)
    assert result.numbers[f"{at}/n_kept"] == len(kept)
    assert len({len(kept), *map(len, draws)}) == 1


def test_the_interval_of_the_difference_counts_both_draws(data, scores, result):
    """Student's t from the variance over resampled held-out memes and that over random training sets."""
    embeddings, latents = data
    task = tasks_of(embeddings)[0][0]
    train, held_out = (np.array(sorted(r, key=lambda row: embeddings.ids[row])) for r in (task.train, task.held_out))
    rng = np.random.default_rng([0, 3])
    others = [fitted(task, latents, train[best(rng.random(len(train)), SHARE)]) for _ in range(3)]
    mine = fitted(task, latents, kept_of(task, scores, "clip", SHARE))
    differences = []
    for times in bootstrap_weights(np.unique(embeddings.sources[held_out], return_inverse=True)[1], 25, 0):
        rows = np.repeat(held_out, times)
        random = np.mean([aurocs(task, embeddings, latents, probe, rows) for probe in others], axis=0)
        differences.append(np.array(aurocs(task, embeddings, latents, mine, rows)) - random)
    of_test = np.var(differences, axis=0, ddof=1)
    of_train = np.var([aurocs(task, embeddings, latents, probe) for probe in others], axis=0, ddof=1) * (1 + 1 / 3)
    freedom = (of_test + of_train) ** 2 / (of_test**2 / 24 + of_train**2 / 2)
    half = t.ppf(0.975, freedom) * np.sqrt(of_test + of_train)
    at = f"{task.name}/keep_{SHARE}/clip"
    for i, level in enumerate(("auroc", "auroc_within_source")):
        value = result.numbers[f"{at}/{level}_minus_random"]
        assert result.numbers[f"{at}/{level}_minus_random_low"] == pytest.approx(value - half[i], abs=1e-9)
        assert result.numbers[f"{at}/{level}_minus_random_high"] == pytest.approx(value + half[i], abs=1e-9)


@pytest.mark.slow
def test_a_filter_by_a_score_of_noise_is_rarely_called_better_or_worse():
    """With the random training sets held fixed, twice as many intervals would leave out 0."""
    rng, outside, n_intervals = np.random.default_rng(0), 0, 0
    for _ in range(40):
        z = rng.exponential(size=(300, 20)) * (rng.random((300, 20)) < 0.3)
        y = z @ rng.standard_normal(20) + 2 * rng.standard_normal(300) > 0
        split = ["train"] * 100 + ["test"] * 200
        noise = {f"hook_{side}_embed": rng.standard_normal((300, 6)) for side in ("image", "text")}
        embeddings = make_embeddings(noise, labels={"y": y.astype(int).tolist()}, splits=split)
        found = CrossModal(embeddings, n_bootstrap=50).measure(None, embeddings, Latents.from_csr(sparse.csr_matrix(z)))
        ends = [
            found.numbers[f"y/keep_0.5/{by}/auroc_minus_random_{end}"]
            for by in ("clip", "sum")
            for end in ("low", "high")
        ]
        outside += sum(low > 0 or high < 0 for low, high in (ends[:2], ends[2:]))
        n_intervals += 2
    assert outside / n_intervals <= 0.1, outside


def test_one_random_selection_says_nothing_of_the_training_draw(data):
    found = CrossModal(data[0], n_bootstrap=25, n_random=1, tasks=["hate"]).measure(None, *data)
    assert found.numbers["hate/keep_0.5/sum/auroc_minus_random_low"] is None
    assert "n_random is below 2" in found.reasons["hate/keep_0.5/sum/auroc_minus_random_low"]


def test_where_all_memes_have_one_l0_mean_and_sum_are_said_to_be_the_same():
    rng = np.random.default_rng(0)
    indices = np.sort(rng.permuted(np.tile(np.arange(20), (200, 1)), axis=1)[:, :4], axis=1).astype(np.int32)
    latents = Latents(indices, rng.exponential(size=(200, 4)).astype(np.float32), 20)
    hooks = {f"hook_{side}_embed": rng.standard_normal((200, 6)) for side in ("image", "text")}
    embeddings = make_embeddings(hooks, labels={"y": [i % 2 for i in range(200)]})
    found = CrossModal(embeddings, n_bootstrap=5).measure(None, embeddings, latents)
    assert found.numbers["y/keep_0.5/mean/auroc"] == found.numbers["y/keep_0.5/sum/auroc"]
    assert "the same memes as by the sum" in found.explain["y/keep_0.5/mean/auroc"]
    assert {name for row in found.rows() for name in row["controls"]} & {"mean", "normalised"} == set()


def test_a_filter_that_finds_the_clean_memes_beats_random():
    """Half of the train memes have labels at random, and captions of other memes: the CLIP score tells them apart."""
    rng = np.random.default_rng(0)
    z = rng.exponential(size=(1200, 40)) * (rng.random((1200, 40)) < 0.3)
    clean = rng.random(1200) < 0.5
    true = z @ rng.standard_normal(40) > 0
    split = rng.choice(["train", "test"], 1200, p=[0.5, 0.5])
    noisy = np.where(clean | (split == "test"), true, rng.random(1200) < 0.5)
    image = rng.standard_normal((1200, 16))
    text = np.where(clean[:, None], image, rng.permutation(image)) + 0.3 * rng.standard_normal((1200, 16))
    embeddings = make_embeddings(
        {"hook_image_embed": image, "hook_text_embed": text},
        labels={"y": noisy.astype(int).tolist()},
        splits=split.tolist(),
    )
    result = CrossModal(embeddings, n_bootstrap=100).measure(None, embeddings, Latents.from_csr(sparse.csr_matrix(z)))
    assert result.numbers["y/keep_0.5/clip/auroc_minus_random_low"] > 0.02
    assert result.numbers["y/keep_0.5/clip/auroc"] > result.numbers["y/keep_0.5/random/auroc_highest"]
    assert result.numbers["y/keep_0.5/clip/auroc"] > result.numbers["y/all/auroc"]


def test_selection_within_source_keeps_the_share_of_each(data, weights):
    embeddings, latents = data
    evaluator = CrossModal(embeddings, within_source=True, shares=(0.25, 0.5), n_bootstrap=25, n_random=2)
    result = evaluator.measure(None, embeddings, latents)
    scores = item_scores(embeddings, latents, weights)
    task = tasks_of(embeddings)[0][0]
    kept = []
    for source in ("a", "b", "c"):
        mine = replace(task, train=task.train[embeddings.sources[task.train] == source])
        kept += kept_of(mine, scores, "clip", 0.25).tolist()
    probe = fitted(task, latents, np.array(kept))
    assert result.numbers["hate/keep_0.25/clip/auroc"] == pytest.approx(
        aurocs(task, embeddings, latents, probe)[0], abs=1e-9
    )
    assert result.numbers["hate/keep_0.25/n_kept"] == len(kept)


def test_train_memes_to_choose_from_are_bounded(data, scores):
    embeddings, latents = data
    task = tasks_of(embeddings)[0][0]
    found = compare(task, latents, scores, FilterOptions(max_rows=100, n_bootstrap=0, n_random=1))
    assert (found.n_train, found.n_kept[0.5]) == (100, 50)
    one = compare(task, latents, scores, FilterOptions(n_bootstrap=0, n_random=1))
    assert found.everything[0, 0] != one.everything[0, 0]


def test_what_cannot_be_compared_is_null_with_the_reason(data):
    embeddings, latents = data
    rare = [1 if i in (0, 2) else 0 for i in range(N)]
    only_train = [int(i % 2) if split == "train" else None for i, split in enumerate(embeddings.splits)]
    hooks = {hook: embeddings.take(hook, np.arange(N)) for hook in embeddings.hooks}
    flat = Latents(latents.indices[:, :1], np.ones((N, 1), np.float32), D_SAE)
    labels = {"rare": rare, "only_train": only_train, "always": [1] * N}
    changed = make_embeddings(hooks, labels=labels)
    result = CrossModal(changed, n_bootstrap=0, n_random=0).measure(None, changed, flat)
    reasons = result.reasons
    assert reasons["always/all/auroc"].startswith("label 'always' has 1 class among")
    assert reasons["only_train/all/auroc"] == "no known test or validation rows"
    assert reasons["rare/all/auroc"] == "all 60 held-out rows are of one class"
    assert reasons["rare/keep_0.5/l0/auroc"] == "the score is the same for all 280 train memes: it has no best share"
    assert reasons["rare/keep_0.5/random/auroc"].startswith("there is no random selection")
    assert reasons["stability/keep_0.5/sum/kept_again"] == "n_bootstrap is 0: no resamples"
    assert reasons["score/sum/spearman_l0"].startswith("the sum score or l0 is the same")
    assert reasons["omega/above_chance"] == "n_bootstrap is 0: no intervals"
    lost = CrossModal(changed, n_bootstrap=0, shares=(0.01,), tasks=["rare"]).measure(None, changed, flat)
    assert "class 1 is among the 3 kept ones" in lost.reasons["rare/keep_0.01/clip/auroc"]


def test_no_random_selection_leaves_the_differences_out(data):
    embeddings, latents = data
    result = CrossModal(embeddings, n_bootstrap=5, n_random=0, tasks=["hate"]).measure(None, embeddings, latents)
    assert result.numbers["hate/keep_0.5/sum/auroc"] is not None
    assert result.reasons["hate/keep_0.5/sum/auroc_minus_random"].startswith("there is no random selection")
    none = CrossModal(embeddings, n_bootstrap=0, tasks=["hate"]).measure(None, embeddings, latents)
    assert none.numbers["hate/keep_0.5/sum/auroc_minus_random"] is not None
    assert none.reasons["hate/keep_0.5/sum/auroc_minus_random_low"] == "n_bootstrap is 0: no intervals"


@pytest.mark.parametrize("options", [{"n_random": -1}, {"max_rows": 1}])
def test_wrong_options_are_refused(data, options):
    with pytest.raises(ConfigError, match=r"cross_modal.(n_random|max_rows) is"):
        CrossModal(data[0], **options)


# Stability


@pytest.mark.parametrize("within", [False, True])
def test_stability_selects_again_with_the_weights_of_each_resample(data, weights, scores, within):
    embeddings, latents = data
    again = kept_again(latents, scores, weights, SHARE, within)
    first = {by: set(select(scores, SHARE, by=by, within_source=within)) for by in ("sum", "mean")}
    for r in (0, 7, 24):
        other = item_scores(embeddings, latents, replace(weights, omega=weights.replicates[r]))
        for by, kept in first.items():
            second = set(select(other, SHARE, by=by, within_source=within))
            assert again[by][r] == pytest.approx(len(kept & second) / len(kept))


def test_stability_numbers_are_means_and_intervals(data, weights, scores, result):
    kept = select(scores, SHARE)
    shared, jaccard = [], []
    for omega in weights.replicates:
        other = set(select(item_scores(*data, replace(weights, omega=omega)), SHARE))
        shared.append(len(set(kept) & other) / len(kept))
        jaccard.append(len(set(kept) & other) / len(set(kept) | other))
    for name, values in (("kept_again", shared), ("jaccard", jaccard)):
        at = f"stability/keep_{SHARE}/sum/{name}"
        assert result.numbers[at] == pytest.approx(np.mean(values))
        assert result.numbers[f"{at}_low"] == pytest.approx(np.quantile(values, 0.025))
        assert result.numbers[f"{at}_high"] == pytest.approx(np.quantile(values, 0.975))
    assert np.mean(shared) > result.numbers[f"stability/keep_{SHARE}/sum/kept_again_random"] + 0.1


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_random_selections_share_what_draws_share(share, within):
    scores = made(np.zeros(60), sources=["a"] * 40 + ["b"] * 20)
    rng = np.random.default_rng(0)
    groups = scores.sources if within else None
    draws = []
    for _ in range(2000):
        one, other = (set(best(rng.random(60), share, groups)) for _ in range(2))
        draws.append([len(one & other) / len(one), len(one & other) / len(one | other)])
    error = 4 * np.std(draws, axis=0) / np.sqrt(len(draws)) + 1e-9
    assert (np.abs(np.mean(draws, axis=0) - random_overlap(scores, share, within)) < error).all()


def test_stable_weights_keep_the_same_memes(data, weights, scores):
    same = replace(weights, replicates=np.tile(weights.omega, (3, 1)))
    assert kept_again(data[1], scores, same, SHARE)["sum"].tolist() == [1, 1, 1]
