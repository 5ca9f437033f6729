"""Rows, epochs, statistics and controls of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.train.data import EpochShuffle, open_data, shuffled


def embeddings_of(
    n: int = 400,
    d: int = 24,
    hooks: tuple[str, ...] = ("hook_fused",),
    splits: str = "tttttttv",
    bad: tuple[int, float] | None = None,
) -> Embeddings:
    """`splits` is repeated over the rows: t train, v validation, e test. `bad` is a row and a number for it."""
    names = {"t": "train", "v": "validation", "e": "test"}
    arrays = {hook: anisotropic(n, d, np.random.default_rng(seed)) for seed, hook in enumerate(hooks)}
    if bad:
        arrays[hooks[0]][bad[0], 3] = bad[1]
    return make_embeddings(
        arrays, splits=[names[splits[i % len(splits)]] for i in range(n)], labels={"hate": [0, 1] * (n // 2)}
    )


@settings(deadline=None)
@given(
    n=st.integers(2, 40),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
    epochs=st.integers(1, 4),
    buffer=st.none() | st.integers(1, 50),
)
def test_each_epoch_visits_every_row_once(n: int, batch: int, seed: int, epochs: int, buffer: int | None):
    rows = np.arange(100, 100 + n)
    provider = EpochShuffle(lambda r: r, rows, min(batch, n), seed, buffer)
    stream: list[int] = []
    while len(stream) < epochs * n:
        served = next(provider)
        assert len(served) == min(batch, n)
        stream += served.tolist()
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == rows.tolist()


def test_epochs_differ_and_seeds_differ():
    def epoch(seed: int, number: int) -> list[int]:
        return EpochShuffle(lambda r: r, np.arange(50), 50, seed).rows_at(50 * number).tolist()

    assert epoch(0, 0) != epoch(0, 1) != epoch(1, 1)
    assert epoch(3, 7) == epoch(3, 7)


def test_a_buffer_reads_few_blocks_of_the_disk_at_a_time_and_mixes_them():
    """Of 100,000 rows any 8,000 in turn lie in 2 x 17 blocks of 500; without a buffer they lie in all 200."""
    rows = np.arange(100_000)
    with_buffer, without = (EpochShuffle(lambda r: r, rows, 8_000, 0, buffer) for buffer in (8_000, None))
    for position in range(0, 80_000, 4_000):
        assert len(np.unique(with_buffer.rows_at(position) // 500)) <= 34
        assert len(np.unique(without.rows_at(position) // 500)) == 200
    order = with_buffer.rows_at(0)
    assert np.abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.1, "neighbours are torn apart"
    assert EpochShuffle(lambda r: r, rows, 8_000, 1, 8_000).rows_at(0).tolist() != order.tolist()


@given(n_before=st.integers(0, 20))
def test_a_restored_provider_goes_on_where_it_was(n_before: int):
    first = EpochShuffle(lambda r: r, np.arange(13), 5, 1, 4)
    for _ in range(n_before):
        next(first)
    second = EpochShuffle(lambda r: r, np.arange(13), 5, 99, 4)
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        assert np.array_equal(next(first), next(second))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [5, 7])  # a training row and a validation row
def test_a_bad_row_is_named(value: float, row: int):
    data = open_data(embeddings_of(bad=(row, value)), ["hook_fused"])
    with pytest.raises(NonFiniteError, match=rf'row {row} \(id "meme-{row}"\), hook_fused holds NaN or infinity'):
        data.prepare(show=False)


def test_the_shuffled_control_keeps_each_dimension_and_breaks_their_dependence():
    x = anisotropic(2000, 8, np.random.default_rng(0))
    rows = np.arange(0, 2000, 2)
    control = shuffled(lambda r: torch.from_numpy(x[r]), rows, seed=1)
    y = control(rows).numpy()
    for dimension in range(8):
        assert np.array_equal(np.sort(y[:, dimension]), np.sort(x[rows, dimension]))
    off = ~np.eye(8, dtype=bool)
    assert np.abs(np.corrcoef(x[rows].T)[off]).max() > 0.3
    assert np.abs(np.corrcoef(y.T)[off]).max() < 0.15
    assert np.array_equal(control(np.array([1, 3])).numpy(), x[[1, 3]])  # other rows stay


@pytest.mark.parametrize(("splits", "n"), [("tve", 133), ("te", 0), ("t", 0)])
def test_validation_rows_are_validation_rows_never_test_rows(splits: str, n: int):
    embeddings = embeddings_of(splits=splits)
    rows = open_data(embeddings, ["hook_fused"]).validation_rows
    assert len(rows) == n
    assert set(embeddings.splits[rows]) <= {"validation"}


def test_what_cannot_train_is_refused():
    with pytest.raises(DataError, match="0 rows of split 'train'"):
        open_data(embeddings_of(splits="v"), ["hook_fused"])
    with pytest.raises(ConfigError, match="hook_name is 'hook_fuse', embeddings has hook_fused"):
        open_data(embeddings_of(), ["hook_fuse"])
