"""The reader agrees with the dataset it reads, in every order and after a selection."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import make_embeddings
from datasets import Array2D, Dataset, Features, Value, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, NonFiniteError
from sae_lens_meme.train import train

X = np.arange(60, dtype=np.float32).reshape(20, 3)
LABELS = {"hate": [None if i % 3 == 0 else i % 2 for i in range(20)]}
WHOLE = make_embeddings({"hook_fused": X}, labels=LABELS)
CHUNKED = Embeddings.from_dataset(
    concatenate_datasets([WHOLE.dataset.select(range(a, b)) for a, b in ((0, 7), (7, 8), (8, 20))])
)


@pytest.mark.parametrize("embeddings", [WHOLE, CHUNKED], ids=["whole", "chunked"])
@given(rows=st.lists(st.integers(0, 19), max_size=30))
def test_take_is_indexing(embeddings: Embeddings, rows: list[int]):
    np.testing.assert_array_equal(embeddings.take("hook_fused", rows), X[rows])


def test_a_selection_of_a_dataset_keeps_rows_and_labels_together():
    chosen = [5, 4, 19, 0]
    embeddings = Embeddings.from_dataset(WHOLE.dataset.select(chosen))
    np.testing.assert_array_equal(embeddings.take("hook_fused", range(4)), X[chosen])
    assert embeddings.ids.tolist() == [f"meme-{i}" for i in chosen]
    assert embeddings.label("hate").known.tolist() == [LABELS["hate"][i] is not None for i in chosen]


def test_batches_cover_all_rows_once_in_order():
    rows = np.concatenate([rows for rows, _ in CHUNKED.batches("hook_fused", batch_size=6)])
    assert rows.tolist() == list(range(20))


def test_splits_partition_the_rows():
    parts = [WHOLE.rows(split) for split in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(20))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda e: e.take("hook_image_embed", [0]),
            "hook 'hook_image_embed' is not in these embeddings; they have hook_fused",
        ),
        (lambda e: e.label("stance"), "label 'stance' is not in these embeddings; they have hate"),
        (lambda e: e.rows("dev"), "split 'dev' is not one of train, validation, test"),
    ],
)
def test_what_is_not_there_is_named(ask, message: str):
    with pytest.raises(DataError, match=message):
        ask(WHOLE)


@given(order=st.permutations(range(20)))
def test_strata_and_order_by_id_follow_the_memes_not_the_rows(order: list[int]):
    sources = [("b", "a", "c")[i % 3] for i in range(20)]
    whole = make_embeddings({"hook_fused": X}, sources=sources)
    shuffled = Embeddings.from_dataset(whole.dataset.select(order))
    assert shuffled.strata.tolist() == [(1, 0, 2)[i % 3] for i in order]
    assert shuffled.strata.dtype == np.int64
    assert shuffled.ids[shuffled.by_id].tolist() == sorted(whole.ids.tolist())
    np.testing.assert_array_equal(shuffled.take("hook_fused", shuffled.by_id), whole.take("hook_fused", whole.by_id))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_where_it_is_asked_for(value: float):
    x = X.copy()
    x[13, 2] = value
    embeddings = make_embeddings({"hook_fused": x})
    with pytest.raises(NonFiniteError, match=rf"hook_fused, row 13 \(id 'meme-13'\): holds {value}"):
        embeddings.require_finite("hook_fused")
    with pytest.raises(NonFiniteError, match="row 13 "):
        embeddings.require_finite("hook_fused", np.array([2, 13, 1]))
    embeddings.require_finite("hook_fused", np.array([2, 14]))


def test_large_finite_embeddings_are_finite():
    make_embeddings({"hook_fused": np.full((4, 3), 3e38, np.float32)}).require_finite("hook_fused")


@pytest.mark.parametrize(("shape", "dtype"), [((3, 2), "float32"), ((1, 2), "int64")])
def test_vectors_that_are_not_one_a_meme_are_refused(shape: tuple[int, int], dtype: str):
    features = Features({"id": Value("string"), "hook_fused": Array2D(shape, dtype)})
    columns = {"id": ["a", "b"], "hook_fused": np.ones((2, *shape), dtype)}
    with pytest.raises(DataError, match=r"hook_fused has shape \[\d, 2\] and type (float32|int64), not \(1, d\)"):
        Embeddings.from_dataset(Dataset.from_dict(columns, features=features))


def test_what_is_in_memory_is_no_folder_and_the_message_says_what_makes_embeddings_of_it():
    # Under jaxtyping's run-time checks the annotation refuses it first.
    refused = pytest.raises((DataError, TypeError), match=r"a Dataset is no folder; .*from_dataset|Type-check error")
    with refused:
        Embeddings.load(WHOLE.dataset)  # type: ignore[arg-type]
    with refused:
        train({"sae": {"d_sae": 4, "k": 2}}, embeddings=WHOLE.dataset)  # type: ignore[arg-type]
