# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false
"""Weights, item scores and controls against plain loops over memes."""

from __future__ import annotations

import hostile
import numpy as np
import pytest
from arrays import make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import false_discovery_control, norm, rankdata

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.evaluators import Result, Unavailable
from sae_lens_meme.evaluators.cross_modal import CrossModal, MemePairs, SideHooks, cross_modal_weights, item_scores
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.resampling import bootstrap_weights

N, D, D_SAE = 240, 12, 30
RARE, SILENT, DENSE = 0, 1, 2
TOP = 4


def make(seed: int = 0, n: int = N) -> tuple[Embeddings, np.ndarray]:
    """Memes of three sources whose image and text share something, and latents with ties, a rare and a silent one."""
    rng = np.random.default_rng(seed)
    sources = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    shared = rng.standard_normal((n, D)) + (sources == "a")[:, None]
    hooks = {f"hook_{side}_embed": shared + rng.standard_normal((n, D)) for side in ("image", "text")}
    hate = [int(v) if rng.random() < 0.8 else None for v in shared[:, 0] + rng.standard_normal(n) > 0]
    stance = np.digitize(shared[:, 1] + rng.standard_normal(n), [-0.5, 0.5]).tolist()
    z = np.round(rng.exponential(size=(n, D_SAE)), 1) * (rng.random((n, D_SAE)) < 0.25)
    z[:, RARE] = 0
    z[rng.permutation(n)[:3], RARE] = 1.0
    z[:, SILENT] = 0
    z[:, DENSE] = rng.exponential(size=n) + 0.1
    labels = {"hate": hate, "stance": stance}
    return make_embeddings(hooks, sources=sources.tolist(), labels=labels), z.astype(np.float32)


def latents_of(z: np.ndarray) -> Latents:
    return Latents.from_csr(sparse.csr_matrix(z))


@pytest.fixture(scope="module")
def data() -> tuple[Embeddings, np.ndarray]:
    return make()


@pytest.fixture(scope="module")
def weights(data):
    return cross_modal_weights(data[0], latents_of(data[1]), top=TOP, n_bootstrap=30)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


class Loops:
    """Everything again, one meme and one pair at a time."""

    def __init__(self, embeddings: Embeddings, z: np.ndarray, delta: float = 0.0):
        rows = np.arange(len(embeddings))
        self.image, self.text = (embeddings.take(f"hook_{side}_embed", rows) for side in ("image", "text"))
        self.ids, self.sources, self.z, self.delta = embeddings.ids, embeddings.sources, z, delta
        self.train = sorted(np.flatnonzero(embeddings.splits == "train"), key=lambda row: self.ids[row])

    def cosine(self, a: int, b: int) -> float:
        """Of the text of a and the image of b."""
        return cosine(self.text[a], self.image[b])

    def strongest(self, latent: int) -> list[int]:
        fires = [int(row) for row in self.train if self.z[row, latent] > self.delta]
        return sorted(fires, key=lambda row: (-self.z[row, latent], self.ids[row]))

    def omega(self, memes: list[int]) -> float:
        return float(np.mean([self.cosine(a, b) for a in memes for b in memes]))

    def resampled(self, latent: int, times: np.ndarray) -> float:
        drawn = [row for row in self.strongest(latent) for _ in range(times[self.train.index(row)])][:TOP]
        pairs = [self.cosine(a, b) for a in drawn for b in drawn if a != b]
        if len(drawn) < TOP or not pairs:
            return np.nan
        own = np.mean([self.cosine(a, a) for a in drawn])
        return float(own / TOP + (1 - 1 / TOP) * np.mean(pairs))

    def mean_between(self, a_source: str, b_source: str) -> float:
        pairs = [
            self.cosine(a, b)
            for a in self.train
            for b in self.train
            if a != b and self.sources[a] == a_source and self.sources[b] == b_source
        ]
        return float(np.mean(pairs))

    def chance(self, memes: list[int]) -> float:
        total = 0.0
        for i, a in enumerate(memes):
            for j, b in enumerate(memes):
                source = self.sources[a]
                mine = [self.cosine(m, m) for m in self.train if self.sources[m] == source]
                total += np.mean(mine) if i == j else self.mean_between(source, self.sources[b])
        return total / len(memes) ** 2


def test_weights_are_the_means_of_the_cosines(data, weights):
    loops = Loops(*data)
    for latent in range(D_SAE):
        memes = loops.strongest(latent)
        assert weights.support[latent] == len(memes)
        if len(memes) < TOP:
            assert np.isnan([weights.omega[latent], weights.paired[latent], weights.chance[latent]]).all()
            continue
        memes = memes[:TOP]
        assert weights.omega[latent] == pytest.approx(loops.omega(memes), abs=1e-12)
        assert weights.paired[latent] == pytest.approx(np.mean([loops.cosine(m, m) for m in memes]), abs=1e-12)
        others = [loops.cosine(a, b) for a in memes for b in memes if a != b]
        assert weights.unpaired[latent] == pytest.approx(np.mean(others), abs=1e-12)
    assert np.isnan(weights.omega[[RARE, SILENT]]).all()
    assert np.isfinite(np.delete(weights.omega, [RARE, SILENT])).all()


@pytest.mark.parametrize("latent", [DENSE, 7])
def test_chance_is_the_mean_of_all_memes_with_these_sources(data, weights, latent):
    loops = Loops(*data)
    assert weights.chance[latent] == pytest.approx(loops.chance(loops.strongest(latent)[:TOP]), abs=1e-12)
    corrected = (weights.omega[latent] - weights.chance[latent]) / (1 - weights.chance[latent])
    assert weights.corrected[latent] == pytest.approx(corrected)


def test_chance_is_what_random_memes_of_the_same_sources_have(data, weights):
    embeddings, z = data
    draws = [
        cross_modal_weights(embeddings, latents_of(z), top=TOP, n_bootstrap=0, seed=seed, shuffled=True)
        for seed in range(200)
    ]
    omega = np.array([draw.omega for draw in draws])
    measured = ~np.isnan(weights.omega)
    np.testing.assert_allclose(draws[0].chance[measured], weights.chance[measured])
    error = omega[:, measured].std(0) / np.sqrt(len(draws))
    assert (np.abs(omega[:, measured].mean(0) - weights.chance[measured]) < 4.5 * error).all()


def test_resamples_redo_the_loop_on_the_drawn_memes(data, weights):
    loops = Loops(*data)
    sources = np.unique(loops.sources[loops.train], return_inverse=True)[1]
    for r, times in enumerate(bootstrap_weights(sources, 5, seed=0)):
        for latent in range(D_SAE):
            if np.isnan(weights.omega[latent]):
                assert np.isnan(weights.replicates[:, latent]).all()
            else:
                expected = loops.resampled(latent, times)
                assert weights.replicates[r, latent] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert weights.interval[:, DENSE] == pytest.approx(np.quantile(weights.replicates[:, DENSE], [0.025, 0.975]))


def test_a_latent_on_just_enough_memes_is_undefined_where_they_are_not_drawn():
    embeddings, z = make(seed=3)
    z[:, RARE] = 0
    z[embeddings.rows("train")[:TOP], RARE] = [4, 3, 2, 1]
    weights = cross_modal_weights(embeddings, latents_of(z), top=TOP, n_bootstrap=60)
    loops = Loops(embeddings, z)
    sources = np.unique(loops.sources[loops.train], return_inverse=True)[1]
    expected = [loops.resampled(RARE, times) for times in bootstrap_weights(sources, 60, seed=0)]
    np.testing.assert_allclose(weights.replicates[:, RARE], expected, atol=1e-12)
    assert 5 < np.isnan(expected).sum() < 55


def test_means_over_pairs_in_closed_form(data):
    embeddings, z = data
    pairs, loops = MemePairs.of(embeddings), Loops(embeddings, z)
    different = [(a, b) for a in loops.train for b in loops.train if a != b]
    assert pairs.any_pair == pytest.approx(np.mean([loops.cosine(a, b) for a, b in different]), abs=1e-12)
    same = [(a, b) for a, b in different if loops.sources[a] == loops.sources[b]]
    assert pairs.pair_within_source == pytest.approx(np.mean([loops.cosine(a, b) for a, b in same]), abs=1e-12)
    assert pairs.clip == pytest.approx([loops.cosine(m, m) for m in range(N)])


@pytest.mark.parametrize("delta", [0.0, 0.6])
def test_item_scores_sum_the_weights_of_active_latents(data, delta):
    embeddings, z = data
    weights = cross_modal_weights(embeddings, latents_of(z), top=TOP, n_bootstrap=0, delta=delta)
    scores = item_scores(embeddings, latents_of(z), weights)
    loops = Loops(embeddings, z, np.float32(delta))
    assert weights.support.tolist() == [len(loops.strongest(latent)) for latent in range(D_SAE)]
    for row in range(N):
        active = [f for f in range(D_SAE) if z[row, f] > np.float32(delta)]
        omegas = [loops.omega(loops.strongest(f)[:TOP]) for f in active if len(loops.strongest(f)) >= TOP]
        assert scores.sum[row] == pytest.approx(sum(omegas), abs=1e-12)
        assert scores.mean[row] == pytest.approx(np.mean(omegas) if omegas else np.nan, abs=1e-12, nan_ok=True)
        assert scores.l0[row] == len(active)


def test_rank_correlations_are_of_ranks(data):
    embeddings, z = data
    result = CrossModal(embeddings, top=TOP, n_bootstrap=3, tasks=["hate"]).measure(None, embeddings, latents_of(z))
    scores = item_scores(embeddings, latents_of(z), cross_modal_weights(embeddings, latents_of(z), top=TOP))
    train = embeddings.rows("train")
    for by in ("sum", "mean"):
        for other in ("l0", "clip"):
            ranks = [rankdata(scores.by(name)[train]) for name in (by, other)]
            assert result.numbers[f"score/{by}/spearman_{other}"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert result.numbers["score/sum/spearman_l0"] > result.numbers["score/mean/spearman_l0"] + 0.2


def test_medians_and_counts(data, weights):
    embeddings, z = data
    result = CrossModal(embeddings, top=TOP, n_bootstrap=30, tasks=["hate"]).measure(None, embeddings, latents_of(z))
    shuffled = cross_modal_weights(embeddings, latents_of(z), top=TOP, n_bootstrap=30, shuffled=True)
    numbers = result.numbers
    for key, values in {
        "median": weights.omega,
        "median_chance": weights.chance,
        "median_corrected": weights.corrected,
        "median_paired": weights.paired,
        "median_unpaired": weights.unpaired,
        "median_permuted": shuffled.omega,
    }.items():
        assert numbers[f"omega/{key}"] == pytest.approx(np.nanmedian(values))
    for key, of in {"above_chance": weights, "above_chance_permuted": shuffled}.items():
        low = np.nanquantile(np.delete(of.replicates, [RARE, SILENT], axis=1), 0.025, axis=0)
        assert numbers[f"omega/{key}"] == np.mean(low > np.delete(of.chance, [RARE, SILENT]))
    assert [numbers[f"latents/{key}"] for key in ("silent", "too_rare", "with_weight")] == [1, 1, D_SAE - 2]
    assert numbers["memes/train"] == len(embeddings.rows("train"))
    assert numbers["cosine/same_meme"] == pytest.approx(MemePairs.of(embeddings).clip[embeddings.rows("train")].mean())
    table = result.table
    assert table is not None
    assert list(table.columns[:5]) == ["latent", "support", "omega", "low", "high"]
    assert table["omega"].isna().tolist() == np.isnan(weights.omega).tolist()
    assert table["low"][DENSE] == pytest.approx(weights.interval[0, DENSE])
    assert set(result.columns) == set(table.columns)
    has = ~np.isnan(weights.omega)
    p = norm.sf((weights.omega - weights.chance)[has] / np.nanstd(weights.replicates[:, has], axis=0, ddof=1))
    assert numbers["omega/significant"] == np.mean(false_discovery_control(p) < 0.05)
    assert numbers["omega/significant_permuted"] == 0


def test_rows_print_their_n_and_the_verdict_says_what_harms(data):
    embeddings, z = data
    result = CrossModal(embeddings, top=TOP, n_bootstrap=30).measure(None, embeddings, latents_of(z))
    n, rows = D_SAE - 2, {row["measure"]: row for row in result.rows()}
    significant = rows[f"share of the {n} latents above chance (q < .05, Benjamini-Hochberg over latents)"]
    assert significant["controls"] == {"permuted": result.numbers["omega/significant_permuted"]}
    assert f"share of the {n} latents above chance" not in rows, "not corrected for the number of latents: JSON only"
    assert "normalised" not in {name for row in result.rows() for name in row["controls"]}
    ends = [
        (row["low"], row["high"]) for name, row in rows.items() if name.endswith(", best 50%") and "again" not in name
    ]
    assert result.verdict == (
        f"{round(n * significant['value'])} of {n} latents fire on memes with picture and caption closer than chance "
        f"(q < .05); SAE-V's filter beats random memes on {sum(low > 0 for low, _ in ends)} and loses on "
        f"{sum(high < 0 for _, high in ends)} of {len(ends)} labels."
    )


def test_too_few_resamples_cannot_be_significant_and_say_so(data):
    embeddings, z = data
    result = CrossModal(embeddings, n_bootstrap=5, tasks=[]).measure(None, embeddings, latents_of(z))
    assert result.numbers["omega/significant"] is None
    assert result.reasons["omega/significant"] == "n_bootstrap is 5: 20 give a standard error"
    assert result.verdict is None


@pytest.mark.parametrize("top_k", [True, False])
def test_l0_is_a_column_where_memes_differ_in_it(data, top_k: bool):
    embeddings, z = data
    if top_k:
        rng = np.random.default_rng(0)
        z = rng.exponential(size=z.shape) * (rng.permuted(np.tile(np.arange(D_SAE), (N, 1)), axis=1) < 4)
    result = CrossModal(embeddings, n_bootstrap=0, tasks=["hate"]).measure(None, embeddings, latents_of(z))
    (row,) = [row for row in result.rows() if row["measure"] == "hate, best 50%"]
    assert ("L0" in row["controls"]) == (not top_k)


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    found = hostile.check(lambda e: CrossModal(e, n_bootstrap=20), case)
    if case in ("all rows alike", "a source a row"):
        assert isinstance(found, Result)
        assert found.numbers["omega/above_chance"] == found.numbers["omega/significant"] == 0, "only rounding"


def test_a_latent_of_aligned_memes_has_the_larger_weight():
    """Memes of one topic (same direction in image and text) against memes whose texts are of other topics."""
    rng = np.random.default_rng(0)
    topics = np.linalg.qr(rng.standard_normal((D, D)))[0]
    image_topic = rng.integers(0, 4, 400)
    matches = np.arange(400) < 200
    text_topic = np.where(matches, image_topic, (image_topic + rng.integers(1, 4, 400)) % 4)
    noise = 0.2 * rng.standard_normal((2, 400, D))
    hooks = {"hook_image_embed": topics[image_topic] + noise[0], "hook_text_embed": topics[text_topic] + noise[1]}
    z = np.zeros((400, 8))
    for topic in range(4):
        z[:, topic] = (matches & (image_topic == topic)) * rng.exponential(size=400)
        z[:, 4 + topic] = (~matches & (image_topic == topic)) * rng.exponential(size=400)
    embeddings = make_embeddings(hooks)
    weights = cross_modal_weights(embeddings, latents_of(z))
    assert weights.omega[:4].min() > 0.6
    assert weights.omega[4:].max() < 0.2
    assert (weights.interval[0, :4] > weights.chance[:4]).all()
    assert (weights.interval[0, 4:] < weights.chance[4:]).all()
    scores = item_scores(embeddings, latents_of(z), weights)
    train = scores.train[z[scores.train].any(axis=1)]
    assert scores.sum[train[matches[train]]].min() > scores.sum[train[~matches[train]]].max()


def test_a_zero_vector_takes_no_part(data):
    embeddings, z = data
    first = Loops(embeddings, z).strongest(DENSE)[0]
    image, text = (embeddings.take(f"hook_{side}_embed", np.arange(N)) for side in ("image", "text"))
    text[first] = 0
    hooks = {"hook_image_embed": image, "hook_text_embed": text}
    without = make_embeddings(hooks, sources=embeddings.sources.tolist(), splits=embeddings.splits.tolist())
    weights = cross_modal_weights(without, latents_of(z), top=TOP, n_bootstrap=0)
    loops = Loops(without, z)
    loops.train.remove(first)
    assert weights.omega[DENSE] == pytest.approx(loops.omega(loops.strongest(DENSE)[:TOP]), abs=1e-12)
    assert weights.support[DENSE] == len(loops.train)
    assert np.isnan(item_scores(without, latents_of(z), weights).clip[first])
    result = CrossModal(without, n_bootstrap=0, tasks=[]).measure(None, without, latents_of(z))
    assert result.numbers["memes/without_cosine"] == 1


@given(seed=st.integers(0, 20), permutation=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_memes_changes_nothing(seed, permutation):
    embeddings, z = make(seed, n=80)
    order = np.random.default_rng(permutation).permutation(80)
    shuffled = Embeddings.from_dataset(embeddings.dataset.select(order))
    evaluator = CrossModal(embeddings, top=3, n_bootstrap=8, n_random=2)
    one = evaluator.measure(None, embeddings, latents_of(z))
    other = evaluator.measure(None, shuffled, latents_of(z[order]))
    assert one.reasons == other.reasons
    for key, value in one.numbers.items():
        assert other.numbers[key] == (None if value is None else pytest.approx(value, abs=1e-9)), key


@given(seed=st.integers(0, 20), latent=st.integers(2, D_SAE - 1), factor=st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_scaling_a_latent_changes_no_weight_and_no_score(seed, latent, factor):
    embeddings, z = make(seed, n=80)
    scaled = z.copy()
    scaled[:, latent] *= factor
    found = []
    for acts in (z, scaled):
        weights = cross_modal_weights(embeddings, latents_of(acts), top=3, n_bootstrap=5)
        scores = item_scores(embeddings, latents_of(acts), weights)
        found.append([weights.omega, weights.replicates, weights.chance, scores.sum, scores.mean])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@given(seed=st.integers(0, 20), latent=st.integers(0, D_SAE - 1))
@settings(max_examples=15, deadline=None)
def test_a_silent_latent_is_null_and_adds_nothing(seed, latent):
    embeddings, z = make(seed, n=80)
    z[:, latent] = 0
    weights = cross_modal_weights(embeddings, latents_of(z), top=3, n_bootstrap=5)
    row = weights.table().loc[latent]
    assert row["support"] == 0
    assert row.drop(["latent", "support"]).isna().all()
    scores = item_scores(embeddings, latents_of(z), weights)
    others = np.delete(np.arange(D_SAE), latent)
    fewer = cross_modal_weights(embeddings, latents_of(z[:, others]), top=3, n_bootstrap=5)
    np.testing.assert_allclose(item_scores(embeddings, latents_of(z[:, others]), fewer).sum, scores.sum, atol=1e-12)


def test_min_support_leaves_out_more_latents(data):
    embeddings, z = data
    weights = cross_modal_weights(embeddings, latents_of(z), top=TOP, min_support=45, n_bootstrap=0)
    assert (np.isnan(weights.omega) == (weights.support < 45)).all()
    assert 2 < np.isnan(weights.omega).sum() < D_SAE


def without(embeddings: Embeddings, hook: str) -> Embeddings:
    return Embeddings.from_dataset(embeddings.dataset.remove_columns(hook))


def narrower(embeddings: Embeddings, hook: str) -> Embeddings:
    hooks = {name: embeddings.take(name, np.arange(N)) for name in embeddings.hooks}
    labels = {name: embeddings.dataset[name] for name in ("hate", "stance")}
    return make_embeddings(hooks | {hook: hooks[hook][:, :5]}, labels=labels)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda e: without(e, "hook_text_embed"), "have no hook_text_embed"),
        (lambda e: without(without(e, "hook_text_embed"), "hook_image_embed"), "no hook_image_embed and no hook_text"),
        (lambda e: narrower(e, "hook_text_embed"), "hook_image_embed has 12 dimensions, hook_text_embed has 5"),
        (lambda e: Embeddings.from_dataset(e.dataset, fusion="memeclip"), "of fusion memeclip is not projected"),
    ],
)
def test_sides_without_a_cosine_cannot_be_measured_and_say_why(data, change, why):
    embeddings, z = data
    changed = change(embeddings)
    with pytest.raises(Unavailable, match=why):
        CrossModal(embeddings, n_bootstrap=3, shares=(0.25, 0.5)).measure(None, changed, latents_of(z))
    with pytest.raises(DataError, match=why):
        cross_modal_weights(changed, latents_of(z))


def test_other_hooks_may_be_the_sides(data):
    embeddings, z = data
    swapped = SideHooks("hook_text_embed", "hook_image_embed")
    weights = cross_modal_weights(embeddings, latents_of(z), top=TOP, n_bootstrap=0, sides=swapped)
    plain = cross_modal_weights(embeddings, latents_of(z), top=TOP, n_bootstrap=0)
    np.testing.assert_allclose(weights.omega, plain.omega, atol=1e-12)  # a sum over all pairs, both ways


def test_too_few_memes_for_any_weight_is_null_with_the_reason(data):
    embeddings, z = data
    result = CrossModal(embeddings, top=200, n_bootstrap=3).measure(None, embeddings, latents_of(z))
    assert result.numbers["omega/median"] is None
    assert result.reasons["omega/median"] == "no latent fires on 200 train memes"
    assert "same for all" in result.reasons["hate/keep_0.5/sum/auroc"]
    assert result.numbers["hate/keep_0.5/clip/auroc"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 1}, "top is 1; give 2 or more"),
        ({"top": 5, "min_support": 4}, "min_support is 4; give at least top, 5"),
        ({"delta": -0.1}, "delta is -0.1"),
        ({"delta": float("nan")}, "delta is nan"),
        ({"n_bootstrap": -1}, "n_bootstrap is -1"),
    ],
)
def test_wrong_options_are_refused(data, options, message):
    with pytest.raises(ConfigError, match=message):
        cross_modal_weights(data[0], latents_of(data[1]), **options)


def test_what_the_data_do_not_allow_is_said(data):
    embeddings, z = data
    no_train = make_embeddings(
        {hook: embeddings.take(hook, np.arange(N)) for hook in embeddings.hooks}, splits=["test"] * N
    )
    with pytest.raises(DataError, match="there are no train memes"):
        cross_modal_weights(no_train, latents_of(z))
    hooks = {hook: embeddings.take(hook, np.arange(N)) for hook in embeddings.hooks}
    hooks["hook_text_embed"][17, 3] = np.inf
    with pytest.raises(NonFiniteError, match=r"hook_text_embed, row 17 \(id 'meme-17'\)"):
        cross_modal_weights(make_embeddings(hooks), latents_of(z))
    weights = cross_modal_weights(embeddings, latents_of(z), n_bootstrap=0)
    with pytest.raises(DataError, match="30 weights do not fit latents of d_sae 29"):
        item_scores(embeddings, latents_of(z[:, 1:]), weights)
    with pytest.raises(DataError, match="latents are of 3 memes"):
        cross_modal_weights(embeddings, latents_of(z[:3]))
