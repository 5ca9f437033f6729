"""Memes evaluated in parts: what may be joined and what may not; that parts equal the whole is in conformance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from arrays import anisotropic, make_embeddings
from sae_lens import TopKSAE, TopKSAEConfig, Transcoder, TranscoderConfig
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, MemeError, ModelError
from sae_lens_meme.evaluators import ConceptAlignment, Latents, Monosemanticity, Reconstruction, encode

X = anisotropic(60, 8, np.random.default_rng(0))
SAE = tiny_sae(X, d_sae=12, k=3)
WHOLE = make_embeddings({"hook_fused": X}, labels={"hate": [i % 2 for i in range(60)]})


def part(start: int, stop: int) -> Embeddings:
    return Embeddings.from_dataset(WHOLE.dataset.select(range(start, stop)))


def test_joined_embeddings_are_the_whole():
    joined = Embeddings.concatenate([part(0, 20), part(20, 60)])
    np.testing.assert_array_equal(joined.take("hook_fused", np.arange(60)), X)
    assert joined.ids.tolist() == WHOLE.ids.tolist()


def test_memes_that_a_part_leaves_out_are_left_out_of_the_whole():
    first, last = part(0, 20), replace(part(20, 60), left_out=frozenset({3}))
    assert Embeddings.concatenate([first, last]).left_out == {23}


def test_joined_latents_keep_rows_of_different_length():
    rng = np.random.default_rng(0)
    dense = rng.random((10, 12)) * (rng.random((10, 12)) < np.linspace(0.1, 0.9, 10)[:, None])
    parts = [Latents.from_csr(dense[:4]), Latents.from_csr(dense[4:])]
    assert parts[0].indices.shape[1] < parts[1].indices.shape[1]
    np.testing.assert_array_equal(Latents.concatenate(parts).csr().toarray(), dense.astype(np.float32))


def test_latents_of_parts_are_those_of_the_whole():
    joined = Latents.concatenate([encode(SAE, part(0, 7)), encode(SAE, part(7, 60))])
    np.testing.assert_allclose(joined.csr().toarray(), encode(SAE, WHOLE).csr().toarray(), rtol=1e-6)


def test_a_meme_in_two_parts_is_refused():
    accumulator = ConceptAlignment(WHOLE).accumulator(SAE).accumulate(part(0, 30)).accumulate(part(29, 60))
    with pytest.raises(DataError, match="id 'meme-29' is in more than one part"):
        accumulator.finish()


def test_nothing_accumulated_is_told():
    with pytest.raises(DataError, match="concept_alignment: nothing was accumulated; call accumulate"):
        ConceptAlignment(WHOLE).accumulator(SAE).finish()


def test_parts_with_other_columns_are_refused():
    other = make_embeddings({"hook_fused": X}, labels={"stance": [0, 1] * 30})
    with pytest.raises(DataError, match="hate, stance is not the same in all parts"):
        Embeddings.concatenate([WHOLE, other])


def test_latents_of_another_width_are_refused():
    with pytest.raises(DataError, match="d_sae is 3, 12; take one SAE"):
        Latents.concatenate([encode(SAE, WHOLE), Latents.from_csr(np.zeros((2, 3)))])


UNFOLDED = TopKSAE(TopKSAEConfig(d_in=8, d_sae=12, k=3, normalize_activations="expected_average_only_in"))
TRANSCODER = Transcoder(TranscoderConfig(d_in=8, d_sae=12, d_out=8, apply_b_dec_to_input=False))


@pytest.mark.parametrize(
    ("sae", "memes", "latents", "said"),
    [
        ("an/sae", WHOLE, None, "sae: a str is no SAE"),
        (UNFOLDED, WHOLE, None, "sae: its normalize_activations is 'expected_average_only_in'"),
        (TRANSCODER, WHOLE, None, "sae: is a transcoder, which maps one hook to another"),
        (SAE, "some/embeddings", None, "embeddings: a str is given"),
        (SAE, WHOLE.dataset, None, "embeddings: a Dataset is given"),
        (SAE, WHOLE, np.zeros((60, 12)), "latents: a ndarray is given"),
    ],
)
def test_what_is_measured_is_an_sae_on_embeddings_and_its_latents(sae, memes, latents, said: str):
    evaluator = Reconstruction(WHOLE, hook="hook_fused")
    with pytest.raises(MemeError, match=said):
        evaluator.evaluate(sae, memes, latents)
    with pytest.raises(MemeError, match=said):
        evaluator.accumulator(sae).accumulate(memes, latents)


def test_an_evaluator_is_of_embeddings():
    with pytest.raises(DataError, match="embeddings: a Dataset is given"):
        ConceptAlignment(WHOLE.dataset)  # type: ignore[arg-type]


@pytest.mark.parametrize("sae", ["an/sae", UNFOLDED, TRANSCODER])
def test_only_an_sae_of_raw_embeddings_encodes(sae):
    with pytest.raises(ModelError, match=r"^sae: "):
        encode(sae, WHOLE, "hook_fused")


def test_the_reference_is_embeddings():
    with pytest.raises(DataError, match="embeddings: a str is given"):
        Monosemanticity(WHOLE, reference="a/folder")  # type: ignore[arg-type]


def test_what_is_decoded_is_the_latents_of_the_sae():
    with pytest.raises(DataError, match="these are latents of an SAE with d_sae 5, not 12"):
        Reconstruction(WHOLE).evaluate(SAE, latents=Latents.from_csr(np.ones((60, 5))))
