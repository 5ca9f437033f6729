"""What is counted of the pairs, under permuted labels too, and what the winner's curse is made of."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import make_embeddings
from scipy import sparse
from source_corpus import CONCEPTS, source_corpus
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators import Latents
from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.concept_alignment import (
    ConceptAlignment,
    PairCounts,
    best_latents,
    curse_of,
    measure_pairs,
)
from sae_lens_meme.evaluators.concept_alignment import significant as significant_pairs
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels
from sae_lens_meme.metrics.ranking import Ranked


@pytest.fixture(scope="module")
def corpus() -> tuple[Embeddings, Latents, ConceptLabels]:
    embeddings, latents = source_corpus(1200)
    hate = embeddings.label("hate")
    strong = np.where(hate.known & (hate.values == 1), np.random.default_rng(5).random(1200) < 0.95, False)
    latents = Latents.from_csr(sparse.hstack([latents.csr(), sparse.csr_matrix(strong[:, None].astype(np.float32))]))
    return embeddings, latents, ConceptLabels.of(embeddings, tuple(map(Concept.parse, CONCEPTS)))


@pytest.mark.parametrize("protocol", ["corrected", "published"])
def test_the_counts_are_those_of_the_pairs(corpus, protocol):
    """Also where it looks only at the pairs that could pass a bar."""
    _, latents, labels = corpus
    for of in (labels, labels.permuted(np.random.default_rng(3))):
        pairs = measure_pairs(latents, of, protocol)
        f1 = pairs.columns[pairs.score()]
        counts = PairCounts(latents, labels, protocol, 0.05).of(of)
        assert counts["n_f1_above_0.35"] == (f1 > 0.35).sum()
        assert counts["n_pairs_above_always_on"] == (f1 > pairs.columns["f1_always_on"]).sum()
        assert of is not labels or counts["n_pairs_above_always_on"] > 0  # type: ignore[operator]
        assert counts["n_significant_global"] == significant_pairs(pairs.log_p, 0.05)["global"].sum()


def test_the_permuted_control_is_a_hundred_draws_with_their_mean_and_quantile(corpus):
    embeddings, latents, labels = corpus
    sae = tiny_sae(embeddings.take("hook_fused", np.arange(len(embeddings))), d_sae=24, k=4)
    result = Baselines(embeddings, CONCEPTS, raw=(), seed=4).evaluate(sae, latents=latents)
    for protocol, key in (("corrected", "n_pairs_above_always_on"), ("published", "n_significant_concept")):
        counts = PairCounts(latents, labels, protocol, 0.05)
        drawn = [counts.of(labels.permuted(np.random.default_rng([4, i])))[key] for i in range(100)]
        found = {name: result.numbers[f"{protocol}/permuted_labels{name}/{key}"] for name in ("", "_q95", "_max")}
        assert found == {"": np.mean(drawn), "_q95": np.quantile(drawn, 0.95), "_max": max(drawn)}
    assert "mean of 100 draws, beside it their 95 % quantile" in result.sections()[0]["note"]
    above = next(row for row in result.rows() if row["measure"].startswith("pairs above always-on, corrected"))
    assert above["controls"]["permuted"] == result.numbers["corrected/permuted_labels/n_pairs_above_always_on"]
    assert not any("above .35" in row["measure"] for row in result.rows())


def test_counts_of_thirteen_families_are_kept_off_the_page(corpus):
    embeddings, latents, _ = corpus
    sae = tiny_sae(embeddings.take("hook_fused", np.arange(len(embeddings))), d_sae=24, k=4)
    aligned = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=0).measure_latents(embeddings, latents)
    baselines = Baselines(embeddings, CONCEPTS, raw=(), n_permutations=1).evaluate(sae, latents=latents)
    for result in (aligned, baselines):
        assert not any("within each concept" in row["measure"] for row in result.rows())
    explained = aligned.explain["corrected/n_significant_concept"]
    assert "expect at least alpha false pairs for each concept" in explained
    assert "its own family of tests" in aligned.sections()[0]["note"]


def test_the_interval_is_of_this_sae_and_other_seeds_stand_beside_it(corpus):
    embeddings, latents, labels = corpus
    x = embeddings.take("hook_fused", np.arange(len(embeddings)))
    sae, seeds = tiny_sae(x, d_sae=24, k=4), {f"seed_{i}": tiny_sae(x, d_sae=24, k=4, seed=i) for i in (1, 2)}
    others = [latents.csr()[:, :69], latents.csr()[:, 66:]]
    result = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=5).measure_latents(
        embeddings, latents, [Latents.from_csr(other) for other in others]
    )
    counts = []
    for other in others:
        log_p = measure_pairs(Latents.from_csr(other), labels, "corrected").log_p
        counts.append(significant_pairs(log_p, 0.05)["global"].sum())
    assert counts[0] != counts[1]
    row = result.rows()[0]
    assert (row["controls"]["seeds, least"], row["controls"]["seeds, most"]) == (min(counts), max(counts))
    assert "for this SAE alone" in result.sections()[0]["note"]
    assert "other training seeds (2)" in result.sections()[0]["note"]
    assert result.explain["corrected/n_significant_global_low"].startswith("low end of the 95 % interval: for this SAE")
    without = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=5).measure_latents(embeddings, latents)
    assert "not over training seeds" in without.sections()[0]["note"]
    assert "seeds, least" not in without.rows()[0]["controls"]
    trained = ConceptAlignment(embeddings, CONCEPTS, seeds=seeds, n_bootstrap=0).evaluate(sae).numbers
    assert trained["corrected/n_significant_global_seeds_most"] is not None


def shifted(n: int, shift: float, seed: int) -> tuple[ConceptLabels, Latents]:
    """Forty latents that all follow the concept a little; in validation memes, by `shift`, true memes fire more."""
    rng = np.random.default_rng(seed)
    splits = rng.choice(["train", "validation", "test"], n, p=[0.2, 0.4, 0.4])
    true = rng.random(n) < 0.3
    rate = np.where(true, 0.5 + shift * (splits == "validation"), 0.3)
    fires = rng.random((n, 40)) < rate[:, None]
    latents = Latents.from_csr(sparse.csr_matrix(fires.astype(np.float32)))
    embeddings = make_embeddings(
        {"hook_fused": np.ones((n, 2), np.float32)}, labels={"is": true.astype(int).tolist()}, splits=splits.tolist()
    )
    return ConceptLabels.of(embeddings, (Concept.parse("is=1"),)), latents


@pytest.mark.parametrize("shift", [0.0, 0.35])
def test_the_winners_curse_is_selection_and_shift(shift):
    """They add up; without a difference between the splits the shift is 0 on average, with one it is most of the curse."""
    selection, moved, total = [], [], []
    for seed in range(12):
        labels, latents = shifted(600, shift, seed)
        best = best_latents(measure_pairs(latents, labels, "corrected"))
        curse = curse_of(best, Ranked.of(latents.csr()), labels, seed=0)
        np.testing.assert_allclose(curse.selection + curse.shift, best.scores["winners_curse"])
        selection.append(curse.selection[0])
        moved.append(curse.shift[0])
        total.append(best.scores["winners_curse"][0])
    error = np.std(moved) / np.sqrt(len(moved))
    assert np.mean(selection) > 0.03, "the best of forty"
    if shift == 0:
        assert abs(np.mean(moved)) < 2.5 * error
        assert np.mean(selection) == pytest.approx(np.mean(total), abs=2.5 * error)
    else:
        assert np.mean(moved) > 0.08 > 4 * error


def test_both_parts_are_printed_and_do_not_depend_on_the_order_of_the_memes(corpus):
    embeddings, latents, _ = corpus
    evaluator = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=0, protocol="corrected")
    result, order = evaluator.measure_latents(embeddings, latents), np.random.default_rng(0).permutation(1200)
    other = Embeddings.from_dataset(embeddings.dataset.select(order))
    moved = evaluator.measure_latents(other, latents.rows(order)).numbers
    for concept in CONCEPTS:
        key = f"corrected/{concept}/best_winners_curse"
        parts = [result.numbers[f"{key}_{part}"] for part in ("selection", "shift")]
        assert sum(parts) == pytest.approx(result.numbers[key])
        assert [moved[f"{key}_{part}"] for part in ("selection", "shift")] == pytest.approx(parts)
        row = next(row for row in result.rows() if row["measure"].startswith(f"{concept} (latent"))
        assert [row["controls"][part] for part in ("selection", "shift")] == parts


def test_a_concept_with_few_test_memes_is_marked():
    rng = np.random.default_rng(0)
    n, splits = 600, ["train", "validation", "test"] * 200
    rare = (np.arange(n) % 3 == 2) & (np.arange(n) % 75 == 2) | (np.arange(n) % 3 != 2) & (rng.random(n) < 0.2)
    fires = rng.random((n, 5)) < np.where(rare, 0.8, 0.1)[:, None]
    embeddings = make_embeddings(
        {"hook_fused": np.ones((n, 2), np.float32)},
        labels={"rare": rare.astype(int).tolist(), "often": rng.integers(0, 2, n).tolist()},
        splits=splits,
    )
    latents = Latents.from_csr(sparse.csr_matrix(fires.astype(np.float32)))
    result = ConceptAlignment(embeddings, ["rare=1", "often=1"], n_bootstrap=0, protocol="corrected")
    result = result.measure_latents(embeddings, latents)
    assert result.table is not None
    assert result.table.groupby("concept", observed=True)["few"].max().to_dict() == {"rare=1": 1, "often=1": 0}
    assert result.table["auroc_low"].notna().all()
    labels = [row["measure"] for row in result.rows()]
    assert any("rare=1" in label and "few: 8 true, 192 false" in label for label in labels)
    assert not any("often=1" in label and "few" in label for label in labels)
