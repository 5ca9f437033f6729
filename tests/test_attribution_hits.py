"""Whether attribution hits what was planted: worked by hand, and on a planted corpus by the demo encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic, make_embeddings
from datasets import Dataset
from tiny_sae import tiny_sae

from sae_lens_meme.attributions import FEATURES, Attributions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators import Latents
from sae_lens_meme.evaluators.attribution import PLACES, AttributionHits, _mean, _verdict
from sae_lens_meme.evaluators.base import Unavailable

KINDS = {"object": "visual", "topic": "textual", "clash": "cross-modal"}


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    x = anisotropic(80, 8, np.random.default_rng(0))
    return make_embeddings({"hook_fused": x}, splits=["train"] * 40 + ["test"] * 40)


@pytest.fixture(scope="module")
def sae(embeddings: Embeddings) -> Any:
    return tiny_sae(embeddings.take("hook_fused", range(80)), d_sae=3, k=1)


def planted(embeddings: Embeddings) -> tuple[Latents, pd.DataFrame]:
    """Latent 0 is active where the object is a cat, latent 1 where the topic is rain, latent 2 everywhere."""
    even, fourth = np.arange(80) % 2 == 0, np.arange(80) % 4 == 0
    dense = np.stack([even, fourth, np.ones(80)], axis=1).astype(np.float32)
    objects, topics = np.where(even, "cat", "cup"), np.where(fourth, "rain", "tea")
    return Latents.from_csr(dense), pd.DataFrame(
        {"id": embeddings.ids, "object": objects, "topic": topics, "clash": even}
    )


def places(embeddings: Embeddings) -> pd.DataFrame:
    """The object fills the four patches of the upper left corner, the topic is the second of four words."""
    rows = []
    factors = planted(embeddings)[1].set_index("id")
    for identity in embeddings.ids:
        rows.append((identity, "object", factors.at[identity, "object"], 0.0, 0.01, 0.2, 0.27, None, None))
        rows.append((identity, "topic", factors.at[identity, "topic"], None, None, None, None, 1, 2))
    return pd.DataFrame(rows, columns=list(PLACES))


def attributions(rows: list[dict[str, Any]]) -> Attributions:
    full = [dict.fromkeys(FEATURES) | {"kind": "top", "rank": 0} | row for row in rows]
    columns = {name: [row[name] for row in full] for name in FEATURES}
    return Attributions(Dataset.from_dict(columns, features=FEATURES), {"latents": [0, 1, 2], "grid": 7})


def scored(latent: int, meme: int, patch: int, word: int) -> dict[str, Any]:
    return {
        **{"latent": latent, "id": f"meme-{meme}"},
        "patch_scores": [float(i == patch) for i in range(49)],
        "word_scores": [float(i == word) for i in range(4)],
    }


def test_hits_chance_and_other_latents_by_hand(embeddings: Embeddings, sae: Any):
    latents, factors = planted(embeddings)
    rows = [
        scored(0, 40, patch=0, word=0),  # in the corner: hit
        scored(0, 42, patch=8, word=0),  # its lower right patch: hit
        scored(0, 44, patch=2, word=0),  # beside it: miss
        scored(0, 46, patch=48, word=0),  # miss
        scored(0, 4, patch=48, word=0),  # a train meme: not measured
        scored(0, 41, patch=48, word=0),  # the object is a cup: not measured
        scored(1, 44, patch=48, word=1),  # hit
        scored(1, 48, patch=48, word=3),  # miss
        scored(2, 40, patch=7, word=0),  # another latent on the same meme: hit
        scored(2, 42, patch=20, word=0),  # miss
    ]
    result = AttributionHits(embeddings, attributions(rows), factors, KINDS, places(embeddings)).evaluate(
        sae, embeddings, latents
    )
    numbers = result.numbers
    assert numbers["object/n"] == 4
    assert numbers["object/hit_rate"] == 0.5
    assert numbers["object/chance"] == pytest.approx(4 / 49)
    assert numbers["object/other_latents"] == pytest.approx((1 + 0 + 0) / 3)  # latent 1 on meme 44 misses
    assert (numbers["topic/n"], numbers["topic/hit_rate"], numbers["topic/chance"]) == (2, 0.5, 0.25)
    assert numbers["topic/other_latents"] == 0  # latent 0 on meme 44 reads its first word
    assert numbers["all_visual/hit_rate"] == 0.5
    assert result.table is not None
    assert result.table["latent"].tolist() == [0] * 4 + [1] * 2
    assert result.verdict == (
        "On average over factors, on 50% of the memes the strongest patch is where the visual factor was put (chance 8%) "
        "and on 50% of the memes the strongest word is where the textual factor was put (chance 25%)."
    )


def test_factors_count_alike_whatever_their_memes():
    table = pd.DataFrame({"factor": ["a"] * 100 + ["b"] * 2, "hit": [1] * 100 + [0] * 2})
    found = {"all_visual/hit_rate": _mean(table, "hit"), "all_visual/chance": 0.1, "all_textual/hit_rate": None}
    assert _verdict(found | {"all_textual/chance": None}) == (
        "On average over factors, on 50% of the memes the strongest patch is where the visual factor was put (chance 10%)."
    )


def test_what_is_everywhere_is_not_measured(embeddings: Embeddings, sae: Any):
    latents, factors = planted(embeddings)
    everywhere = places(embeddings).assign(x0=0.0, y0=0.0, x1=1.0, y1=1.0)
    found = AttributionHits(embeddings, attributions([scored(0, 40, 0, 1)]), factors, KINDS, everywhere)
    assert found.evaluate(sae, embeddings, latents).numbers["object/n"] == 0


def test_no_meme_with_a_place_is_null_with_a_reason(embeddings: Embeddings, sae: Any):
    latents, factors = planted(embeddings)
    result = AttributionHits(
        *(embeddings, attributions([scored(0, 4, 0, 0)]), factors, KINDS, places(embeddings))
    ).evaluate(sae, embeddings, latents)
    assert result.numbers["object/hit_rate"] is None
    assert "no latent that stands for such a value" in result.reasons["object/hit_rate"]
    assert result.verdict is None


def test_places_need_their_columns(embeddings: Embeddings, sae: Any):
    latents, factors = planted(embeddings)
    wrong = places(embeddings).drop(columns="x1")
    with pytest.raises(DataError, match="places: no column 'x1'"):
        AttributionHits(embeddings, attributions([]), factors, KINDS, wrong).evaluate(sae, embeddings, latents)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("attributions", "there is no attribution; run attribute"),
        ("answer_key", "there is no answer key"),
        ("places", "does not say where factors are"),
    ],
)
def test_what_is_not_there_is_named(lacking: str, message: str):
    from types import SimpleNamespace

    key = SimpleNamespace(factors=None, kinds=None, places=None if lacking == "places" else 1)
    context: Any = SimpleNamespace(
        attributions=None if lacking == "attributions" else 1, answer_key=None if lacking == "answer_key" else key
    )
    with pytest.raises(Unavailable, match=message):
        AttributionHits.from_context(context)
