"""Nearest neighbours in blocks are those of the whole matrix of cosines."""

from __future__ import annotations

import numpy as np
import pytest

from sae_lens_meme.dashboard import nearest as module
from sae_lens_meme.dashboard.nearest import nearest


@pytest.mark.parametrize(("rows", "columns"), [(7, 13), (50, 3), (1024, 4096)])
@pytest.mark.parametrize("k", [0, 1, 5, 200])
def test_they_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, k: int):
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "COLUMNS", columns)
    x = np.random.default_rng(0).integers(-2, 3, (60, 4)).astype(np.float32)  # many copies, and a vector of zeros
    x[7] = 0
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    cosine = (unit.astype(np.float64) @ unit.T.astype(np.float64)).round(5)
    np.fill_diagonal(cosine, -np.inf)
    places, values = nearest(lambda part: x[part], len(x), k)
    k = min(k, len(x) - 1)
    assert places.shape == values.shape == (60, k)
    np.testing.assert_allclose(values, -np.sort(-cosine, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(values, np.take_along_axis(cosine, places, axis=1), atol=1e-5)
    assert all(len(set(row)) == k for row in places.tolist()), "nobody twice"


@pytest.mark.parametrize("n", [0, 1])
def test_a_vector_alone_has_none(n: int):
    assert nearest(lambda part: np.ones((n, 3), np.float32)[part], n, 8)[0].shape == (n, 0)


def test_the_vectors_are_read_a_block_at_a_time_and_not_once_for_each():
    taken: list[int] = []

    def take(part: slice) -> np.ndarray:
        taken.append(part.stop - part.start)
        return np.ones((part.stop - part.start, 2), np.float32)

    nearest(take, 5000, 3)
    assert max(taken) <= module.COLUMNS
    assert sum(taken) <= 7 * 5000
