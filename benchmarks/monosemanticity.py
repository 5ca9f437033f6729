"""Monosemanticity of every latent: all pairs of memes one by one, and weighted sums; then with its controls."""

from __future__ import annotations

import numpy as np
from datasets import Array2D, Dataset, Features, Value
from threadpoolctl import threadpool_limits

from benchmarks import kindest, naive
from benchmarks.data import Shape, make_latents, make_zscored
from benchmarks.measure import Row, median_time, require_close, seconds, timed
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity import CROSS_MODAL, Measurement, Panel, PanelUnits, score
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED

GOAL_RATIO, GOAL_SECONDS = 1_000, 3 * 0.13
PERMUTATIONS = 199


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    latents, embeddings = make_latents(shape), _embeddings(shape)
    return [_points(latents, embeddings, quick), _with_controls(latents, embeddings, shape.n_test, quick)]


def _points(latents: Latents, embeddings: Embeddings, quick: bool) -> Row:
    everything, part = np.arange(latents.n_samples), np.arange(min(1_000, latents.n_samples))
    latents.csc()  # made once, shared by all evaluators
    warm_up, _ = timed(lambda: _scores(latents, embeddings, everything))
    ours_s, _ = median_time(lambda: _scores(latents, embeddings, everything), 1 if quick else 7)
    of_part = latents.rows(part)
    naive_s, same = _loop(of_part, embeddings, part, _scores(of_part, embeddings, part))
    naive_s *= _pairs(latents.n_samples) / _pairs(len(part))
    kindest_s, closed = median_time(
        lambda: kindest.monosemanticity(latents.csc(), embeddings.take(IMAGE_EMBED, everything)), 1 if quick else 3
    )
    require_close(
        "MS of the kindest rival", _filled(_scores(latents, embeddings, everything)), _filled(closed), atol=1e-8
    )
    return Row(
        f"monosemanticity, {latents.n_samples:,} memes, {latents.d_sae:,} latents, all pairs",
        *(naive_s, ours_s, f"≥ {GOAL_RATIO:,}x, ≤ {seconds(GOAL_SECONDS)}"),
        naive_s / ours_s >= GOAL_RATIO and ours_s <= GOAL_SECONDS,
        same,
        f"{len(part):,} memes, extrapolated by pairs",
        "from embeddings as stored on disk; point values",
        warm_up,
        kindest_s,
        "the closed form by two sparse products of scipy",
    )


def _with_controls(latents: Latents, embeddings: Embeddings, n: int, quick: bool) -> Row:
    rows = np.arange(n)
    part, n_permutations = latents.rows(rows), 19 if quick else PERMUTATIONS
    warm_up, measured = timed(lambda: _measured(part, embeddings, rows, n_permutations))
    ours_s, _ = median_time(lambda: _measured(part, embeddings, rows, n_permutations), 1 if quick else 3)
    naive_s, same = _loop(part, embeddings, rows, measured.scores[IMAGE_EMBED].ms)
    naive_s *= len(measured.panel.pairs) * (1 + n_permutations)
    return Row(
        f"image, text and cross-modal MS, intervals, {n_permutations} permutations, {n:,} memes",
        *(naive_s, ours_s, "none", None, same),
        "one reference and no permutation",
        "the loop would have no intervals",
        warm_up,
    )


def _scores(latents: Latents, embeddings: Embeddings, rows: np.ndarray) -> np.ndarray:
    panel = Panel.of(embeddings, rows, None, [IMAGE_EMBED])
    return score(PanelUnits.of(latents), panel, intervals=False)[IMAGE_EMBED].ms


def _measured(latents: Latents, embeddings: Embeddings, rows: np.ndarray, n_permutations: int) -> Measurement:
    panel = Panel.of(embeddings, rows, None, [IMAGE_EMBED, TEXT_EMBED])
    assert CROSS_MODAL in panel.pairs
    return Measurement.of(PanelUnits.of(latents), panel, 10.0, n_permutations, seed=0)


def _loop(latents: Latents, embeddings: Embeddings, rows: np.ndarray, ours: np.ndarray) -> tuple[float, str]:
    """Seconds of the loop in float32, and how far ours is from it and from the same in float64."""
    z, x = latents.csr().toarray(), embeddings.take(IMAGE_EMBED, rows)
    with threadpool_limits(1, user_api="blas"):  # BLAS threads wait for each other on such thin matrices
        naive_s, narrow = timed(lambda: naive.monosemanticity(z, x))
    exact = naive.monosemanticity(z.astype(np.float64), x.astype(np.float64))
    same = require_close("float64 MS", _filled(ours), _filled(exact), atol=1e-10)
    return naive_s, same + ", " + require_close("float32", _filled(ours), _filled(narrow), atol=1e-4)


def _filled(ms: np.ndarray) -> np.ndarray:
    """Undefined on both sides or on neither."""
    return np.where(np.isnan(ms), 2.0, ms)


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def _embeddings(shape: Shape) -> Embeddings:
    image = make_zscored(shape)
    text = image + np.random.default_rng(4).standard_normal(image.shape).astype(np.float32)
    columns = {
        "id": [f"{i:06}" for i in range(shape.n)],
        "source": [("one", "two", "three")[i % 3] for i in range(shape.n)],
        IMAGE_EMBED: image[:, None],
        TEXT_EMBED: text[:, None],
    }
    vector = Array2D((1, shape.d_in), "float32")
    features = Features({"id": Value("string"), "source": Value("string"), IMAGE_EMBED: vector, TEXT_EMBED: vector})
    return Embeddings.from_dataset(Dataset.from_dict(columns, features=features))
