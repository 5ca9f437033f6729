"""Under every null the false-discovery proportion of the corrected protocol is at most alpha, and the printed control says so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from arrays import make_embeddings
from scipy import sparse
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.baselines import Baselines
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment, association, significant
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.strata import n_words, quantiles_within, strata_of
from sae_lens_meme.metrics.association import FALSE, TRUE, Counter

N, N_LATENTS, N_LABELS, REAL = 1200, 60, 4, 6
ALPHA, CORPORA = 0.05, 60
CONCEPTS = tuple(Concept.parse(f"is_{c}=1") for c in range(N_LABELS))


class Memes(NamedTuple):
    fires: Latents
    true: np.ndarray
    source: np.ndarray
    words: np.ndarray
    group: np.ndarray


def draw(null: str, seed: int, n: int = N, log_odds: float = 0.3) -> Memes:
    """Latents 0..5 follow label 0 within everything else; the others and the labels share only what `null` names.

    labels: nothing. groups: templates of five memes share what fires and the labels. source: both follow the source.
    length: both follow the number of words, by `log_odds` a standard deviation.
    """
    rng = np.random.default_rng(seed)
    size = 5 if null == "groups" else 1
    group = np.repeat(np.arange(n // size), size)
    source = rng.integers(0, 2, n)[group * size]
    words = rng.poisson(12, n) + 1
    z = (words - words.mean()) / words.std()

    def uniform(columns: int) -> np.ndarray:
        own, common = rng.random((n, columns)), rng.random((n // size, columns))[group]
        return np.where(rng.random((n, columns)) < 0.8, common, own) if null == "groups" else own

    shared = {"source": 1.5 * source, "length": log_odds * z}.get(null, np.zeros(n))[:, None]
    true = uniform(N_LABELS) < 1 / (1 + np.exp(0.4 - shared))
    rate = np.broadcast_to(shared - 2, (n, N_LATENTS)).copy()
    rate[:, :REAL] += np.where(true[:, [0]], 1.6, -0.4)
    fires = uniform(N_LATENTS) < 1 / (1 + np.exp(-rate))
    return Memes(Latents.from_csr(sparse.csr_matrix(fires.astype(np.float32))), true, source, words, group)


def corpus(null: str, seed: int, n: int = N, log_odds: float = 0.3) -> tuple[Embeddings, Latents]:
    memes = draw(null, seed, n, log_odds)
    embeddings = make_embeddings(
        {"hook_fused": np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)},
        sources=np.array(["a", "b"])[memes.source].tolist(),
        labels={f"is_{c}": memes.true[:, c].astype(int).tolist() for c in range(N_LABELS)},
        texts=[" ".join(["word"] * n_words) for n_words in memes.words],
    )
    named = embeddings.dataset.add_column("group", memes.group.tolist())  # type: ignore[call-arg]
    return Embeddings.from_dataset(named), memes.fires


def found(memes: Memes, strata: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    codes = np.where(memes.true, TRUE, FALSE).astype(np.uint8)
    names = tuple(concept.name for concept in CONCEPTS)
    labels = ConceptLabels(names, codes, codes, strata, np.full(len(codes), "train"), groups)
    log_p = association(Counter(memes.fires.csr(), codes, strata).count, labels, "corrected", ALPHA)
    return significant(log_p, ALPHA)["global"]


def false_share(pairs: np.ndarray) -> float:
    real = pairs[:REAL, 0].sum()
    return float((pairs.sum() - real) / max(pairs.sum(), 1))


@pytest.mark.parametrize("null", ["labels", "groups", "source", "length"])
def test_false_discoveries_stay_below_alpha(null):
    """Mean over 60 corpora, beside what the same test finds that does not know of the null."""
    shares, naive, power = [], [], []
    for seed in range(CORPORA):
        memes = draw(null, seed, n=4 * N if null == "length" else N)
        strata = quantiles_within(memes.source, memes.words.astype(float)) if null == "length" else memes.source
        pairs = found(memes, strata, memes.group)
        shares.append(false_share(pairs))
        power.append(pairs[:REAL, 0].mean())
        blind = np.zeros_like(memes.source) if null == "source" else memes.source
        naive.append(false_share(found(memes, blind, None)))
    assert np.mean(shares) <= ALPHA + 2 * np.std(shares) / np.sqrt(CORPORA)
    assert np.mean(power) > 0.6, "a test that finds nothing has no false discoveries either"
    if null != "labels":
        assert np.mean(naive) > 2 * ALPHA, "the null would not show in a test that does not know of it"


@pytest.mark.parametrize("null", ["labels", "groups", "source", "length"])
def test_the_printed_control_agrees(null):
    """In 100 draws of labels that are permuted within the strata, groups whole, seldom any pair is significant."""
    embeddings, latents = corpus(null, 0)
    strata = "source_and_length" if null == "length" else "source"
    sae = tiny_sae(embeddings.take("hook_fused", np.arange(len(embeddings))), d_sae=8, k=2)
    result = Baselines(embeddings, CONCEPTS, raw=(), strata=strata).evaluate(sae, latents=latents)
    numbers = result.numbers
    assert numbers["corrected/permuted_labels/n_draws"] == 100
    n = numbers["corrected/permuted_labels/n_draws_with_pairs_global"]
    assert n is not None
    assert n <= 12, "binomial, 100 draws of .05: 12 or more in 1 of 200"
    assert numbers["corrected/permuted_labels_q95/n_significant_global"] <= 3  # type: ignore[operator]
    assert f"{n} of 100 draws of permuted labels have any" in (result.verdict or "")
    controls = result.rows()[0]["controls"]
    assert controls["permuted, 95 %"] == numbers["corrected/permuted_labels_q95/n_significant_global"]
    assert numbers["published/permuted_labels/n_significant_concept"] >= 0  # type: ignore[operator]


def test_pairs_that_are_the_captions_length_go_when_it_is_a_stratum():
    (embeddings, latents), memes = (make("length", 1, n=4 * N, log_odds=0.3) for make in (corpus, draw))
    by_source, by_length = (
        found(memes, strata_of(embeddings, which), None) for which in ("source", "source_and_length")
    )
    result = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=0).measure_latents(embeddings, latents)
    lost = int((by_source & ~by_length).sum())
    assert result.numbers["corrected/n_lost_to_length"] == lost > 10
    assert result.numbers["corrected/n_found_by_length"] == (by_length & ~by_source).sum()
    row = next(row for row in result.rows() if "gone within caption length" in row["measure"])
    assert row["value"] == lost
    assert str(by_source.sum()) in row["measure"]
    finer = ConceptAlignment(embeddings, CONCEPTS, n_bootstrap=0, strata="source_and_length")
    numbers = finer.measure_latents(embeddings, latents).numbers
    assert numbers["corrected/n_significant_global"] == by_length.sum() < by_source.sum()
    assert numbers["corrected/n_lost_to_length"] == lost
    assert numbers["corrected/is_0=1/f1_source_only"] == result.numbers["corrected/is_0=1/f1_source_only"]


def test_strata_are_quantiles_of_the_captions_length_in_each_source():
    texts: list[str | None] = [" ".join(["w"] * n) for n in (1, 2, 3, 4, 5, 6, 10, 20, 30)] + [None]
    sources = ["a"] * 6 + ["b"] * 4
    embeddings = make_embeddings({"hook_fused": np.ones((10, 2), np.float32)}, sources=sources, texts=texts)
    np.testing.assert_array_equal(strata_of(embeddings, "source_and_length"), [0, 0, 1, 1, 2, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(strata_of(embeddings, "source"), [0] * 6 + [1] * 4)
    counted = make_embeddings(
        {"hook_fused": np.ones((10, 2), np.float32)},
        sources=sources,
        labels={"n_words": [1, 2, 3, 4, 5, 6, 10, 20, 30, None]},
    )
    np.testing.assert_array_equal(n_words(counted), n_words(embeddings))
    many = quantiles_within(np.repeat([0, 1], [2000, 450]), np.random.default_rng(0).random(2450))
    assert np.unique(many[:2000], return_counts=True)[1].tolist() == [200] * 10, "deciles"
    assert len(np.unique(many[2000:])) == 4, "quartiles of 450 memes"


def test_without_captions_lengths_are_refused_and_the_line_is_null_with_the_reason():
    embeddings, latents = corpus("labels", 0)
    without = Embeddings.from_dataset(embeddings.dataset.remove_columns("text"))
    for evaluator in (ConceptAlignment(without, CONCEPTS, strata="source_and_length"),):
        with pytest.raises(
            DataError, match=r"no meme has a caption, and there is no column 'n_words'.*use strata 'source'"
        ):
            evaluator.measure_latents(without, latents)
    result = ConceptAlignment(without, CONCEPTS, n_bootstrap=0).measure_latents(without, latents)
    assert result.numbers["corrected/n_lost_to_length"] is None
    assert "no meme has a caption" in result.reasons["corrected/n_lost_to_length"]
