"""Latents that concepts share, against scipy, convolutions and naive loops, and on worlds whose truth is known."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
from __future__ import annotations

from functools import reduce
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import hostile
import numpy as np
import pytest
from arrays import make_embeddings
from scipy import sparse
from scipy.stats import hypergeom
from tiny_sae import tiny_sae

from sae_lens_meme.evaluators import ConceptAlignment, Latents
from sae_lens_meme.evaluators.cross_concept import CrossConcept, from_labels_alone, label_overlap, shared_latents

UNKNOWN, FALSE, TRUE = 0, 1, 2


# counts by chance


@pytest.fixture
def belonging() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    rate = rng.random(400)
    return SimpleNamespace(rate=rate, of_concept=rng.random((400, 4)) < 0.1 + 0.3 * rate[:, None])


def test_chance_is_hypergeometric(belonging):
    tested = np.random.default_rng(1).random((400, 4)) < 0.9
    pairs = list(combinations(range(4), 2))
    found = shared_latents(belonging.of_concept, pairs, belonging.rate, tested)
    for i, (a, b) in enumerate(pairs):
        both = tested[:, a] & tested[:, b]
        first, second = (belonging.of_concept[both, c] for c in (a, b))
        n, k, m, shared = both.sum(), first.sum(), second.sum(), (first & second).sum()
        assert (found.tested[i], found.first[i], found.second[i], found.shared[i]) == (n, k, m, shared)
        assert found.expected[i] == pytest.approx(k * m / n)
        assert np.exp(found.log_p[i]) == pytest.approx(hypergeom.sf(shared - 1, n, k, m))


def test_equal_rate_is_a_sum_of_hypergeometrics_over_tenths_of_the_latents(belonging):
    found = shared_latents(belonging.of_concept, [(0, 1)], belonging.rate)
    tenths = np.array_split(np.argsort(belonging.rate), 10)
    parts, expected, shared = [], 0.0, 0
    for mine in tenths:
        first, second = (belonging.of_concept[mine, c] for c in (0, 1))
        k, m = int(first.sum()), int(second.sum())
        parts.append(hypergeom.pmf(np.arange(min(k, m) + 1), len(mine), k, m))
        expected, shared = expected + k * m / len(mine), shared + int((first & second).sum())
    assert found.expected_equal_rate[0] == pytest.approx(expected)
    assert np.exp(found.log_p_equal_rate[0]) == pytest.approx(reduce(np.convolve, parts)[shared:].sum())


def test_latents_that_fire_often_look_shared_and_among_their_like_they_do_not():
    rng = np.random.default_rng(2)
    rate = rng.random(1_000)
    of_concept = rng.random((1_000, 60)) < np.where(rate > 0.5, 0.4, 0.02)[:, None]  # nothing else ties two concepts
    found = shared_latents(of_concept, [(a, a + 1) for a in range(0, 60, 2)], rate)
    assert (found.log_p < np.log(0.05)).mean() > 0.9
    assert (found.log_p_equal_rate < np.log(0.05)).mean() <= 0.1


def test_a_concept_without_latents_is_not_tested():
    of_concept = np.zeros((50, 2), dtype=bool)
    of_concept[:5, 0] = True
    found = shared_latents(of_concept, [(0, 1)], np.arange(50) / 50)
    assert (found.shared[0], found.expected[0]) == (0, 0)
    assert np.isnan(found.log_p[0])
    assert np.isnan(found.log_p_equal_rate[0])


def test_phi_is_pearsons_over_memes_of_which_both_are_known():
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 3, (500, 3)).astype(np.uint8)
    codes[:, 1] = np.where(rng.random(500) < 0.5, codes[:, 0], codes[:, 1])
    strata = rng.integers(0, 2, 500)
    found = label_overlap(codes, strata, [(0, 1), (0, 2)])
    for i, other in enumerate((1, 2)):
        known = (codes[:, 0] != UNKNOWN) & (codes[:, other] != UNKNOWN)
        a, b = (codes[known, c] == TRUE for c in (0, other))
        assert (found.known[i], found.both_true[i]) == (known.sum(), (a & b).sum())
        assert found.phi[i] == pytest.approx(np.corrcoef(a, b)[0, 1])
        s = strata[known]
        centred = [v - np.array([v[s == k].mean() for k in (0, 1)])[s] for v in (a.astype(float), b.astype(float))]
        assert found.phi_within_source[i] == pytest.approx(np.corrcoef(*centred)[0, 1])


def test_labels_that_are_never_known_together_have_no_phi():
    codes = np.array([[TRUE, UNKNOWN]] * 5 + [[UNKNOWN, FALSE]] * 5, np.uint8)
    found = label_overlap(codes, np.zeros(10, np.int64), [(0, 1)])
    assert found.known[0] == 0
    assert np.isnan(found.phi[0])


# whole worlds


def world(kind: str, n: int = 3_000, seed: int = 0) -> SimpleNamespace:
    """100 latents that fire more or less often, labels `a` and `b`.

    apart: ten latents know `a`, ten `b`, the labels are independent. labels: ten latents know `a` alone, and `b` is mostly
    `a`. joint: ten latents know both labels, which are independent.
    """
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) < 0.4, rng.random(n) < 0.4
    if kind == "labels":
        b = np.where(rng.random(n) < 0.8, a, b)
    knows = np.zeros((100, 2))
    knows[:10, 0] = 1
    knows[{"apart": slice(10, 20), "joint": slice(10), "labels": slice(0)}[kind], 1] = 1
    rate = rng.permutation(np.linspace(0.1, 0.3, 100)) * (1 + np.stack([a, b], axis=1) @ knows.T)
    fires = rng.random((n, 100)) < rate
    latents = Latents.from_csr(sparse.csr_matrix(fires * rng.random((n, 100))))
    labels = {"a": a.astype(int).tolist(), "b": b.astype(int).tolist()}
    memes = make_embeddings({"hook_fused": rng.standard_normal((n, 8))}, labels=labels, sources=["x", "y"] * (n // 2))
    return SimpleNamespace(memes=memes, latents=latents, sae=tiny_sae(memes.take("hook_fused", range(n)), d_sae=100))


def evaluated(kind: str, **options: Any) -> Any:
    made = world(kind)
    return CrossConcept(made.memes, concepts=["a=1", "b=1"], **options).evaluate(made.sae, latents=made.latents)


def test_latents_of_one_concept_each_are_not_shared():
    numbers = evaluated("apart").numbers
    assert numbers["a=1 & b=1/shared"] <= 1
    assert numbers["n_pairs_sharing"] == 0
    assert numbers["n_latents_serving_two"] <= 1


def test_latents_that_know_both_are_shared_beyond_chance_and_labels():
    result = evaluated("joint")
    numbers = result.numbers
    assert 10 <= numbers["a=1 & b=1/shared"] <= 12
    assert numbers["a=1 & b=1/q"] < 1e-4
    assert numbers["a=1 & b=1/shared_permuted"] < 1
    assert abs(numbers["a=1 & b=1/phi"]) < 0.1
    assert numbers["n_pairs_sharing"] == numbers["n_pairs_sharing_equal_rate"] == numbers["n_pairs_beyond_labels"] == 1
    assert numbers["n_latents_serving_two"] == numbers["a=1 & b=1/shared"]
    listed = [*map(int, result.table["latents"][0].split(", "))]
    assert set(listed[:10]) == {*range(10)}, "the most significant first"
    assert result.verdict.startswith("1 of 1 pairs of concepts share more latents than chance (permuted labels: 0.0)")


def test_latents_that_are_shared_for_the_overlap_of_the_labels_alone_are_told_apart():
    numbers = evaluated("labels").numbers
    assert numbers["a=1 & b=1/phi"] > 0.7
    assert numbers["a=1 & b=1/shared"] == 10
    assert numbers["n_pairs_sharing"] == 1, "the margins are fooled"
    assert numbers["a=1 & b=1/shared_permuted"] > 9
    assert numbers["n_pairs_beyond_labels"] == 0


def test_the_control_keeps_the_margins_and_the_overlap_in_every_source(monkeypatch):
    import sae_lens_meme.evaluators.cross_concept.compute as module
    from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels

    made, seen = world("labels"), []
    labels = ConceptLabels.of(made.memes, (Concept.parse("a=1"), Concept.parse("b=1")))
    counter = module.Counter

    def counted(active: Any, codes: np.ndarray, strata: np.ndarray) -> Any:
        seen.append(codes)
        return counter(active, codes, strata)

    monkeypatch.setattr(module, "Counter", counted)
    of_concept = np.ones((100, 2), dtype=bool)
    from_labels_alone(made.latents, labels, of_concept, [(0, 1)], np.log(0.01), 2, 0)
    assert len(seen) == 4
    for codes in seen:
        kept = [
            c
            for c in (0, 1)
            if all(
                ((labels.known[:, c] == x) & (codes[:, 0] == y) & (labels.sources == s)).sum()
                == ((labels.known[:, c] == x) & (labels.known[:, 1 - c] == y) & (labels.sources == s)).sum()
                for x in (FALSE, TRUE)
                for y in (FALSE, TRUE)
                for s in (0, 1)
            )
        ]
        assert kept
        assert not any(np.array_equal(codes[:, 0], labels.known[:, c]) for c in (0, 1))


def test_two_concepts_of_one_label_are_in_no_count():
    made = world("joint")
    result = CrossConcept(made.memes, concepts=["a=1", "a=0", "b=1"]).evaluate(made.sae, latents=made.latents)
    table = result.table.set_index(["concept", "other"])
    assert table.loc[("a=1", "a=0"), "same_label"]
    assert table["q"].isna()[("a=1", "a=0")]
    assert result.numbers["n_pairs"] <= 2
    assert not any(key.startswith("a=1 & a=0") for key in result.numbers)


def test_its_latents_are_those_of_concept_alignment():
    made = world("labels")
    pairs = ConceptAlignment(made.memes, protocol="corrected", n_bootstrap=0)
    aligned = pairs.evaluate(made.sae, latents=made.latents).table
    found = CrossConcept(made.memes).evaluate(made.sae, latents=made.latents).table
    counts = aligned[aligned["q_global"] < 0.05].groupby("concept", observed=False).size()
    for _, row in found.iterrows():
        assert (row["n_concept"], row["n_other"]) == (counts[row["concept"]], counts[row["other"]])


def test_without_draws_there_are_no_controls_of_draws_and_a_reason():
    result = evaluated("joint", n_permutations=0)
    assert result.numbers["n_pairs_sharing_permuted"] is None
    assert result.reasons["a=1 & b=1/shared_permuted"] == "no draws were requested"
    assert result.numbers["n_pairs_beyond_labels"] is None
    assert result.table["beyond_labels"].isna().all()
    assert result.verdict.endswith("among latents of similar firing rate.")


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(lambda memes: CrossConcept(memes, n_permutations=2), case)
